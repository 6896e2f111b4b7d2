import { constants } from 'node:os';
import { invalidArgument, type Time } from '@gantry/api';
import type { Tasks as TasksService } from '@gantry/api/gen/services/tasks/v1/tasks_pb.js';
import { type Process as WireProcess, Status as WireStatus } from '@gantry/api/gen/types/task/task_pb.js';
import type { CallOptions, Client } from '@gantry/rpc';
import type { ProcessIo, StdioPaths } from './fifos.ts';
import { momentFromWire } from './time.ts';

/** How a process ended. */
export interface ExitStatus {
  /** Exit code, or 128 and the signal. */
  readonly code: number;
  readonly exitedAt: Time | undefined;
}

export type ProcessState = 'unknown' | 'created' | 'running' | 'stopped' | 'paused' | 'pausing';

/** A process as the daemon sees it. */
export interface ProcessStatus extends ExitStatus {
  readonly containerId: string;
  /** Of an exec; empty for the first process. */
  readonly execId: string;
  readonly pid: number;
  readonly state: ProcessState;
  readonly stdio: StdioPaths;
  readonly terminal: boolean;
}

/** A signal by name, with or without `SIG`, or by number. @throws StatusError InvalidArgument */
export function signalNumber(signal: string | number): number {
  const text = String(signal).toUpperCase();
  if (/^\d+$/.test(text)) return Number(text);
  const numbers: Record<string, number> = constants.signals;
  const found = numbers[text] ?? numbers[`SIG${text}`];
  if (found === undefined) throw invalidArgument(`unknown signal "${signal}"`);
  return found;
}

/** One process of a container, its first or one that was added by exec. */
export class Process {
  readonly containerId: string;
  /** Empty for the first process. */
  readonly execId: string;
  /** The streams to it, if they were asked for. */
  readonly io: ProcessIo;
  protected readonly service: Client<typeof TasksService>;
  #pid: number;

  constructor(
    service: Client<typeof TasksService>,
    containerId: string,
    execId: string,
    pid: number,
    io: ProcessIo,
    running = false,
  ) {
    this.service = service;
    this.containerId = containerId;
    this.execId = execId;
    this.#pid = pid;
    this.io = io;
    if (running) this.#started();
  }

  /** 0 until it is known: an exec has none before it starts. */
  get pid(): number {
    return this.#pid;
  }

  /** Runs what was created. */
  async start(options?: CallOptions): Promise<void> {
    const { pid } = await this.service.start(this.#names, options);
    this.#pid = pid;
    this.#started();
  }

  /** Resolves when the process has ended. Ask before `start` to miss nothing. */
  async wait(options?: CallOptions): Promise<ExitStatus> {
    const { exitStatus, exitedAt } = await this.service.wait(this.#names, options);
    return { code: exitStatus, exitedAt: momentFromWire(exitedAt) };
  }

  /** @throws StatusError NotFound if the process has ended */
  async kill(
    signal: string | number = 'SIGTERM',
    settings: { all?: boolean } = {},
    options?: CallOptions,
  ): Promise<void> {
    const request = { ...this.#names, signal: signalNumber(signal), all: settings.all ?? false };
    await this.service.kill(request, options);
  }

  async status(options?: CallOptions): Promise<ProcessStatus> {
    const { process } = await this.service.get(this.#names, options);
    return statusFromWire(process!);
  }

  /** Sets the size of its terminal, in characters. */
  async resize(width: number, height: number, options?: CallOptions): Promise<void> {
    await this.service.resizePty({ ...this.#names, width, height }, options);
  }

  /** Ends its standard input. Ending `io.stdin` does this as well. */
  async closeStdin(options?: CallOptions): Promise<void> {
    await this.service.closeIO({ ...this.#names, stdin: true }, options);
  }

  /** Removes what is left of a process that has ended. @throws StatusError FailedPrecondition if it runs */
  async delete(options?: CallOptions): Promise<ExitStatus> {
    const { exitStatus, exitedAt } =
      this.execId === ''
        ? await this.service.delete({ containerId: this.containerId }, options)
        : await this.service.deleteProcess(this.#names, options);
    this.io.stdin?.destroy();
    this.io.remove();
    return { code: exitStatus, exitedAt: momentFromWire(exitedAt) };
  }

  get #names(): { containerId: string; execId: string } {
    return { containerId: this.containerId, execId: this.execId };
  }

  #started(): void {
    this.io.started();
    if (!this.io.stdin) return;
    // The shim holds a writer of its own until it is told; a process that is gone by then needs no telling.
    const close = () => void this.closeStdin().catch(() => {});
    if (this.io.stdin.writableFinished) close();
    else this.io.onStdinEnd = close;
  }
}

const states: Record<WireStatus, ProcessState> = {
  [WireStatus.UNKNOWN]: 'unknown',
  [WireStatus.CREATED]: 'created',
  [WireStatus.RUNNING]: 'running',
  [WireStatus.STOPPED]: 'stopped',
  [WireStatus.PAUSED]: 'paused',
  [WireStatus.PAUSING]: 'pausing',
};

export function statusFromWire(wire: WireProcess): ProcessStatus {
  return {
    // Daemons put the id of the container into `id` when they list tasks, and leave the other empty.
    containerId: wire.containerId || wire.id,
    execId: wire.containerId && wire.id !== wire.containerId ? wire.id : '',
    pid: wire.pid,
    state: states[wire.status] ?? 'unknown',
    stdio: { stdin: wire.stdin, stdout: wire.stdout, stderr: wire.stderr },
    terminal: wire.terminal,
    code: wire.exitStatus,
    exitedAt: momentFromWire(wire.exitedAt),
  };
}
