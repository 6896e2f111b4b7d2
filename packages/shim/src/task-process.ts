import { Mutex } from './mutex.ts';
import type { ProcessExit } from './reaper.ts';
import { type ProcessRecord, processStartTime } from './record.ts';
import type { PipeInodes, ProcessIo, StdioRequest } from './stdio/process-io.ts';

/** One process of a container: its init, or one added by Exec. */
export class TaskProcess {
  /** '' for the init process. */
  readonly execId: string;
  readonly stdio: StdioRequest;
  /** Orders Start and Delete of this process; Kill goes past it. */
  readonly mutex = new Mutex();
  /** 0 until it exists. */
  pid = 0;
  startTime = '';
  /** Start has been answered well. */
  started = false;
  direct = false;
  stdinClosed = false;
  /** What the daemon keeps of it, as a list of kinds. */
  keptKinds = '';
  io: ProcessIo | undefined;
  /** Of an exec: the process document (OCI JSON) as the client sent it. */
  spec: Uint8Array | undefined;
  /** Exits are announced after this: a start in progress announces itself first. */
  announced: Promise<void> = Promise.resolve();
  #pipes: PipeInodes = {};
  readonly #exited = Promise.withResolvers<ProcessExit>();
  #exit: ProcessExit | undefined;

  constructor(execId: string, stdio: StdioRequest) {
    this.execId = execId;
    this.stdio = stdio;
  }

  /** How it ended; undefined while it runs or before it exists. */
  get exit(): ProcessExit | undefined {
    return this.#exit;
  }

  get isRunning(): boolean {
    return this.pid > 0 && this.#exit === undefined;
  }

  setPid(pid: number): void {
    this.pid = pid;
    this.startTime = processStartTime(pid) ?? '';
  }

  setExited(exit: ProcessExit): void {
    this.#exit ??= exit;
    this.#exited.resolve(this.#exit);
  }

  /** Resolves when the process has ended. */
  wait(): Promise<ProcessExit> {
    return this.#exited.promise;
  }

  record(): ProcessRecord {
    const exit = this.#exit;
    return {
      execId: this.execId,
      pid: this.pid,
      startTime: this.startTime,
      started: this.started,
      stdio: this.stdio,
      direct: this.direct,
      ...(this.stdinClosed ? { stdinClosed: true } : {}),
      pipes: this.pipes,
      ...(this.spec ? { spec: Buffer.from(this.spec).toString('base64') } : {}),
      ...(exit
        ? { exit: { exitStatus: exit.exitStatus, seconds: String(exit.at.seconds), nanos: exit.at.nanos } }
        : {}),
    };
  }

  /** Inode numbers of the pipes that its output goes through. */
  get pipes(): PipeInodes {
    return this.io?.pipes ?? this.#pipes;
  }

  /** A process as another shim left it on disk. */
  static fromRecord(record: ProcessRecord): TaskProcess {
    const process = new TaskProcess(record.execId, record.stdio);
    process.pid = record.pid;
    process.startTime = record.startTime;
    process.started = record.started;
    process.direct = record.direct;
    process.stdinClosed = record.stdinClosed ?? false;
    process.#pipes = record.pipes ?? {};
    if (record.spec) process.spec = Buffer.from(record.spec, 'base64');
    if (record.exit)
      process.setExited({
        exitStatus: record.exit.exitStatus,
        at: { seconds: BigInt(record.exit.seconds), nanos: record.exit.nanos },
      });
    return process;
  }
}
