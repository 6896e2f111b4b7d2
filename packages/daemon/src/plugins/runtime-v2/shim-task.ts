import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, deadlineExceeded, fromTimestamp, hasCode } from '@gantry/api';
import { expectCgroupMove } from '@gantry/cgroups';
import type { CallOptions } from '@gantry/rpc';
import type { ProcessExit, ProcessState, ProcessStatus, Task, TaskIo } from '../../core/tasks/task-runtime.ts';
import type { Bundle } from './bundle.ts';
import type { ShimConnection, TaskClient } from './shim-connection.ts';
import type { GroupMember, ShimGroup } from './shim-group.ts';

/** A task in a shim: every call goes to whichever shim process its group has now. */
export class ShimTask implements Task, GroupMember {
  readonly files: Bundle;
  readonly group: ShimGroup;
  #pid: number;
  /** Its create was answered. A task that is to be restored has no process then. */
  #made: boolean;
  #onLost: (task: ShimTask) => Promise<void>;

  constructor(bundle: Bundle, group: ShimGroup, pid: number, onLost: (task: ShimTask) => Promise<void>) {
    this.files = bundle;
    this.group = group;
    this.#pid = pid;
    this.#made = pid !== 0;
    this.#onLost = onLost;
  }

  get id(): string {
    return this.files.id;
  }

  get bundle(): string {
    return this.files.path;
  }

  get namespace(): string {
    return this.files.namespace;
  }

  setPid(pid: number): void {
    this.#made = true;
    this.#pid = pid;
  }

  /** The last pid known without asking. */
  get knownPid(): number {
    return this.#pid;
  }

  async #call<T>(
    call: (client: TaskClient, options: CallOptions) => Promise<T>,
    options: CallOptions = {},
  ): Promise<T> {
    const connection = await this.#connection(options.timeoutMs);
    return call(connection.task, { ...options, namespace: this.namespace });
  }

  /** Like `#call`, for what may be asked twice: if the shim dies over it, the next one is asked. */
  async #ask<T>(call: (client: TaskClient, options: CallOptions) => Promise<T>, options: CallOptions = {}): Promise<T> {
    for (;;) {
      const connection = await this.#connection(options.timeoutMs);
      try {
        return await call(connection.task, { ...options, namespace: this.namespace });
      } catch (error) {
        if (connection.open || !this.group.runtime.own) throw error;
        await connection.closed;
      }
    }
  }

  /** The group's connection, waiting for a shim that is being started no longer than the call may take. */
  async #connection(timeoutMs: number | undefined): Promise<ShimConnection> {
    const connection = this.group.connection();
    if (timeoutMs === undefined) return connection;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(deadlineExceeded(`shim of task ${this.id} is being started`)), timeoutMs);
    });
    try {
      return await Promise.race([connection, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async pid(): Promise<number> {
    if (this.#pid === 0) {
      const response = await this.#ask((client, options) => client.connect({ id: this.id }, options));
      this.#pid = response.taskPid;
    }
    return this.#pid;
  }

  async state(execId: string, timeoutMs?: number): Promise<ProcessState> {
    const together =
      execId === '' && this.group.runtime.own
        ? await this.group.states(this.namespace).ask(this.id, timeoutMs)
        : undefined;
    const response =
      together ??
      (await this.#ask(
        (client, options) => client.state({ id: this.id, execId }, options),
        timeoutMs === undefined ? {} : { timeoutMs },
      ));
    return {
      id: execId === '' ? this.id : execId,
      containerId: this.id,
      pid: response.pid,
      status: response.status as ProcessStatus,
      stdin: response.stdin,
      stdout: response.stdout,
      stderr: response.stderr,
      terminal: response.terminal,
      exitStatus: response.exitStatus,
      exitedAt: fromTimestamp(response.exitedAt),
    };
  }

  async start(execId: string): Promise<number> {
    const response = await this.#call((client, options) => client.start({ id: this.id, execId }, options));
    if (execId === '') this.#pid = response.pid;
    return response.pid;
  }

  async kill(execId: string, signal: number, all: boolean): Promise<void> {
    await this.#call((client, options) => client.kill({ id: this.id, execId, signal, all }, options));
  }

  async exec(execId: string, spec: Any, io: TaskIo): Promise<void> {
    // It is started as soon as the client has our answer.
    expectCgroupMove();
    await this.#call((client, options) => client.exec({ id: this.id, execId, spec, ...io }, options));
  }

  async deleteProcess(execId: string): Promise<ProcessExit> {
    const response = await this.#call((client, options) => client.delete({ id: this.id, execId }, options));
    return { pid: response.pid, exitStatus: response.exitStatus, exitedAt: fromTimestamp(response.exitedAt) };
  }

  async wait(execId: string, signal?: AbortSignal): Promise<ProcessExit> {
    for (;;) {
      const connection = await this.group.connection();
      try {
        const response = await connection.task.wait(
          { id: this.id, execId },
          { namespace: this.namespace, ...(signal && { signal }) },
        );
        return { pid: this.#pid, exitStatus: response.exitStatus, exitedAt: fromTimestamp(response.exitedAt) };
      } catch (error) {
        // A broken connection says nothing about the process: ask the shim that comes after it.
        if (connection.open || signal?.aborted || !this.group.runtime.own) throw error;
        await connection.closed;
      }
    }
  }

  async pause(): Promise<void> {
    await this.#call((client, options) => client.pause({ id: this.id }, options));
  }

  async resume(): Promise<void> {
    await this.#call((client, options) => client.resume({ id: this.id }, options));
  }

  async pids(): Promise<{ pid: number; info?: Any | undefined }[]> {
    const response = await this.#ask((client, options) => client.pids({ id: this.id }, options));
    return response.processes.map(({ pid, info }) => ({ pid, info }));
  }

  async resizePty(execId: string, width: number, height: number): Promise<void> {
    await this.#call((client, options) => client.resizePty({ id: this.id, execId, width, height }, options));
  }

  async closeIo(execId: string, stdin: boolean): Promise<void> {
    await this.#call((client, options) => client.closeIO({ id: this.id, execId, stdin }, options));
  }

  async update(resources: Any | undefined, annotations: Record<string, string>): Promise<void> {
    await this.#call((client, options) =>
      client.update({ id: this.id, annotations, ...(resources && { resources }) }, options),
    );
  }

  async checkpoint(path: string, checkpointOptions: Any | undefined): Promise<void> {
    await this.#call((client, options) =>
      client.checkpoint({ id: this.id, path, ...(checkpointOptions && { options: checkpointOptions }) }, options),
    );
  }

  async stats(): Promise<Any | undefined> {
    const response = await this.#ask((client, options) => client.stats({ id: this.id }, options));
    return response.stats;
  }

  /** One that is not made yet is its maker's to clear up. */
  async lost(): Promise<void> {
    if (this.#made) await this.#onLost(this);
  }

  async readopted(): Promise<void> {
    if (!this.#made) return;
    try {
      const state = await this.state('', 5000);
      this.#pid = state.pid;
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) throw error;
      await this.#onLost(this);
    }
  }
}
