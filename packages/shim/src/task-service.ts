import { create } from '@bufbuild/protobuf';
import { alreadyExists, failedPrecondition, invalidArgument, notFound, packAny, toTimestamp } from '@gantry/api';
import { Shim } from '@gantry/api/gen/gantry/shim/v1/shim_pb.js';
import { Task as TaskV2 } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import { StateResponseSchema, Task as TaskV3 } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { ProcessDetailsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { Status } from '@gantry/api/gen/types/task/task_pb.js';
import type { CallContext, Implementation, ServiceRegistrar } from '@gantry/rpc/service.ts';
import { readCheckpointOptions } from './checkpoint.ts';
import type { Container } from './container.ts';
import { createContainer } from './container-create.ts';
import type { Lifetime } from './lifetime.ts';
import { log } from './log.ts';
import { Mutex } from './mutex.ts';
import type { ShimContext } from './shim-context.ts';
import type { TaskProcess } from './task-process.ts';
import { shimVersion } from './version.ts';

/** The containers of this process, by namespace and id, and who is making or removing which. */
export class Containers {
  readonly #containers = new Map<string, Container>();
  readonly #mutexes = new Map<string, Mutex>();

  static key(namespace: string, id: string): string {
    return `${namespace}/${id}`;
  }

  get size(): number {
    return this.#containers.size;
  }

  find(namespace: string, id: string): Container | undefined {
    return this.#containers.get(Containers.key(namespace, id));
  }

  /** @throws StatusError NotFound */
  get(namespace: string, id: string): Container {
    const container = this.find(namespace, id);
    if (!container) throw notFound('container not created');
    return container;
  }

  add(container: Container): void {
    this.#containers.set(Containers.key(container.namespace, container.id), container);
  }

  remove(container: Container): void {
    const key = Containers.key(container.namespace, container.id);
    if (this.#containers.get(key) === container) this.#containers.delete(key);
    this.#mutexes.delete(key);
  }

  /** Orders making and removing of one id. */
  exclusive<T>(namespace: string, id: string, work: () => Promise<T>): Promise<T> {
    const key = Containers.key(namespace, id);
    let mutex = this.#mutexes.get(key);
    if (!mutex) {
      mutex = new Mutex();
      this.#mutexes.set(key, mutex);
    }
    return mutex.run(work);
  }

  values(): IterableIterator<Container> {
    return this.#containers.values();
  }
}

/** Adds containerd.task.v2.Task and v3.Task: their messages have the same fields, so one implementation answers both. */
export function addTaskServices(
  server: ServiceRegistrar,
  context: ShimContext,
  containers: Containers,
  lifetime: Lifetime,
  defaultNamespace: string,
): void {
  const namespaceOf = (call: CallContext): string => call.namespace || defaultNamespace;
  const containerOf = (request: { id: string }, call: CallContext): Container =>
    containers.get(namespaceOf(call), request.id);

  const service: Implementation<typeof TaskV3> = {
    create: (request, call) => {
      const namespace = namespaceOf(call);
      return containers.exclusive(namespace, request.id, async () => {
        if (containers.find(namespace, request.id)) throw alreadyExists(`container ${request.id} already exists`);
        return lifetime.busy(async () => {
          try {
            const container = await createContainer(context, namespace, request);
            containers.add(container);
            return { pid: container.init.pid };
          } finally {
            lifetime.release(namespace, request.id);
          }
        });
      });
    },
    start: async (request, call) => ({ pid: await containerOf(request, call).start(request.execId) }),
    delete: async (request, call) => {
      const container = containerOf(request, call);
      const remove = async () => {
        const { pid, exit } = await container.delete(request.execId);
        if (request.execId === '') {
          containers.remove(container);
          lifetime.check();
        }
        return { pid, exitStatus: exit.exitStatus, exitedAt: toTimestamp(exit.at) };
      };
      return request.execId === '' ? containers.exclusive(container.namespace, container.id, remove) : remove();
    },
    state: (request, call) => stateOf(containerOf(request, call), request.execId),
    pids: async (request, call) => {
      const container = containerOf(request, call);
      const execs = new Map([...container.execs.values()].map((process) => [process.pid, process.execId]));
      const pids = await container.pids();
      return {
        processes: pids.map((pid) => {
          const execId = execs.get(pid);
          return { pid, ...(execId === undefined ? {} : { info: packAny(ProcessDetailsSchema, { execId }) }) };
        }),
      };
    },
    pause: async (request, call) => {
      await containerOf(request, call).pause();
      return {};
    },
    resume: async (request, call) => {
      await containerOf(request, call).resume();
      return {};
    },
    checkpoint: async (request, call) => {
      if (request.path === '') throw invalidArgument('no path for a checkpoint');
      await containerOf(request, call).checkpoint(request.path, readCheckpointOptions(request.options));
      return {};
    },
    kill: async (request, call) => {
      await containerOf(request, call).kill(request.execId, request.signal, request.all);
      return {};
    },
    exec: (request, call) => {
      const container = containerOf(request, call);
      if (request.execId === '') throw invalidArgument('exec id must not be empty');
      if (!request.spec) throw invalidArgument('exec without a process spec');
      const { terminal, stdin, stdout, stderr } = request;
      container.addExec(request.execId, { terminal, stdin, stdout, stderr }, request.spec.value);
      return {};
    },
    resizePty: (request, call) => {
      const process = containerOf(request, call).process(request.execId);
      if (!process.io) throw failedPrecondition('process is not running');
      process.io.resize({ rows: request.height, cols: request.width });
      return {};
    },
    closeIO: (request, call) => {
      const container = containerOf(request, call);
      const process = container.process(request.execId);
      if (request.stdin) container.closeStdin(process.execId);
      return {};
    },
    update: async (request, call) => {
      if (!request.resources) throw invalidArgument('no resources to update');
      await containerOf(request, call).update(request.resources.value);
      return {};
    },
    wait: async (request, call) => {
      const exit = await containerOf(request, call).process(request.execId).wait();
      return { exitStatus: exit.exitStatus, exitedAt: toTimestamp(exit.at) };
    },
    stats: async (request, call) => {
      const container = containerOf(request, call);
      return { stats: await container.cgroup.stats(container.init.pid) };
    },
    connect: (request, call) => ({
      shimPid: process.pid,
      taskPid: containers.find(namespaceOf(call), request.id)?.init.pid ?? 0,
      version: shimVersion,
    }),
    shutdown: (request, call) => {
      log.debug('shutdown asked for', { id: request.id, namespace: namespaceOf(call) });
      lifetime.release(namespaceOf(call), request.id);
      lifetime.shutdown(request.now);
      return {};
    },
  };
  server.add(TaskV3, service);
  server.add(Shim, {
    states: ({ ids }, call) => ({
      states: ids.flatMap((id) => {
        const container = containers.find(namespaceOf(call), id);
        return container ? [create(StateResponseSchema, stateOf(container, ''))] : [];
      }),
    }),
  });
  server.add(TaskV2, service as unknown as Implementation<typeof TaskV2>);
}

/** The answer to State. @throws StatusError NotFound */
function stateOf(container: Container, execId: string) {
  const process = container.process(execId);
  return {
    id: container.id,
    bundle: container.identity.bundle,
    pid: process.pid,
    status: statusOf(container, process),
    ...process.stdio,
    exitStatus: process.exit?.exitStatus ?? 0,
    execId,
    ...(process.exit ? { exitedAt: toTimestamp(process.exit.at) } : {}),
  };
}

function statusOf(container: Container, process: TaskProcess): Status {
  if (process.exit) return Status.STOPPED;
  if (process === container.init && container.paused) return Status.PAUSED;
  return process.started ? Status.RUNNING : Status.CREATED;
}
