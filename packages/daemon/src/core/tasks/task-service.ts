import path from 'node:path';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, hasCode, invalidArgument, now, type Time } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { ContainerStore } from '../containers/container-store.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import type { Logger } from '../log/logger.ts';
import type { RequestContext } from '../request-context.ts';
import { noClasses, type ResourceClasses } from '../resource-classes/resource-classes.ts';
import type { Checkpoints } from './checkpoints.ts';
import type { ProcessExit, ProcessState, Task, TaskIo, TaskRuntime } from './task-runtime.ts';

export interface CreateTaskInput {
  containerId: string;
  rootfs: Mount[];
  io: TaskIo;
  /** CRIU's images in the content store, or in a directory, if it is to be restored. */
  checkpoint?: Descriptor | undefined;
  criuImagePath?: string;
  options: Any | undefined;
  runtimePath: string;
  address: string;
  apiVersion: number;
}

/** One sample of a task's metrics. */
export interface TaskMetric {
  id: string;
  timestamp: Time;
  data: Any;
}

/** Annotation of a checkpoint's descriptor: a directory with CRIU's images that the task is restored from, and started. */
const restoreFromPath = 'RestoreFromPath';
/** What was written to the root of a container, beside that directory; a layer. */
export const rootfsChanges = 'rootfs-diff.tar';

/** Tasks as clients see them: container records joined with the runtime that runs them. */
export class TaskService {
  readonly #containers: ContainerStore;
  readonly #runtime: TaskRuntime;
  readonly #checkpoints: Checkpoints;
  readonly #stateTimeoutMs: number;
  readonly #log: Logger;
  /** Those that its configuration enables, for all who put containers in them. */
  readonly classes: ResourceClasses;

  constructor(
    containers: ContainerStore,
    runtime: TaskRuntime,
    checkpoints: Checkpoints,
    stateTimeoutMs: number,
    log: Logger,
    classes: ResourceClasses = noClasses,
  ) {
    this.#containers = containers;
    this.#runtime = runtime;
    this.#checkpoints = checkpoints;
    this.#stateTimeoutMs = stateTimeoutMs;
    this.#log = log;
    this.classes = classes;
  }

  async create(ctx: RequestContext, input: CreateTaskInput): Promise<{ pid: number }> {
    const container = await this.#containers.get(ctx, input.containerId);
    if (!container.spec) throw invalidArgument(`container "${container.id}" has no spec: invalid argument`);
    // containerd's CRI asks so for a container out of a checkpoint archive: what was written to its root lies beside CRIU's images.
    const images = input.checkpoint?.annotations?.[restoreFromPath];
    if (images !== undefined) {
      const changes = path.join(images, '..', rootfsChanges);
      await this.#checkpoints.applyChanges(ctx, changes, input.rootfs);
    }
    const task = await this.#runtime.create(ctx, container.id, {
      spec: container.spec,
      rootfs: input.rootfs,
      io: input.io,
      checkpoint:
        images === undefined
          ? this.#checkpoints.source(ctx, input.checkpoint, input.criuImagePath ?? '')
          : { path: images },
      runtime: input.runtimePath || container.runtime.name,
      runtimeOptions: container.runtime.options,
      taskOptions: input.options,
      sandboxId: container.sandboxId,
      address: input.address,
      apiVersion: input.apiVersion,
    });
    try {
      // Who has removed the container meanwhile would not know of its task.
      await this.#containers.get(ctx, container.id);
      // What is restored is to run by now.
      return { pid: images === undefined ? await task.pid() : await task.start('') };
    } catch (error) {
      await this.#runtime.delete({ ...ctx, signal: undefined }, container.id).catch((failure) => {
        this.#log.warn('a task that cannot be used stays', { error: failure, id: container.id });
      });
      throw error;
    }
  }

  /** The task of a container. @throws NotFound, of the container or of its task. */
  async task(ctx: RequestContext, containerId: string): Promise<Task> {
    try {
      return this.#runtime.get(ctx, containerId);
    } catch (error) {
      // The record is asked only now, to say which of the two is missing.
      await this.#containers.get(ctx, containerId);
      throw error;
    }
  }

  async delete(ctx: RequestContext, containerId: string): Promise<ProcessExit> {
    await this.task(ctx, containerId);
    return this.#runtime.delete(ctx, containerId);
  }

  /** Has the state of a task written. @returns the blobs that it went to; none if the options name a directory */
  async checkpoint(ctx: RequestContext, containerId: string, options: Any | undefined): Promise<Descriptor[]> {
    const container = await this.#containers.get(ctx, containerId);
    const task = await this.task(ctx, containerId);
    return this.#checkpoints.write(ctx, task, container.spec, options);
  }

  async state(ctx: RequestContext, containerId: string, execId: string): Promise<ProcessState> {
    const task = await this.task(ctx, containerId);
    return this.#stateOf(task, execId);
  }

  async #stateOf(task: Task, execId: string): Promise<ProcessState> {
    try {
      return await task.state(execId, this.#stateTimeoutMs);
    } catch (error) {
      if (hasCode(error, Code.NotFound) || execId !== '') throw error;
      this.#log.error('get state for task', { error, id: task.id, namespace: task.namespace });
      throw error;
    }
  }

  /** All tasks of the namespace. One whose shim does not answer is logged and left out, as in containerd. */
  async list(ctx: RequestContext): Promise<ProcessState[]> {
    const states = await Promise.all(
      this.#runtime.list(ctx).map((task) =>
        this.#stateOf(task, '').catch((error: unknown) => {
          if (!hasCode(error, Code.NotFound)) this.#log.warn('task left out of the list', { error, id: task.id });
          return undefined;
        }),
      ),
    );
    return states.filter((state) => state !== undefined);
  }

  async metrics(ctx: RequestContext, filters: string[]): Promise<TaskMetric[]> {
    const filter = parseFilters(filters);
    const chosen = this.#runtime
      .list(ctx)
      .filter((task) =>
        filter.matches((path) =>
          path.length !== 1
            ? undefined
            : path[0] === 'id'
              ? task.id
              : path[0] === 'namespace'
                ? task.namespace
                : undefined,
        ),
      );
    const metrics = await Promise.all(
      chosen.map(async (task): Promise<TaskMetric | undefined> => {
        const timestamp = now();
        try {
          const data = await task.stats();
          return data && { id: task.id, timestamp, data };
        } catch (error) {
          if (!hasCode(error, Code.NotFound)) this.#log.error('collecting metrics', { error, id: task.id });
          return undefined;
        }
      }),
    );
    return metrics.filter((metric) => metric !== undefined);
  }
}
