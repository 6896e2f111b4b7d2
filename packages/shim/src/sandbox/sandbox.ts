import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, failedPrecondition, hasCode, now, type Time } from '@gantry/api';
import type { CreateSandboxRequest } from '@gantry/api/gen/runtime/sandbox/v1/sandbox_pb.js';
import { encodeJson, type RuntimeSpec, type SpecNamespace } from '@gantry/oci';
import type { Container } from '../container.ts';
import { createContainer } from '../container-create.ts';
import { log } from '../log.ts';
import { Mutex } from '../mutex.ts';
import type { ProcessExit } from '../reaper.ts';
import type { ShimContext } from '../shim-context.ts';
import { withPauseProcess } from './pause-spec.ts';
import { isPinnable, pinNamespaces, unpinNamespaces } from './pinned-namespaces.ts';
import { planSandbox } from './sandbox-plan.ts';
import { removeSandboxRecord, type SandboxRecord, writeSandboxRecord } from './sandbox-record.ts';

const SIGTERM = 15;
const SIGKILL = 9;
/** How long a sandbox's process may take to end by itself, if the caller does not say. */
const stopMs = 3000;

/** One sandbox: what the Sandbox service's verbs do. What it is stands on disk before anyone is answered. */
export class Sandbox {
  readonly #context: ShimContext;
  readonly #record: SandboxRecord;
  /** Orders what changes it; Wait and Status go past. */
  readonly #mutex = new Mutex();
  readonly #ended = Promise.withResolvers<ProcessExit>();
  /** Its process, if it has one. */
  #container: Container | undefined;

  /** @param context with the index of sandboxes, and without events: a sandbox's process is nobody's task */
  constructor(context: ShimContext, record: SandboxRecord, container?: Container) {
    this.#context = context;
    this.#record = record;
    if (record.exit) this.#ended.resolve({ exitStatus: record.exit.exitStatus, at: timeOf(record.exit) });
    if (container) this.#hold(container);
  }

