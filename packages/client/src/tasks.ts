import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { jsonAny, type Time, TypeUrl } from '@gantry/api';
import { type CreateTaskRequestSchema, Tasks as TasksService } from '@gantry/api/gen/services/tasks/v1/tasks_pb.js';
import type { Metric as WireMetric } from '@gantry/api/gen/types/metrics_pb.js';
import {
  type Descriptor,
  fromWireDescriptor,
  type SpecProcess,
  type SpecResources,
  stringifyJson,
  toWireDescriptor,
} from '@gantry/oci';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { Containers } from './containers.ts';
import { ProcessIo, type StdioOptions } from './fifos.ts';
import { anyToJson } from './known-messages.ts';
import type { Mount } from './mount.ts';
import { Process, type ProcessStatus, statusFromWire } from './process.ts';
import { Snapshots } from './snapshots.ts';
import { momentFromWire } from './time.ts';

export interface NewTask {
  /** Id of the container record. */
  container: string;
  /** Default: the mounts of the snapshot that the container record names. */
  rootfs?: Mount[];
  stdio?: StdioOptions;
  /** As the container's spec has it. */
  terminal?: boolean;
  /** Options of the runtime for this task. */
  options?: Any;
  /** Start from this checkpoint. */
  checkpoint?: Descriptor;
  /** A runtime other than the container's, as a path. */
  runtimePath?: string;
}

export interface NewExec {
  stdio?: StdioOptions;
}

/** A sample of what a task uses. */
export interface Metric {
  readonly id: string;
  readonly timestamp: Time | undefined;
  /** cgroups v1 or v2 metrics: see `json`. */
  readonly data: Any | undefined;
  /** The sample as JSON with containerd's field names. */
  json(): unknown;
}

