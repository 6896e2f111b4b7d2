import { alreadyExists, Code, hasCode, invalidArgument, notFound, now, type Time } from '@gantry/api';
import type { Container, ContainerStore } from '@gantry/daemon/core/containers/container-store.ts';
import { KeyedLock } from '@gantry/daemon/core/content/keyed-lock.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type {
  SandboxController,
  SandboxCreateOptions,
  SandboxExit,
  SandboxInstance,
  SandboxMetric,
  SandboxStatus,
} from '@gantry/daemon/core/sandboxes/sandbox-controller.ts';
import type { SandboxInput } from '@gantry/daemon/core/sandboxes/sandbox-store.ts';
import type { SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import type { Task, TaskRuntime } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { removeAllBeneath, unmountAll } from '@gantry/mount';
import { defaultPlatform, type Platform, parseJson, type RuntimeSpec } from '@gantry/oci';
import { hasErrno, MNT } from '@gantry/sys';
import type { ImagesConfig } from '../config/images-config.ts';
import type { RuntimeConfig } from '../config/runtime-config.ts';
import type { CriImages } from '../images/cri-images.ts';
import type { ImageUnpacker } from '../images/image-unpacker.ts';
import type { ImageUserFiles } from '../images/user-files.ts';
import { Extension } from '../labels.ts';
import { removeTask, waitForEnd } from '../run/exit-watch.ts';
import { endLeftProcesses } from '../run/left-cgroup.ts';
import type { RuntimeHandlers } from '../run/runtime-handlers.ts';
import type { Selinux } from '../selinux/selinux.ts';
import { readSandboxExtension, type SandboxMetadata } from '../store/pod-sandbox.ts';
import { createPause, type PreparedPause, preparePause } from './create-pause.ts';

export interface PodSandboxControllerOptions {
  images: CriImages;
  unpacker: ImageUnpacker;
  userFiles: ImageUserFiles;
  imagesConfig: ImagesConfig;
  settings: RuntimeConfig;
  handlers: RuntimeHandlers;
  selinux: Selinux;
  containers: ContainerStore;
  snapshotters: SnapshotterRegistry;
  tasks: TaskRuntime;
  /** CRI's directories. */
  root: string;
  state: string;
  log: Logger;
}

/** By this label of a sandbox its controller tells its processes' SELinux label. */
export const selinuxLabel = 'selinux_label';

interface Entry {
  metadata: SandboxMetadata;
  createdAt: Time;
  pid: number;
  task?: Task | undefined;
  exit?: SandboxExit;
  exited: Promise<SandboxExit>;
  settle: (exit: SandboxExit) => void;
}

const Status = { created: 1, stopped: 3 } as const;
const SIGKILL = 9;

/** `podsandbox`: a sandbox is a container with a process that only waits, and holds the namespaces of its pod. */
export class PodSandboxController implements SandboxController {
  readonly #options: PodSandboxControllerOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #prepared = new Map<string, Promise<PreparedPause>>();
  readonly #locks = new KeyedLock();
  readonly #closing = new AbortController();

  constructor(options: PodSandboxControllerOptions) {
    this.#options = options;
  }

  #entry(ctx: RequestContext, id: string): Entry {
    const entry = this.#entries.get(keyOf(ctx, id));
    if (!entry) throw notFound(`failed to get sandbox "${id}": not found`);
    return entry;
  }

  prepare(ctx: RequestContext, sandbox: SandboxInput): void {
    const key = keyOf(ctx, sandbox.id);
    if (this.#entries.has(key) || this.#prepared.has(key)) return;
    const prepared = preparePause(ctx, this.#options, metadataOf(sandbox));
    // Start, or Shutdown, hears of it.
    prepared.catch(() => undefined);
    this.#prepared.set(key, prepared);
  }

  async create(ctx: RequestContext, sandbox: SandboxInput, options: SandboxCreateOptions = {}): Promise<void> {
    const key = keyOf(ctx, sandbox.id);
    if (this.#entries.has(key)) throw alreadyExists(`sandbox "${sandbox.id}": already exists`);
    const metadata = metadataOf(sandbox);
    if (options.netnsPath) metadata.netnsPath = options.netnsPath;
    this.#entries.set(key, newEntry(metadata));
  }

  #takePrepared(ctx: RequestContext, id: string): Promise<PreparedPause> | undefined {
    const key = keyOf(ctx, id);
    const prepared = this.#prepared.get(key);
    this.#prepared.delete(key);
    return prepared;
  }

  async start(ctx: RequestContext, id: string): Promise<SandboxInstance> {
    const entry = this.#entry(ctx, id);
    const prepared = this.#takePrepared(ctx, id) ?? preparePause(ctx, this.#options, entry.metadata);
    const task = await createPause(ctx, this.#options, entry.metadata, await prepared);
    try {
      entry.pid = await task.start('');
    } catch (error) {
      // Its shim may have died after the process had been started: then it runs.
      await task.kill('', SIGKILL, true).catch(() => undefined);
      await removeTask(this.#options, id, ctx.namespace);
      throw error;
    }
    entry.task = task;
    entry.createdAt = now();
    this.#watch(ctx, id, entry, task);
    return {
      id,
      pid: entry.pid,
      createdAt: entry.createdAt,
      labels: {
        ...entry.metadata.config.labels,
        ...(entry.metadata.processLabel !== '' && { [selinuxLabel]: entry.metadata.processLabel }),
      },
      address: '',
      version: 0,
    };
  }

  #watch(ctx: RequestContext, id: string, entry: Entry, task: Task): void {
    const { log } = this.#options;
    const { signal } = this.#closing;
    void waitForEnd(task, signal, (error) => log.warn('sandbox cannot be waited for', { error, id })).then(
      async (exit) => {
        if (!exit) return;
        await removeTask(this.#options, id, ctx.namespace);
        entry.pid = 0;
        entry.task = undefined;
        entry.settle({ exitStatus: exit.exitStatus, exitedAt: exit.exitedAt ?? now() });
      },
    );
  }

  /** Nothing is watched any more; what runs goes on. */
  close(): void {
    this.#closing.abort();
  }

  /** Finds the process of a sandbox that an earlier daemon started. One without is taken for ended. */
  async recover(ctx: RequestContext, metadata: SandboxMetadata): Promise<void> {
    const key = keyOf(ctx, metadata.id);
    if (this.#entries.has(key)) return;
    const entry = newEntry(metadata);
    this.#entries.set(key, entry);
    const { containers, tasks, log } = this.#options;
    const { id } = metadata;
    let task: Task;
    let record: Container | undefined;
    try {
      record = await containers.get(ctx, id);
      entry.createdAt = record.createdAt;
      task = tasks.get(ctx, id);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) throw error;
      const spec = record?.spec && parseJson<RuntimeSpec>(record.spec.value);
      await endLeftProcesses(id, spec, log);
      entry.settle({ exitStatus: 255, exitedAt: now() });
      return;
    }
    const state = await task.state('').catch((error) => log.warn('state of a sandbox', { error, id }));
    if (state?.status === Status.created) {
      // Its start was cut off.
      await removeTask(this.#options, id, ctx.namespace);
      entry.settle({ exitStatus: 255, exitedAt: now() });
      return;
    }
    entry.pid = !state || state.status === Status.stopped ? 0 : state.pid;
    entry.task = task;
    this.#watch(ctx, id, entry, task);
  }

  async platform(ctx: RequestContext, id: string): Promise<Platform> {
    this.#entry(ctx, id);
    return defaultPlatform();
  }

  async stop(ctx: RequestContext, id: string): Promise<void> {
    const entry = this.#entry(ctx, id);
    await this.#locks.run(keyOf(ctx, id), async () => {
      await unmountAll(`${this.#options.state}/sandboxes/${id}/shm`, MNT.DETACH);
      if (entry.exit || !entry.task) return;
      await entry.task.kill('', SIGKILL, true).catch((error) => {
        if (!hasCode(error, Code.NotFound)) throw error;
      });
      await entry.exited;
    });
  }

  wait(ctx: RequestContext, id: string): Promise<SandboxExit> {
    return this.#entry(ctx, id).exited;
  }

  async status(ctx: RequestContext, id: string): Promise<SandboxStatus> {
    const { pid, exit, createdAt } = this.#entry(ctx, id);
    const running = exit === undefined && pid > 0;
    return {
      id,
      pid,
      state: running ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY',
      info: {},
      createdAt,
      exitedAt: exit?.exitedAt,
      address: '',
      version: 0,
    };
  }

  async shutdown(ctx: RequestContext, id: string): Promise<void> {
    const entry = this.#entries.get(keyOf(ctx, id));
    const prepared = await this.#takePrepared(ctx, id)?.catch(() => undefined);
    await prepared?.undo.disposeAsync();
    if (entry) await this.stop(ctx, id);
    const { containers, snapshotters, handlers, imagesConfig, root, state } = this.#options;
    try {
      const { snapshotter, snapshotKey } = await containers.get(ctx, id);
      if (snapshotKey !== '') await snapshotters.get(ctx, snapshotter).remove(ctx, snapshotKey).catch(ignoreMissing);
      await containers.delete(ctx, id);
    } catch (error) {
      ignoreMissing(error);
      // Its making was cut off between the snapshot and the record.
      if (entry) {
        const { snapshotter } = handlers.get(entry.metadata.runtimeHandler);
        await snapshotters
          .get(ctx, snapshotter || imagesConfig.snapshotter)
          .remove(ctx, id)
          .catch(ignoreMissing);
      }
    }
    await unmountAll(`${state}/sandboxes/${id}/shm`, MNT.DETACH);
    await removeAllBeneath(`${root}/sandboxes/${id}`);
    await removeAllBeneath(`${state}/sandboxes/${id}`);
    this.#entries.delete(keyOf(ctx, id));
  }

  async metrics(ctx: RequestContext, id: string): Promise<SandboxMetric> {
    const { task } = this.#entry(ctx, id);
    return { id, timestamp: now(), data: await task?.stats() };
  }

  async update(ctx: RequestContext, id: string, sandbox: SandboxInput): Promise<void> {
    const entry = this.#entry(ctx, id);
    entry.metadata = readSandboxExtension(sandbox.extensions[Extension.sandbox]) ?? entry.metadata;
  }
}

/** @throws InvalidArgument if it is none of CRI's */
function metadataOf(sandbox: SandboxInput): SandboxMetadata {
  const metadata = readSandboxExtension(sandbox.extensions[Extension.sandbox]);
  if (!metadata) throw invalidArgument(`sandbox "${sandbox.id}" has no pod metadata: invalid argument`);
  return metadata;
}

function newEntry(metadata: SandboxMetadata): Entry {
  const { promise, resolve } = Promise.withResolvers<SandboxExit>();
  const entry: Entry = {
    metadata,
    createdAt: now(),
    pid: 0,
    exited: promise,
    settle: (exit) => {
      entry.exit ??= exit;
      resolve(exit);
    },
  };
  return entry;
}

function ignoreMissing(error: unknown): void {
  if (!hasCode(error, Code.NotFound) && !hasErrno(error, 'ENOENT')) throw error;
}

function keyOf(ctx: RequestContext, id: string): string {
  return `${ctx.namespace}/${id}`;
}