  /** Makes a sandbox up to the point where Start lets its process run. On failure nothing of it is left. */
  static async create(
    context: ShimContext,
    namespace: string,
    request: Pick<CreateSandboxRequest, 'sandboxId' | 'bundlePath' | 'rootfs' | 'options' | 'netnsPath'>,
    runtimeOptions: Any | undefined,
  ): Promise<Sandbox> {
    const { sandboxId: id, bundlePath: bundle, rootfs, options, netnsPath } = request;
    const plan = await planSandbox(id, bundle, netnsPath, options);
    const at = now();
    const sandbox = new Sandbox(context, {
      version: 1,
      namespace,
      id,
      bundle,
      process: plan.kind !== 'pinned',
      pause: plan.kind === 'pause',
      state: 'making',
      namespaces: plan.spec.linux?.namespaces ?? [],
      createdAt: { seconds: String(at.seconds), nanos: at.nanos },
      control: context.control,
    });
    // Written before anything is done that would have to be undone.
    context.index.add(namespace, id, bundle);
    sandbox.#save();
    try {
      if (plan.kind === 'pinned') await sandbox.#pin(plan.spec);
      else {
        const spec = plan.kind === 'pause' ? withPauseProcess(plan.spec, bundle) : plan.spec;
        writeFileSync(path.join(bundle, 'config.json'), encodeJson(spec));
        sandbox.#hold(
          await createContainer(context, namespace, {
            id,
            bundle,
            rootfs: plan.kind === 'pause' ? [] : rootfs,
            terminal: false,
            stdin: '',
            stdout: '',
            stderr: '',
            checkpoint: '',
            options: runtimeOptions,
          }),
        );
      }
      sandbox.#enter('created');
      return sandbox;
    } catch (error) {
      await unpinNamespaces(bundle).catch((failure) => log.warn('namespaces stay mounted', { id, error: failure }));
      sandbox.#dispose();
      throw error;
    }
  }

  get id(): string {
    return this.#record.id;
  }

  get namespace(): string {
    return this.#record.namespace;
  }

  get bundle(): string {
    return this.#record.bundle;
  }

  get createdAt(): Time {
    return timeOf(this.#record.createdAt);
  }

  /** Of the process that stands for it; 0 if there is none. */
  get pid(): number {
    return this.#container?.init.pid ?? 0;
  }

  get state(): 'SANDBOX_READY' | 'SANDBOX_NOTREADY' {
    return this.#record.state === 'ready' ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY';
  }

  /** How it ended; undefined while it has not. */
  get exit(): ProcessExit | undefined {
    const { exit } = this.#record;
    return exit && { exitStatus: exit.exitStatus, at: timeOf(exit) };
  }

  /** Lets it run. */
  start(): Promise<void> {
    return this.#mutex.run(async () => {
      if (this.#record.state !== 'created')
        throw failedPrecondition(`sandbox ${this.id} cannot be started: it is ${this.#record.state}`);
      // It may run already, if the shim was killed over an earlier call.
      if (this.#container && !this.#container.init.started) await this.#container.start('');
      this.#enter('ready');
    });
  }

  /** Ends it: its process is asked, and after a while killed; namespaces that only mounts hold go when their last process does. */
  stop(timeoutMs: number): Promise<void> {
    return this.#mutex.run(() => this.#stop(timeoutMs || stopMs));
  }

  async #stop(timeoutMs: number): Promise<void> {
    if (this.#record.exit) return;
    const container = this.#container;
    if (container && !container.init.exit) {
      const { pause, state } = this.#record;
      // One that does nothing has nothing to finish; one that was not started cannot.
      if (!pause && state === 'ready' && (await this.#endsBy(container, timeoutMs)))
        return this.#setEnded(await container.init.wait());
      await container.kill('', SIGKILL, false).catch(ignoreEnded);
      this.#setEnded(await container.init.wait());
    } else if (container) this.#setEnded(container.init.exit!);
    else {
      await unpinNamespaces(this.#record.bundle);
      this.#setEnded({ exitStatus: 0, at: now() });
    }
  }

  async #endsBy(container: Container, timeoutMs: number): Promise<boolean> {
    const late = new AbortController();
    try {
      await container.kill('', SIGTERM, false).catch(ignoreEnded);
      return await Promise.race([
        container.init.wait().then(() => true),
        sleep(timeoutMs, false, { signal: late.signal }),
      ]);
    } finally {
      late.abort();
    }
  }

  wait(): Promise<ProcessExit> {
    return this.#ended.promise;
  }

  /** Ends it and removes what there is of it. */
  shutdown(): Promise<void> {
    return this.#mutex.run(async () => {
      this.#enter('ending');
      if (this.#container) {
        if (!this.#container.init.exit) await this.#container.kill('', SIGKILL, false).catch(ignoreEnded);
        this.#setEnded(await this.#container.init.wait());
        await this.#container.delete('');
      }
      await unpinNamespaces(this.#record.bundle);
      this.#setEnded({ exitStatus: 0, at: now() });
      this.#dispose();
    });
  }

  /** Resource use of its process, in the message of the cgroups' version; undefined if it has none. */
  async stats(): Promise<Any | undefined> {
    return this.#container && !this.#container.init.exit ? this.#container.cgroup.stats(this.pid) : undefined;
  }

  /** Its namespaces, each with the path by which others join it, as far as there is one now. */
  get namespaces(): SpecNamespace[] {
    const running = this.pid > 0 && !this.exit;
    return this.#record.namespaces.map((namespace) =>
      namespace.path || !running ? namespace : { ...namespace, path: `/proc/${this.pid}/ns/${fileOf(namespace.type)}` },
    );
  }

  /** More about it, for people. */
  info(): Record<string, string> {
    const { bundle, process, pause, state } = this.#record;
    return {
      bundle,
      namespaces: JSON.stringify(this.namespaces),
      process: process ? (pause ? 'pause' : 'of its spec') : 'none',
      stage: state,
    };
  }

  async #pin(spec: RuntimeSpec): Promise<void> {
    const own = (spec.linux?.namespaces ?? []).filter(({ path: at }) => !at).map(({ type }) => type);
    const pinned = await pinNamespaces(this.#record.bundle, own.filter(isPinnable), {
      hostname: spec.hostname,
      domainname: spec.domainname,
      sysctl: spec.linux?.sysctl,
    });
    this.#record.namespaces = [...this.#record.namespaces.filter(({ path: at }) => at), ...pinned];
  }

  #hold(container: Container): void {
    this.#container = container;
    void container.init.wait().then((exit) => this.#setEnded(exit));
  }

  #setEnded(exit: ProcessExit): void {
    if (this.#record.exit) return;
    this.#record.exit = { exitStatus: exit.exitStatus, seconds: String(exit.at.seconds), nanos: exit.at.nanos };
    if (this.#record.state !== 'ending') this.#record.state = 'stopped';
    try {
      this.#save();
    } catch (error) {
      log.warn('the end of a sandbox cannot be noted', { id: this.id, error });
    }
    this.#ended.resolve(exit);
  }

  #enter(state: SandboxRecord['state']): void {
    this.#record.state = state;
    this.#save();
  }

  #save(): void {
    writeSandboxRecord(this.#record);
  }

  #dispose(): void {
    removeSandboxRecord(this.#record.bundle);
    this.#context.index.remove(this.namespace, this.id);
  }
}

function ignoreEnded(error: unknown): void {
  if (!hasCode(error, Code.NotFound)) throw error;
}

function timeOf({ seconds, nanos }: { seconds: string; nanos: number }): Time {
  return { seconds: BigInt(seconds), nanos };
}

/** As the kernel names them below /proc/<pid>/ns. */
function fileOf(type: SpecNamespace['type']): string {
  return { network: 'net', mount: 'mnt' }[type as string] ?? type;
}
