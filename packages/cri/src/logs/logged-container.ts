import { closeSync, mkdirSync, openSync, readSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fcntlSetPipeSize, hasErrno, O } from '@gantry/sys';
import type { ContainerLogOptions, OutputName } from './container-logs.ts';
import { LineClock, LineFormat } from './line-format.ts';
import { openLogFile } from './log-file.ts';
import { linuxKernel } from './log-kernel.ts';
import type { LogReport, LogState } from './log-messages.ts';
import { type LogBuffers, type LogFile, SpooledLog } from './spooled-log.ts';
import type { Waiting, WaitLoop } from './wait-loop.ts';

/** How much one turn of the event loop moves for one stream before the others have theirs. */
const turnBytes = 512 << 10;
const takeBytes = 256 << 10;
/** A stream that had more than so much in its turn is a busy one: the quiet ones come before it. */
const busyBytes = 64 << 10;
/** A stream that has written so much gets a pipe of this size: fewer turns for the same bytes. */
const wideBytes = 1 << 20;
/** Output that the main thread has not passed on yet; above it the container waits. */
const mostUnacked = 4 << 20;
/** Between two tries to write a log that cannot be written; doubled each time. */
const firstRetryMs = 100;
const longestRetryMs = 2000;

interface Stream {
  readonly index: 0 | 1;
  readonly name: OutputName;
  fd: number;
  /** O_RDWR, so that there is no end before the process has its own. */
  holder: number;
  watch: Waiting | undefined;
  moved: number;
  /** Nothing more comes out of the pipe. */
  atEnd: boolean;
}

/**
 * The output of one container in the log worker: from its pipes to its log, and on to those who follow. All descriptors are opened by
 * `node:fs`, because Node closes those itself should the thread end before this has.
 */
export class LoggedContainer {
  readonly #id: number;
  readonly #options: ContainerLogOptions;
  readonly #buffers: LogBuffers;
  readonly #loop: WaitLoop;
  readonly #report: (report: LogReport, transfer?: ArrayBuffer[]) => void;
  readonly #streams: Stream[] = [];
  readonly #files: number[] = [];
  #log: SpooledLog | undefined;
  #exited: boolean;
  #following: boolean;
  #unacked = 0;
  #retry: Waiting | undefined;
  #retryMs = firstRetryMs;
  #ended = false;
  #drained = false;
  #closed = false;

  /** @throws StatusError, SysError */
  constructor(
    id: number,
    options: ContainerLogOptions,
    state: LogState,
    shared: { buffers: LogBuffers; loop: WaitLoop },
    report: (report: LogReport, transfer?: ArrayBuffer[]) => void,
  ) {
    this.#id = id;
    this.#options = options;
    this.#buffers = shared.buffers;
    this.#loop = shared.loop;
    this.#report = report;
    this.#exited = state.exited;
    this.#following = state.follow;
    try {
      // A container that runs is followed also while its log cannot be opened: that is tried again.
      if (options.logPath !== '' && !state.resume) this.#log = this.#openLog(false);
      this.#openStreams(!state.started);
    } catch (error) {
      this.close(true);
      throw error;
    }
    // Writes what an earlier one has taken and not written.
    this.#goOn();
  }

