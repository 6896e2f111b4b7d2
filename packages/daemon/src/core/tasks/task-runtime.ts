import type { Any } from '@bufbuild/protobuf/wkt';
import type { Time } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { RequestContext } from '../request-context.ts';

/** As `containerd.v1.types.Status` numbers them. */
export type ProcessStatus = 0 | 1 | 2 | 3 | 4 | 5;

/** Paths (or URIs) of a process's streams; '' for none. */
export interface TaskIo {
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
}

/** What a process is and does now. */
export interface ProcessState extends TaskIo {
  id: string;
  containerId: string;
  pid: number;
  status: ProcessStatus;
  exitStatus: number;
  exitedAt?: Time | undefined;
}

export interface ProcessExit {
  pid: number;
  exitStatus: number;
  exitedAt?: Time | undefined;
}

/** Images of CRIU: in a directory of the caller's, or to be put into one that lives as long as the task. */
export type CheckpointSource = { path: string } | { unpackInto(directory: string): Promise<void> };

export interface CreateTaskOptions {
  /** The OCI runtime spec, bytes as the client sent them. */
  spec: Any;
  rootfs: Mount[];
  io: TaskIo;
  /** What to restore it from. */
  checkpoint?: CheckpointSource | undefined;
  /** Runtime name (`io.containerd.runc.v2`) or absolute path of a shim binary. */
  runtime: string;
  runtimeOptions?: Any | undefined;
  /** Options of this one task; the runtime's are used if absent. */
  taskOptions?: Any | undefined;
  sandboxId?: string;
  /** A task API that already listens, as a sandbox has. */
  address?: string;
  apiVersion?: number;
}

/**
 * A container that runs, or ran and was not deleted. `execId` '' means its init process. Errors are the shim's:
 * NotFound for an unknown or finished process, FailedPrecondition for a wrong state, Unavailable while its shim is away.
 */
export interface Task {
  readonly id: string;
  readonly namespace: string;
  readonly bundle: string;
  pid(): Promise<number>;
  state(execId: string, timeoutMs?: number): Promise<ProcessState>;
  start(execId: string): Promise<number>;
  kill(execId: string, signal: number, all: boolean): Promise<void>;
  exec(execId: string, spec: Any, io: TaskIo): Promise<void>;
  deleteProcess(execId: string): Promise<ProcessExit>;
  /** Answers when the process has ended, also across a restart of a shim that can be started again. */
  wait(execId: string, signal?: AbortSignal): Promise<ProcessExit>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  pids(): Promise<{ pid: number; info?: Any | undefined }[]>;
  resizePty(execId: string, width: number, height: number): Promise<void>;
  closeIo(execId: string, stdin: boolean): Promise<void>;
  update(resources: Any | undefined, annotations: Record<string, string>): Promise<void>;
  checkpoint(path: string, options: Any | undefined): Promise<void>;
  stats(): Promise<Any | undefined>;
}

/** Runs tasks through shims of the Runtime v2 API (containerd's docs/runtime-v2.md). */
export interface TaskRuntime {
  /** @throws AlreadyExists if the container has a task. */
  create(ctx: RequestContext, id: string, options: CreateTaskOptions): Promise<Task>;
  /** @throws NotFound */
  get(ctx: RequestContext, id: string): Task;
  list(ctx: RequestContext): Task[];
  /** Deletes the task, its bundle, and (if it was the last one there) lets its shim go. */
  delete(ctx: RequestContext, id: string): Promise<ProcessExit>;
  /** What a runtime binary says of itself, `containerd.types.RuntimeInfo` for a `RuntimeRequest`. */
  pluginInfo(request: Any | undefined): Promise<Any>;
  /** Sockets to which shims that were taken over from containerd send their events. */
  takenAddresses?(): Set<string>;
  /** Has `listener` called whenever such a shim is gone. */
  onTakenGone?(listener: () => void): void;
}