/** The running containers of a namespace. */
export class Tasks {
  readonly #service: Client<typeof TasksService>;
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
    this.#service = createClient(TasksService, transport);
  }

  /**
   * Makes a container up to the point where its process may start.
   * @throws StatusError NotFound without such a container, AlreadyExists if it has a task
   */
  async create(task: NewTask, options?: CallOptions): Promise<Task> {
    const rootfs = task.rootfs ?? (await this.#mountsOf(task.container, options));
    const io = await ProcessIo.create(task.container, task.stdio, task.terminal);
    const request: MessageInitShape<typeof CreateTaskRequestSchema> = {
      containerId: task.container,
      rootfs,
      ...io.paths,
      terminal: task.terminal ?? false,
      runtimePath: task.runtimePath ?? '',
      ...(task.options ? { options: task.options } : {}),
      ...(task.checkpoint ? { checkpoint: toWireDescriptor(task.checkpoint) } : {}),
    };
    try {
      const { pid } = await this.#service.create(request, options);
      return new Task(this.#service, task.container, pid, io);
    } catch (reason) {
      io.destroy();
      throw reason;
    }
  }

  /**
   * A task that is there. With `attach` its streams are opened; whoever reads them shares them with whoever else does.
   * @throws StatusError NotFound
   */
  async get(container: string, settings: { attach?: boolean } = {}, options?: CallOptions): Promise<Task> {
    const { process } = await this.#service.get({ containerId: container }, options);
    const { stdio, terminal, pid, state } = statusFromWire(process!);
    const io =
      settings.attach && state !== 'stopped' ? ProcessIo.attach(stdio, terminal) : await ProcessIo.create(container);
    return new Task(this.#service, container, pid, io, state !== 'created');
  }

  async list(filter = '', options?: CallOptions): Promise<ProcessStatus[]> {
    return (await this.#service.list({ filter }, options)).tasks.map(statusFromWire);
  }

  /** Samples of all tasks, or of those the filters (`id==x`) choose. */
  async metrics(filters: string[] = [], options?: CallOptions): Promise<Metric[]> {
    return (await this.#service.metrics({ filters }, options)).metrics.map(metricFromWire);
  }

  async #mountsOf(id: string, options: CallOptions | undefined): Promise<Mount[]> {
    const { snapshotter, snapshotKey } = await new Containers(this.#transport).get(id, options);
    return snapshotKey ? new Snapshots(this.#transport, snapshotter).mounts(snapshotKey, options) : [];
  }
}

/** A container that runs (or may start to, or has just ended): its first process, and what concerns all of them. */
export class Task extends Process {
  constructor(service: Client<typeof TasksService>, containerId: string, pid: number, io: ProcessIo, running = false) {
    super(service, containerId, '', pid, io, running);
  }

  /** Prepares another process in the container; `start` runs it. @throws StatusError AlreadyExists */
  async exec(execId: string, spec: SpecProcess, settings: NewExec = {}, options?: CallOptions): Promise<Process> {
    const terminal = spec.terminal ?? false;
    const io = await ProcessIo.create(execId, settings.stdio, terminal);
    try {
      const any = jsonAny(TypeUrl.RuntimeSpecProcess, stringifyJson(spec));
      await this.service.exec({ containerId: this.containerId, execId, ...io.paths, terminal, spec: any }, options);
    } catch (reason) {
      io.destroy();
      throw reason;
    }
    return new Process(this.service, this.containerId, execId, 0, io);
  }

  /** A process that was added before. @throws StatusError NotFound */
  async process(execId: string, settings: { attach?: boolean } = {}, options?: CallOptions): Promise<Process> {
    const { process } = await this.service.get({ containerId: this.containerId, execId }, options);
    const { stdio, terminal, pid, state } = statusFromWire(process!);
    const io =
      settings.attach && state !== 'stopped' ? ProcessIo.attach(stdio, terminal) : await ProcessIo.create(execId);
    return new Process(this.service, this.containerId, execId, pid, io, state !== 'created');
  }

  async pause(options?: CallOptions): Promise<void> {
    await this.service.pause({ containerId: this.containerId }, options);
  }

  async resume(options?: CallOptions): Promise<void> {
    await this.service.resume({ containerId: this.containerId }, options);
  }

  /** Process ids on the host, with what the runtime tells of each. */
  async pids(options?: CallOptions): Promise<{ pid: number; info: unknown }[]> {
    const { processes } = await this.service.listPids({ containerId: this.containerId }, options);
    return processes.map(({ pid, info }) => ({ pid, info: info && anyToJson(info) }));
  }

  /** Changes limits while it runs. */
  async update(
    resources: SpecResources,
    settings: { annotations?: Record<string, string> } = {},
    options?: CallOptions,
  ): Promise<void> {
    const any = jsonAny(TypeUrl.RuntimeSpecLinuxResources, stringifyJson(resources));
    const { annotations = {} } = settings;
    await this.service.update({ containerId: this.containerId, resources: any, annotations }, options);
  }

  /** Freezes its state into the content store. */
  async checkpoint(settings: { parent?: string; options?: Any } = {}, options?: CallOptions): Promise<Descriptor[]> {
    const { descriptors } = await this.service.checkpoint(
      {
        containerId: this.containerId,
        parentCheckpoint: settings.parent ?? '',
        ...(settings.options ? { options: settings.options } : {}),
      },
      options,
    );
    return descriptors.map((descriptor) => fromWireDescriptor(descriptor)!);
  }

  async metrics(options?: CallOptions): Promise<Metric | undefined> {
    const { metrics } = await this.service.metrics({ filters: [`id==${this.containerId}`] }, options);
    const wire = metrics.find((metric) => metric.id === this.containerId);
    return wire && metricFromWire(wire);
  }
}

function metricFromWire(wire: WireMetric): Metric {
  return {
    id: wire.id,
    timestamp: momentFromWire(wire.timestamp),
    data: wire.data,
    json: () => wire.data && anyToJson(wire.data),
  };
}