  #closeAll(): void {
    const pipes = this.#streams.flatMap(({ fd, holder }) => [fd, holder]);
    for (const fd of [...pipes, ...this.#files, this.#log?.file.fd ?? -1]) if (fd >= 0) closeSync(fd);
  }

  #openLog(resume: boolean): SpooledLog {
    for (const fd of this.#files.splice(0)) closeSync(fd);
    const { stateDirectory, logPath, maxLineSize } = this.#options;
    if (!resume) rmSync(stateDirectory, { recursive: true, force: true });
    mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
    const file = (name: string): number => {
      const fd = openSync(path.join(stateDirectory, name), O.RDWR | O.CREAT | O.NOFOLLOW, 0o600);
      this.#files.push(fd);
      return fd;
    };
    const clock = new LineClock();
    const log = new SpooledLog({
      kernel: linuxKernel,
      journal: file('journal'),
      spools: [file('stdout'), file('stderr')],
      formats: [new LineFormat('stdout', clock), new LineFormat('stderr', clock)],
      maxLineSize,
      buffers: this.#buffers,
    });
    let opened: LogFile | undefined;
    try {
      log.begin((earlier) => {
        opened = openLogFile(logPath, earlier);
        return opened;
      });
      return log;
    } catch (error) {
      if (opened) closeSync(opened.fd);
      throw error;
    }
  }

  #openStreams(hold: boolean): void {
    for (const [index, name] of (['stdout', 'stderr'] as const).entries()) {
      const fifo = this.#options[name];
      const stream: Stream = {
        index: index as 0 | 1,
        name,
        fd: -1,
        holder: -1,
        watch: undefined,
        moved: 0,
        atEnd: true,
      };
      this.#streams.push(stream);
      if (fifo === '') continue;
      try {
        // O_RDWR never waits (fifo(7)); opened again while that one is held, neither does any other mode.
        stream.holder = openSync(fifo, O.RDWR | O.NONBLOCK | O.NOCTTY);
        stream.fd = openSync(`/proc/self/fd/${stream.holder}`, O.RDONLY | O.NONBLOCK | O.NOCTTY);
        stream.atEnd = false;
      } catch (error) {
        // One that has ended, whose FIFOs have gone with it.
        if (!this.#exited || !hasErrno(error, 'ENOENT')) throw error;
      }
    }
    if (!hold) this.#letGo();
  }

  started(): void {
    this.#letGo();
  }

  exited(): void {
    this.#exited = true;
    if (this.#log) this.#log.extraRoom = wideBytes;
    this.#letGo();
    for (const stream of this.#streams) this.#turn(stream);
  }

  #letGo(): void {
    for (const stream of this.#streams) {
      if (stream.holder >= 0) closeSync(stream.holder);
      stream.holder = -1;
    }
  }

  follow(on: boolean): void {
    this.#following = on;
    if (on) return;
    this.#unacked = 0;
    this.#goOn();
  }

  acknowledge(bytes: number): void {
    const before = this.#unacked;
    this.#unacked = Math.max(0, before - bytes);
    if (before > mostUnacked && this.#unacked <= mostUnacked) this.#goOn();
  }

  /** A log that could not be opened so far is tried again. @throws StatusError, LogBlocked */
  reopen(): void {
    if (!this.#log) {
      this.#goOn();
      return;
    }
    const file = openLogFile(this.#options.logPath);
    try {
      closeSync(this.#log.change(file).fd);
    } catch (error) {
      closeSync(file.fd);
      throw error;
    }
    this.#goOn();
  }

  /** Lets go of everything. What is not in the log is lost, or with `keep` left to who opens it again. */
  close(keep: boolean): void {
    if (this.#closed) return;
    if (!keep) this.#lastWords();
    this.#closed = true;
    this.#retry?.close();
    for (const { watch } of this.#streams) watch?.close();
    this.#closeAll();
    this.#streams.length = 0;
    if (!keep && this.#log) rmSync(this.#options.stateDirectory, { recursive: true, force: true });
  }

  /** The beginning of a line that nobody will end any more. */
  #lastWords(): void {
    try {
      for (const { index } of this.#streams) this.#log?.write(index, true);
    } catch (error) {
      this.#report({ id: this.#id, say: 'blocked', reason: (error as Error).message });
    }
  }

  /** Tries again what could not be done, and waits for more. */
  #goOn(): void {
    if (this.#closed) return;
    this.#retry?.close();
    try {
      if (this.#options.logPath !== '') this.#log ??= this.#openLog(true);
      if (this.#exited && this.#log) this.#log.extraRoom = wideBytes;
      for (const stream of this.#streams) this.#log?.write(stream.index, stream.atEnd);
    } catch (error) {
      this.#block(error);
      return;
    }
    if (this.#retry) this.#report({ id: this.#id, say: 'unblocked' });
    this.#retry = undefined;
    this.#retryMs = firstRetryMs;
    for (const stream of this.#streams) this.#await(stream);
    this.#finish();
  }

  /** Whatever it was, the other containers have nothing to do with it. */
  #block(error: unknown): void {
    if (!this.#retry) this.#report({ id: this.#id, say: 'blocked', reason: (error as Error).message });
    this.#retry?.close();
    this.#retry = this.#loop.after(this.#retryMs, () => this.#goOn());
    this.#retryMs = Math.min(this.#retryMs * 2, longestRetryMs);
    for (const stream of this.#streams) this.#rest(stream);
  }

  #await(stream: Stream): void {
    if (stream.atEnd || stream.watch || this.#retry || this.#unacked > mostUnacked) return;
    stream.watch = this.#loop.watch(stream.fd, () => this.#turn(stream));
  }

  #rest(stream: Stream): void {
    stream.watch?.close();
    stream.watch = undefined;
  }

  /** @returns whether there was much */
  #turn(stream: Stream): boolean {
    let moved = 0;
    try {
      for (let budget = turnBytes; budget > 0 && !stream.atEnd; ) {
        const count = this.#take(stream, Math.min(budget, takeBytes));
        if (count === 0) this.#atEnd(stream);
        if (count === 'full' || count <= 0) break;
        budget -= count;
        stream.moved += count;
        moved += count;
        if (!this.#retry) this.#log?.write(stream.index, false);
      }
      if (stream.atEnd && !this.#retry) this.#log?.write(stream.index, true);
      if (stream.moved >= wideBytes) this.#widen(stream);
    } catch (error) {
      this.#block(error);
    }
    if (this.#unacked > mostUnacked) for (const each of this.#streams) this.#rest(each);
    this.#finish();
    return moved > busyBytes;
  }

  #take(stream: Stream, most: number): number | 'full' {
    if (!this.#log) return this.#options.logPath === '' ? this.#drop(stream) : 'full';
    const count = this.#log.take(stream.index, stream.fd, most);
    if (this.#following && count !== 'full' && count > 0)
      for (const piece of this.#log.taken(stream.index, count)) this.#pass(stream, piece);
    return count;
  }

  /** Without a log it is read for those who follow. */
  #drop(stream: Stream): number {
    try {
      const count = readSync(stream.fd, this.#buffers.input);
      if (this.#following && count > 0) this.#pass(stream, this.#buffers.input.subarray(0, count));
      return count;
    } catch (error) {
      if (hasErrno(error, 'EAGAIN')) return -1;
      throw error;
    }
  }

  #pass({ name }: Stream, piece: Buffer): void {
    const bytes = new Uint8Array(piece);
    this.#unacked += bytes.length;
    this.#report({ id: this.#id, output: name, bytes }, [bytes.buffer]);
  }

  /** No writer is left. Before the container's end that may be one that comes again: a shim in place of one that was killed. */
  #atEnd(stream: Stream): void {
    if (!this.#exited) {
      stream.holder = openSync(`/proc/self/fd/${stream.fd}`, O.RDWR | O.NONBLOCK | O.NOCTTY);
      return;
    }
    this.#rest(stream);
    closeSync(stream.fd);
    stream.fd = -1;
    stream.atEnd = true;
  }

  #widen(stream: Stream): void {
    stream.moved = Number.NEGATIVE_INFINITY;
    if (stream.atEnd) return;
    try {
      fcntlSetPipeSize(stream.fd, wideBytes);
    } catch {
      // The system may allow no larger ones.
    }
  }

  #finish(): void {
    if (this.#drained || !this.#exited || !this.#streams.every(({ atEnd }) => atEnd)) return;
    if (!this.#ended) this.#report({ id: this.#id, say: 'ended' });
    this.#ended = true;
    this.#drained = !this.#log || this.#log.waiting(0) + this.#log.waiting(1) === 0;
    if (this.#drained) this.#report({ id: this.#id, say: 'drained' });
  }
}
