import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, hasCode, isAny, notFound, now, packAny, StatusError, toTimestamp, unpackAny } from '@gantry/api';
import { TaskDeleteSchema, TaskExitSchema } from '@gantry/api/gen/events/task_pb.js';
import { RuntimeInfoSchema, RuntimeRequestSchema } from '@gantry/api/gen/types/introspection_pb.js';
import { expectCgroupMove } from '@gantry/cgroups';
import type { EventExchange } from '../../core/events/exchange.ts';
import type { Logger } from '../../core/log/logger.ts';
import type { MountManager } from '../../core/mounts/mount-manager.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type {
  CheckpointSource,
  CreateTaskOptions,
  ProcessExit,
  ProcessState,
  Task,
  TaskRuntime,
} from '../../core/tasks/task-runtime.ts';
import { bootstrapAt, formatBootstrap } from './bootstrap.ts';
import {
  type Bundle,
  type BundleRoots,
  createBundle,
  deleteBundle,
  readBundleFile,
  writeBundleFile,
} from './bundle.ts';
import { type GroupFile, readGroupFile, writeGroupFile } from './group-file.ts';
import { askLeft, attachLeft, loadBundles, removeLeftSocket, unlessLost } from './left-bundles.ts';
import { RootfsMounts } from './rootfs-mounts.ts';
import type { RuntimePath } from './runtime-path.ts';
import { deleteByShim, shimInfo } from './shim-command.ts';
import type { ShimConnection } from './shim-connection.ts';
import type { ShimGroup } from './shim-group.ts';
import type { ShimGroups } from './shim-groups.ts';
import { ShimTask } from './shim-task.ts';

export interface TaskManagerSettings {
  roots: BundleRoots;
  groups: ShimGroups;
  /** Milliseconds a dead shim's `delete` action may take. */
  cleanupTimeoutMs: number;
  events: EventExchange;
  /** Performs the mounts of a root file system that a shim cannot. */
  mounts: MountManager;
  log: Logger;
}

/** How a process ended whose shim is gone and cannot be asked: as containerd says it. */
const unknownExit = 255;

/** All tasks of the daemon, by namespace and container; the shims they live in; and the bundles they leave on disk. */
export class TaskManager implements TaskRuntime {
  readonly #settings: TaskManagerSettings;
  readonly #tasks = new Map<string, ShimTask>();
  readonly #groups: ShimGroups;
  readonly #rootfs: RootfsMounts;

  constructor(settings: TaskManagerSettings) {
    this.#settings = settings;
    this.#groups = settings.groups;
    this.#rootfs = new RootfsMounts(settings.mounts, this.#groups.shims.startTimeoutMs, settings.log);
  }

