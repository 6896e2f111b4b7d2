import { Worker } from 'node:worker_threads';
import { StatusError, unavailable } from '@gantry/api';
import type { JobReply } from './worker-jobs.ts';

/** A thread costs several megabytes; one without work for so long is ended, and started again when there is some. */
const idleMs = 5000;

/**
 * The main thread's side of a worker that does jobs one after the other. The thread starts with the first job, does not
 * keep the process alive while idle, and is started anew if it dies; the jobs it had then fail with Unavailable.
 */
export class JobWorker {
  readonly #url: URL;
  readonly #name: string;
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (reason: Error) => void }>();
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;
  #lastId = 0;

  constructor(url: URL, name: string) {
    this.#url = url;
    this.#name = name;
  }

  /** Jobs not answered yet. */
  get load(): number {
    return this.#waiting.size;
  }

  /** Changes whenever a thread starts or ends: what one knew is gone with it. */
  generation = 0;

  /** Starts the thread, for a job that comes soon. */
  warm(): void {
    this.#start();
    if (this.#waiting.size === 0) this.#endWhenIdle();
  }

  run<T>(op: string, args: unknown): Promise<T> {
    const worker = this.#start();
    const id = ++this.#lastId;
    return new Promise<T>((resolve, reject) => {
      if (this.#waiting.size === 0) {
        clearTimeout(this.#idle);
        worker.ref();
      }
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      worker.postMessage({ id, op, args });
    });
  }

  async close(): Promise<void> {
    const worker = this.#worker;
    clearTimeout(this.#idle);
    this.#forget(worker);
    await worker?.terminate();
  }

  #endWhenIdle(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => void this.close(), idleMs).unref();
  }

  #forget(worker: Worker | undefined): void {
    if (!worker || this.#worker !== worker) return;
    this.#worker = undefined;
    this.generation++;
  }

  #start(): Worker {
    if (this.#worker) return this.#worker;
    const worker = new Worker(this.#url, { name: this.#name, execArgv: [] });
    this.#worker = worker;
    this.generation++;
    worker.unref();
    worker.on('message', (reply: JobReply) => {
      const waiter = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if (this.#waiting.size === 0) {
        worker.unref();
        this.#endWhenIdle();
      }
      if ('value' in reply) waiter?.resolve(reply.value);
      else {
        const { code, message, errno } = reply.error;
        const error = new StatusError(code as StatusError['code'], message);
        waiter?.reject(errno === undefined ? error : Object.assign(error, { errno }));
      }
    });
    const ended = (cause: unknown) => {
      if (this.#worker && this.#worker !== worker) return;
      this.#forget(worker);
      for (const { reject } of this.#waiting.values()) reject(unavailable(`worker ${this.#name} ended`, cause));
      this.#waiting.clear();
    };
    worker.on('error', ended);
    worker.on('exit', ended);
    return worker;
  }
}
