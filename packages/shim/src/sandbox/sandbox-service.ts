import { readFileSync } from 'node:fs';
import path from 'node:path';
import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { alreadyExists, invalidArgument, jsonAny, notFound, now, TypeUrl, toTimestamp, typeNameOf } from '@gantry/api';
import { Sandbox as SandboxApi } from '@gantry/api/gen/runtime/sandbox/v1/sandbox_pb.js';
import { OptionsSchema as RuncOptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { defaultPlatform } from '@gantry/oci';
import type { CallContext, ServiceRegistrar } from '@gantry/rpc/service.ts';
import type { Lifetime } from '../lifetime.ts';
import { Mutex } from '../mutex.ts';
import { Publisher } from '../publisher.ts';
import { ContainerIndex } from '../record.ts';
import type { ShimContext } from '../shim-context.ts';
import { Sandbox } from './sandbox.ts';

/** The sandboxes of this process, by namespace and id. */
export class Sandboxes {
  /** What their processes are made with: events of their own they have none, and their list is another than the containers'. */
  readonly context: ShimContext;
  readonly #sandboxes = new Map<string, Sandbox>();
  readonly #mutexes = new Map<string, Mutex>();

  /** @param directory of the list of bundles */
  constructor(context: ShimContext, directory: string) {
    this.context = { ...context, publisher: new Publisher(''), index: new ContainerIndex(directory) };
  }

  get size(): number {
    return this.#sandboxes.size;
  }

  values(): IterableIterator<Sandbox> {
    return this.#sandboxes.values();
  }

  find(namespace: string, id: string): Sandbox | undefined {
    return this.#sandboxes.get(`${namespace}/${id}`);
  }

  /** @throws StatusError NotFound */
  get(namespace: string, id: string): Sandbox {
    const sandbox = this.find(namespace, id);
    if (!sandbox) throw notFound(`sandbox "${id}" not found`);
    return sandbox;
  }

  add(sandbox: Sandbox): void {
    this.#sandboxes.set(`${sandbox.namespace}/${sandbox.id}`, sandbox);
  }

  remove(sandbox: Sandbox): void {
    const key = `${sandbox.namespace}/${sandbox.id}`;
    if (this.#sandboxes.get(key) === sandbox) this.#sandboxes.delete(key);
    this.#mutexes.delete(key);
  }

  /** Orders making and removing of one id. */
  exclusive<T>(namespace: string, id: string, work: () => Promise<T>): Promise<T> {
    const key = `${namespace}/${id}`;
    const mutex = this.#mutexes.get(key) ?? new Mutex();
    this.#mutexes.set(key, mutex);
    return mutex.run(work);
  }
}

/** Adds containerd.runtime.sandbox.v1.Sandbox. */
export function addSandboxService(
  server: ServiceRegistrar,
  sandboxes: Sandboxes,
  lifetime: Lifetime,
  defaultNamespace: string,
): void {
  const namespaceOf = (call: CallContext): string => call.namespace || defaultNamespace;
  const sandboxOf = (request: { sandboxId: string }, call: CallContext): Sandbox =>
    sandboxes.get(namespaceOf(call), request.sandboxId);

  server.add(SandboxApi, {
    createSandbox: (request, call) => {
      const namespace = namespaceOf(call);
      const { sandboxId: id } = request;
      if (id === '' || request.bundlePath === '') throw invalidArgument('sandbox id and bundle path must be given');
      return sandboxes.exclusive(namespace, id, async () => {
        if (sandboxes.find(namespace, id)) throw alreadyExists(`sandbox "${id}" already exists`);
        return lifetime.busy(async () => {
          try {
            sandboxes.add(await Sandbox.create(sandboxes.context, namespace, request, runtimeOptions(request.options)));
            return {};
          } finally {
            lifetime.release(namespace, id);
          }
        });
      });
    },
    startSandbox: async (request, call) => {
      const sandbox = sandboxOf(request, call);
      await sandbox.start();
      const spec = completedSpec(sandbox);
      return { pid: sandbox.pid, createdAt: toTimestamp(sandbox.createdAt), ...(spec && { spec }) };
    },
    platform: (request, call) => {
      sandboxOf(request, call);
      return { platform: defaultPlatform() };
    },
    stopSandbox: async (request, call) => {
      await sandboxOf(request, call).stop(request.timeoutSecs * 1000);
      return {};
    },
    waitSandbox: async (request, call) => {
      const exit = await sandboxOf(request, call).wait();
      return { exitStatus: exit.exitStatus, exitedAt: toTimestamp(exit.at) };
    },
    sandboxStatus: (request, call) => {
      const sandbox = sandboxOf(request, call);
      const { exit } = sandbox;
      return {
        sandboxId: sandbox.id,
        pid: sandbox.pid,
        state: sandbox.state,
        info: request.verbose ? sandbox.info() : {},
        createdAt: toTimestamp(sandbox.createdAt),
        ...(exit && { exitedAt: toTimestamp(exit.at) }),
      };
    },
    pingSandbox: (request, call) => {
      sandboxOf(request, call);
      return {};
    },
    shutdownSandbox: (request, call) => {
      const namespace = namespaceOf(call);
      return sandboxes.exclusive(namespace, request.sandboxId, async () => {
        lifetime.release(namespace, request.sandboxId);
        const sandbox = sandboxes.get(namespace, request.sandboxId);
        await sandbox.shutdown();
        sandboxes.remove(sandbox);
        lifetime.check();
        return {};
      });
    },
    sandboxMetrics: async (request, call) => {
      const sandbox = sandboxOf(request, call);
      const data = await sandbox.stats();
      return { metrics: { timestamp: toTimestamp(now()), id: sandbox.id, ...(data && { data }) } };
    },
  });
}

/** Those of the request if they are for an OCI runtime; else those that the shim was started with. */
function runtimeOptions(options: Any | undefined): Any | undefined {
  if (options && typeNameOf(options) === RuncOptionsSchema.typeName) return options;
  const [typeUrl, value = ''] = (process.env['GANTRY_SHIM_OPTIONS'] ?? '').split('\n');
  const started = create(AnySchema, { typeUrl: typeUrl ?? '', value: Buffer.from(value, 'base64') });
  return typeUrl && typeNameOf(started) === RuncOptionsSchema.typeName ? started : undefined;
}

/** The spec that its process runs by. */
function completedSpec(sandbox: Sandbox): Any | undefined {
  if (sandbox.pid === 0) return undefined;
  return jsonAny(TypeUrl.RuntimeSpec, readFileSync(path.join(sandbox.bundle, 'config.json'), 'utf8'));
}
