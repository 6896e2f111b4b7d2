import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { StatusError, unavailable } from '@gantry/api';
import { workerUrl } from '@gantry/daemon/core/workers/worker-url.ts';
import { close, eventfd } from '@gantry/sys';
import type { LogCall, LogNews, LogReport, LogRequest } from './log-messages.ts';

type Call = { resolve: () => void; reject: (reason: Error) => void };
/** What is said of one container. */
export type ContainerReport = Extract<LogReport, { id: number }>;

const one = Buffer.from(BigUint64Array.of(1n).buffer);
const stopMs = 10_000;

/** The main thread's end of the log worker. */
export class LogThread {
  readonly #worker: Worker;
  /** An eventfd that tells the thread of messages, and that it is to end. */
  readonly #bell = eventfd();
  readonly #ring = (): void => void writeSync(this.#bell, one);
  readonly #calls = new Map<number, Call>();
  readonly #exited: Promise<void>;
  readonly #leave = (): void => this.#send({ do: 'stop' });
  #lastCall = 0;
  #stopping = false;
  #gone = false;

  /** @param onEnd called when the thread has ended without having been stopped @param counts added to by the thread */
  constructor(
    onReport: (report: ContainerReport) => void,
    onEnd: (reason: Error) => void,
    counts: BigInt64Array<SharedArrayBuffer>,
  ) {
    const worker = new Worker(workerUrl(import.meta.url, 'log-worker'), {
      name: 'gantry-logs',
      execArgv: [],
      workerData: { bell: this.#bell, counts },
      resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 128 },
    });
    this.#worker = worker;
    worker.unref();
    worker.on('message', (report: LogReport) => {
      if ('id' in report) onReport(report);
      else this.#answer(report);
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#exited = promise;
    let reason: Error = unavailable('the thread that writes container logs has ended');
    worker.on('error', (error: Error) => {
      reason = unavailable(`the thread that writes container logs has failed: ${error.message}`, error);
    });
    // A process that exits waits for its threads, and this one waits in the kernel.
    process.on('exit', this.#leave);
    worker.on('exit', () => {
      process.off('exit', this.#leave);
      close(this.#bell);
      this.#gone = true;
      for (const { reject } of this.#calls.values()) reject(reason);
      this.#calls.clear();
      resolve();
      if (!this.#stopping) onEnd(reason);
    });
  }

  /** @throws StatusError */
  ask(request: LogCall): Promise<void> {
    const call = ++this.#lastCall;
    return new Promise((resolve, reject) => {
      if (this.#calls.size === 0) this.#worker.ref();
      this.#calls.set(call, { resolve, reject });
      this.#send({ ...request, call });
    });
  }

  tell(request: LogNews): void {
    this.#send(request);
  }

  #send(request: LogRequest): void {
    if (this.#gone) return;
    this.#worker.postMessage(request);
    this.#ring();
  }

  #answer(report: Extract<LogReport, { to: number }>): void {
    const call = this.#calls.get(report.to);
    this.#calls.delete(report.to);
    if (this.#calls.size === 0) this.#worker.unref();
    if ('error' in report)
      call?.reject(new StatusError(report.error.code as StatusError['code'], report.error.message));
    else call?.resolve();
  }

  /** Ends it wherever it is. */
  async end(): Promise<void> {
    const ended = this.#worker.terminate();
    if (!this.#gone) this.#ring();
    await ended;
    await this.#exited;
  }

  /** Ends it; what is not in the logs is kept for the next one. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#worker.ref();
    this.#send({ do: 'stop' });
    const timer = setTimeout(() => void this.end(), stopMs);
    await this.#exited;
    clearTimeout(timer);
  }
}
