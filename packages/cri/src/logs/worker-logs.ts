import net from 'node:net';
import { Code, hasCode } from '@gantry/api';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import { O, openFifoWriter } from '@gantry/sys';
import type { ContainerIo, ContainerLogOptions, ContainerLogs, EarlierOutput, OutputName } from './container-logs.ts';
import { type LogCounts, newLogCounts, readLogCounts } from './log-counts.ts';
import type { LogState } from './log-messages.ts';
import { type ContainerReport, LogThread } from './log-thread.ts';

/** Has a worker copy output: one thread for all containers, begun with the first. One that dies is begun again, and goes on as a next daemon would. */
export class WorkerLogs implements ContainerLogs {
  readonly #log: Logger;
  readonly #open = new Map<number, WorkerIo>();
  readonly #counts = newLogCounts();
  #thread: LogThread | undefined;
  #lastId = 0;
  #closed = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Of all containers since this was made. */
  counts(): LogCounts {
    return readLogCounts(this.#counts);
  }

  async open(options: ContainerLogOptions, earlier?: EarlierOutput): Promise<ContainerIo> {
    const id = ++this.#lastId;
    const io = new WorkerIo(id, options, earlier, {
      thread: () => this.#running(),
      log: this.#log,
      forget: () => this.#open.delete(id),
    });
    this.#open.set(id, io);
    try {
      await io.begin();
      return io;
    } catch (error) {
      this.#open.delete(id);
      throw error;
    }
  }

  #running(): LogThread {
    this.#thread ??= new LogThread(
      (report) => this.#open.get(report.id)?.report(report),
      (reason) => this.#restart(reason),
      this.#counts,
    );
    return this.#thread;
  }

  #restart(error: Error): void {
    this.#thread = undefined;
    if (this.#closed) return;
    this.#log.error('container logs: begun again', { error });
    for (const io of this.#open.values()) io.resume();
  }

  /** Ends the thread in the middle of whatever it does. For tests. */
  async endThread(): Promise<void> {
    await this.#thread?.end();
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const io of this.#open.values()) io.leave();
    await this.#thread?.stop();
  }
}

const mostFailures = 10;

interface Owner {
  thread(): LogThread;
  log: Logger;
  forget(): void;
}

type Follower = { onOutput: (name: OutputName, bytes: Uint8Array) => void; onEnd: () => void };

class WorkerIo implements ContainerIo {
  readonly drained: Promise<void>;
  readonly #id: number;
  readonly #options: ContainerLogOptions;
  readonly #owner: Owner;
  readonly #followers = new Set<Follower>();
  readonly #onDrained: () => void;
  readonly #state: LogState;
  #stdin: net.Socket | undefined;
  #begun = false;
  /** How often a thread has ended with it. */
  #failures = 0;
  #ended = false;
  #closed = false;

  constructor(id: number, options: ContainerLogOptions, earlier: EarlierOutput | undefined, owner: Owner) {
    this.#id = id;
    this.#options = options;
    this.#owner = owner;
    const resume = earlier !== undefined;
    this.#state = { resume, started: resume, exited: earlier?.exited ?? false, follow: false };
    const { promise, resolve } = Promise.withResolvers<void>();
    this.drained = promise;
    this.#onDrained = resolve;
  }

  async begin(): Promise<void> {
    if (this.#options.stdin !== '' && !this.#state.exited) {
      const { fd } = openFifoWriter(this.#options.stdin, { flags: O.NONBLOCK });
      this.#stdin = new net.Socket({ fd, readable: false, writable: true });
      this.#stdin.on('error', () => undefined);
    }
    try {
      await this.#askToOpen();
      this.#begun = true;
    } catch (error) {
      this.#stdin?.destroy();
      throw error;
    }
  }

  #askToOpen(): Promise<void> {
    return this.#owner.thread().ask({ do: 'open', id: this.#id, options: this.#options, state: { ...this.#state } });
  }

  /** The thread is gone, but all that it knew is in its files. */
  resume(): void {
    if (!this.#begun || this.#closed) return;
    this.#state.resume = true;
    this.#askToOpen().catch((error) => {
      // The thread has ended again, and another one begins.
      if (hasCode(error, Code.Unavailable) && ++this.#failures < mostFailures) return;
      this.#owner.log.error('container log cannot be gone on with', { error, id: this.#options.containerId });
      this.#end();
      this.#onDrained();
    });
  }

  report(report: ContainerReport): void {
    if ('output' in report) {
      for (const { onOutput } of this.#followers) onOutput(report.output, report.bytes);
      this.#owner.thread().tell({ do: 'ack', id: this.#id, bytes: report.bytes.length });
      return;
    }
    const about = { id: this.#options.containerId, path: this.#options.logPath };
    if (report.say === 'ended') this.#end();
    else if (report.say === 'drained') this.#onDrained();
    else if (report.say === 'unblocked') this.#owner.log.info('log can be written again', about);
    else this.#owner.log.error('log cannot be written: output waits', { ...about, error: report.reason });
  }

  started(): void {
    this.#state.started = true;
    this.#owner.thread().tell({ do: 'started', id: this.#id });
  }

  exited(): void {
    this.#state.started = true;
    this.#state.exited = true;
    this.#owner.thread().tell({ do: 'exited', id: this.#id });
  }

  async reopen(): Promise<void> {
    if (this.#closed || this.#options.logPath === '') return;
    await this.#owner.thread().ask({ do: 'reopen', id: this.#id });
  }

  follow(onOutput: Follower['onOutput'], onEnd: () => void): () => void {
    const follower = { onOutput, onEnd };
    if (this.#ended) {
      onEnd();
      return () => undefined;
    }
    this.#followers.add(follower);
    this.#tellFollow();
    return () => {
      if (this.#followers.delete(follower)) this.#tellFollow();
    };
  }

  #tellFollow(): void {
    const on = this.#followers.size > 0;
    if (on === this.#state.follow || this.#closed) return;
    this.#state.follow = on;
    this.#owner.thread().tell({ do: 'follow', id: this.#id, on });
  }

  #end(): void {
    this.#ended = true;
    this.#stdin?.destroy();
    for (const { onEnd } of this.#followers) onEnd();
    this.#followers.clear();
  }

  async writeStdin(bytes: Uint8Array): Promise<void> {
    const stdin = this.#stdin;
    if (!stdin || stdin.destroyed) return;
    if (!stdin.write(bytes)) {
      await new Promise<void>((resolve) => {
        stdin.once('drain', resolve);
        stdin.once('close', () => resolve());
      });
    }
  }

  closeStdin(): void {
    this.#stdin?.end();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#owner
      .thread()
      .ask({ do: 'close', id: this.#id, keep: false })
      .catch(() => undefined);
    this.#owner.forget();
    this.leave();
  }

  /** The thread sees to the rest. */
  leave(): void {
    this.#closed = true;
    this.#end();
    this.#onDrained();
  }
}