  async create(ctx: RequestContext, id: string, options: CreateTaskOptions): Promise<Task> {
    expectCgroupMove();
    const {
      runtime,
      file,
      group: chosen,
    } = await this.#shimFor(ctx, options).catch((error) => {
      throw StatusError.wrap(error, 'failed to start shim');
    });
    const bundle = await createBundle(this.#settings.roots, ctx.namespace, id, options.spec.value);
    let task: ShimTask | undefined;
    const progress = { cutOff: false };
    try {
      const rootfs = await this.#rootfs.activate(ctx, id, options.rootfs, runtime);
      await writeBundleFile(bundle, 'shim-binary-path', runtime.path);
      const checkpoint = options.checkpoint && (await checkpointPath(bundle, options.checkpoint));
      await writeGroupFile(bundle, file);
      const group = chosen ?? this.#groups.of(bundle, runtime, file);
      task = new ShimTask(bundle, group, 0, (lost) => this.#cleanUpLost(lost));
      group.add(task);
      const pid = await this.#createInShim(task, bundle, { ...options, rootfs }, checkpoint ?? '', progress);
      task.setPid(pid);
      this.#tasks.set(key(ctx.namespace, id), task);
      return task;
    } catch (error) {
      await task?.group.remove(task);
      // A shim that died over it may have left a container, or its successor have taken it over.
      if (progress.cutOff) await this.#deleteByShim(runtime, bundle);
      this.#groups.descriptors?.drop(ctx.namespace, id);
      await deleteBundle(bundle).catch((failure) =>
        this.#settings.log.error('bundle cannot be removed', { error: failure, bundle: bundle.path }),
      );
      await this.#rootfs.deactivate(ctx.namespace, id);
      throw error;
    }
  }

  async #deleteByShim(runtime: RuntimePath, bundle: Bundle): Promise<ProcessExit | undefined> {
    const { cleanupTimeoutMs, log } = this.#settings;
    try {
      return await deleteByShim(runtime.path, bundle, this.#groups.shims.environment, cleanupTimeoutMs);
    } catch (error) {
      log.warn('failed to clean up after shim disconnected', { error, id: bundle.id, namespace: bundle.namespace });
      return undefined;
    }
  }

  /** Starts or finds the shim and has it create the container. A shim of ours that ended just now is started once more. */
  async #createInShim(
    task: ShimTask,
    bundle: Bundle,
    options: CreateTaskOptions,
    checkpoint: string,
    progress: { cutOff: boolean },
  ): Promise<number> {
    for (let attempt = 0; ; attempt++) {
      const { group } = task;
      const connection = await (group.borrowed && options.address
        ? group.attach(bootstrapAt(options.address, options.apiVersion ?? 0))
        : group.start(bundle)
      ).catch((error) => {
        throw StatusError.wrap(error, 'failed to start shim');
      });
      await writeBundleFile(bundle, 'bootstrap.json', formatBootstrap(connection.bootstrap));
      const taskOptions =
        options.taskOptions && options.taskOptions.value.length > 0 ? options.taskOptions : options.runtimeOptions;
      try {
        const response = await connection.task.create(
          {
            id: bundle.id,
            bundle: bundle.path,
            rootfs: options.rootfs.map(({ type, source, target, options: opts }) => ({
              type,
              source,
              target: target ?? '',
              options: opts,
            })),
            ...options.io,
            checkpoint,
            ...(taskOptions && { options: taskOptions }),
          },
          { namespace: bundle.namespace },
        );
        return response.pid;
      } catch (error) {
        if (connection.downgrade(error)) continue;
        if (!connection.open) progress.cutOff = true;
        if (attempt === 0 && group.runtime.own && !connection.open) continue;
        // It had been made when its shim died, and the next one has taken it over.
        if (progress.cutOff && hasCode(error, Code.AlreadyExists)) return (await task.state('')).pid;
        throw StatusError.wrap(error, 'failed to create shim task');
      }
    }
  }

  /** Where a task is to be created: in its sandbox's shim, in one that a client has named, or in one of its runtime. */
  async #shimFor(
    { namespace }: RequestContext,
    { runtime: name, runtimeOptions, sandboxId, address, apiVersion }: CreateTaskOptions,
  ): Promise<{ runtime: RuntimePath; file: GroupFile; group?: ShimGroup }> {
    const sandbox = sandboxId ? await this.#groups.ofSandbox(namespace, sandboxId) : undefined;
    if (sandbox) {
      const { group, file } = sandbox;
      const { bootstrap } = await group.connection();
      if (!address || bootstrapAt(address, apiVersion ?? 0).address === bootstrap.address)
        return { runtime: group.runtime, file, group };
    }
    const runtime = await this.#groups.resolve(name);
    const borrowed = Boolean(address);
    const shared = runtime.own && this.#groups.share && !borrowed;
    return { runtime, file: { shared, borrowed, options: runtimeOptions } };
  }

  get(ctx: RequestContext, id: string): Task {
    const task = this.#tasks.get(key(ctx.namespace, id));
    if (!task) throw notFound(`task ${id} not found`);
    return task;
  }

  /** The connection to the shim of a container's task. @throws StatusError NotFound, Unavailable */
  async shimOf(ctx: RequestContext, id: string): Promise<ShimConnection> {
    return (this.get(ctx, id) as ShimTask).group.connection();
  }

  list(ctx: RequestContext): Task[] {
    const tasks: Task[] = [];
    for (const task of this.#tasks.values()) if (task.namespace === ctx.namespace) tasks.push(task);
    return tasks;
  }

  takenAddresses(): Set<string> {
    return this.#groups.takenAddresses();
  }

  onTakenGone(listener: () => void): void {
    this.#groups.onTakenGone(listener);
  }

  /** Every task of every namespace. */
  all(): Iterable<Task> {
    return this.#tasks.values();
  }

  async delete(ctx: RequestContext, id: string): Promise<ProcessExit> {
    const task = this.#tasks.get(key(ctx.namespace, id));
    if (!task) throw notFound(`task ${id} not found`);
    const exit = await task.deleteProcess('').catch(async (error) => {
      // Its shim has deleted it already, for somebody else: nothing but what is ours is left.
      if (hasCode(error, Code.NotFound) && this.#tasks.get(key(ctx.namespace, id)) === task) await this.#forget(task);
      throw error;
    });
    await this.#forget(task);
    return exit;
  }

  async #forget(task: ShimTask): Promise<void> {
    this.#tasks.delete(key(task.namespace, task.id));
    this.#groups.descriptors?.drop(task.namespace, task.id);
    await Promise.all([task.group.remove(task), deleteBundle(task.files)]);
    // Only now: what the shim mounted lies on it.
    await this.#rootfs.deactivate(task.namespace, task.id);
  }

  /** The shim of a task is gone for good: end what is left of the container and tell the world. */
  async #cleanUpLost(task: ShimTask): Promise<void> {
    const { log, events } = this.#settings;
    log.warn('cleaning up after shim disconnected', { id: task.id, namespace: task.namespace });
    const answer = await this.#deleteByShim(task.group.runtime, task.files);
    if (!task.group.runtime.own) await removeLeftSocket(task.files, log);
    const exit: ProcessExit = {
      pid: answer?.pid || task.knownPid,
      exitStatus: answer?.exitStatus ?? unknownExit,
      exitedAt: answer?.exitedAt ?? now(),
    };
    await this.#forget(task).catch((error) => log.error('bundle cannot be removed', { error, id: task.id }));
    const at = exit.exitedAt ? { exitedAt: toTimestamp(exit.exitedAt) } : {};
    const common = { containerId: task.id, id: task.id, pid: exit.pid, exitStatus: exit.exitStatus, ...at };
    events.publishMessage(task.namespace, '/tasks/exit', TaskExitSchema, common);
    events.publishMessage(task.namespace, '/tasks/delete', TaskDeleteSchema, { ...common, id: '' });
  }

  /** Finds the tasks that outlived the last daemon. Runs before the daemon serves. */
  load(): Promise<void> {
    const own = { path: this.#groups.runtimes.ownShim, own: true };
    return loadBundles(
      this.#settings,
      (bundle, runtime) => this.#loadBundle(bundle, runtime),
      (bundle) => this.#endUnknown(bundle, own),
    );
  }

  /** A bundle that does not say what shim its task has: what is left of that is ended. */
  async #endUnknown(bundle: Bundle, runtime: RuntimePath): Promise<void> {
    const group = this.#groups.of(bundle, runtime, { shared: false, borrowed: false, options: undefined });
    await this.#cleanUpLost(new ShimTask(bundle, group, 0, async () => undefined));
    group.forget();
  }

  async #loadBundle(bundle: Bundle, runtime: RuntimePath): Promise<void> {
    // Shims before containerd 2 write their address themselves: it is there if the daemon was killed before it wrote its own. Ours needs
    // no such word, and what a starter wrote whose daemon was killed may be of another group.
    const told = await readBundleFile(bundle, 'bootstrap.json');
    const text = told ?? (runtime.own ? undefined : await readBundleFile(bundle, 'address'));
    if (text === undefined) {
      return this.#endUnknown(bundle, runtime);
    }
    const group = this.#groups.of(bundle, runtime, await readGroupFile(bundle));
    const task = new ShimTask(bundle, group, 0, (lost) => this.#cleanUpLost(lost));
    group.add(task);
    const found = await unlessLost(this.#settings, 'task', { bundle, own: runtime.own }, this.#reach(task, text), () =>
      this.#cleanUpLost(task),
    );
    if (!found) return;
    task.setPid(found.pid);
    this.#tasks.set(key(bundle.namespace, bundle.id), task);
  }

  /** Connects to the shim that a task was left with and asks how the task is. */
  async #reach(task: ShimTask, bootstrap: string): Promise<ProcessState> {
    const connection = await attachLeft(task.group, task.files, bootstrap);
    return askLeft(task.group, connection, this.#groups.shims.loadTimeoutMs, (timeoutMs) => task.state('', timeoutMs));
  }

  async pluginInfo(request: Any | undefined): Promise<Any> {
    const { runtimePath, options } = isAny(request, RuntimeRequestSchema)
      ? unpackAny(RuntimeRequestSchema, request!)
      : { runtimePath: '', options: undefined };
    const runtime = await this.#groups.resolve(runtimePath || 'io.containerd.runc.v2');
    return packAny(RuntimeInfoSchema, await shimInfo(runtime.path, options, this.#groups.shims.startTimeoutMs));
  }
}

/** The directory that a task is restored from: one of its work directory, on disk, for images out of the content store. */
async function checkpointPath(bundle: Bundle, source: CheckpointSource): Promise<string> {
  if ('path' in source) return source.path;
  const directory = path.join(bundle.work, 'checkpoint');
  await mkdir(directory, { mode: 0o700 });
  await source.unpackInto(directory);
  return directory;
}

function key(namespace: string, id: string): string {
  return `${namespace}/${id}`;
}
