/**
 * Threads for what must not run on the main one: hashing, compression, unpacking, comparing. Started when first needed, ended
 * when idle, so that a daemon at rest is small. A worker that dies fails the jobs it ran and nothing else.
 */
import { availableParallelism } from 'node:os';
import { type Transferable, Worker } from 'node:worker_threads';
import { awaitedWork } from '@gantry/sys/idle-memory.ts';
import { type FromWorker, fromFailure, type ToWorker } from './job.ts';
import { workerUrl } from './worker-url.ts';

export interface WorkerPoolOptions {
  /** Most workers at a time. Default: one a core, at most 4. */
  size?: number;
  /** Milliseconds after which an idle worker ends. Default 10,000. */
  idleAfter?: number;
  /** The worker's entry, for tests and embedders. */
  url?: URL;
}

export interface RunOptions {
  /** Cancels the job; its promise rejects with the signal's reason once the worker has let go of everything. */
  signal?: AbortSignal | undefined;
  onProgress?: (progress: unknown) => void;
  transfer?: Transferable[];
}

/** A job under way. */
export interface RunningJob<Result> {
  readonly result: Promise<Result>;
  /** Sends the job a message (it awaits them with `nextMessage`). Ignored when it has ended. */
  post(message: unknown): void;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: unknown): void;
  onProgress: ((progress: unknown) => void) | undefined;
  signal: AbortSignal | undefined;
  onAbort: (() => void) | undefined;
  /** The main thread no longer waits for it. */
  ended: () => void;
}

interface Member {
  worker: Worker;
  jobs: Map<number, Pending>;
  idle: NodeJS.Timeout | undefined;
  ended: Promise<void>;
}

export class WorkerPool implements AsyncDisposable {
  readonly #size: number;
  readonly #idleAfter: number;
  readonly #url: URL;
  readonly #members = new Set<Member>();
  #nextId = 1;
  #closed = false;

  constructor(options: WorkerPoolOptions = {}) {
    this.#size = Math.max(1, options.size ?? Math.min(availableParallelism(), 4));
    this.#idleAfter = options.idleAfter ?? 10_000;
    this.#url = options.url ?? workerUrl(import.meta.url, 'archive-worker');
  }

  /** Workers alive. */
  get workers(): number {
    return this.#members.size;
  }

  /** Runs a job by name and waits for its result. @throws JobError as the job failed */
  async run<Result>(job: string, params: unknown, options: RunOptions = {}): Promise<Result> {
    return await this.start<Result>(job, params, options).result;
  }

  /** Starts a job that is to be told more while it runs. */
  start<Result>(job: string, params: unknown, options: RunOptions = {}): RunningJob<Result> {
    if (this.#closed) return { result: Promise.reject(new Error('worker pool is closed')), post() {} };
    if (options.signal?.aborted) return { result: Promise.reject(options.signal.reason), post() {} };
    const member = this.#choose();
    const id = this.#nextId++;
    const send = (message: ToWorker, transfer?: Transferable[]) => member.worker.postMessage(message, transfer);
    const result = new Promise<Result>((resolve, reject) => {
      const onAbort = options.signal && (() => send({ kind: 'cancel', id }));
      if (onAbort) options.signal?.addEventListener('abort', onAbort, { once: true });
      const { onProgress, signal } = options;
      member.jobs.set(id, {
        resolve: resolve as (value: unknown) => void,
        reject,
        onProgress,
        signal,
        onAbort,
        ended: awaitedWork(),
      });
    });
    try {
      send({ kind: 'start', id, job, params }, options.transfer);
    } catch (error) {
      this.#settle(member, id, (pending) => pending.reject(error));
    }
    return {
      result,
      post: (message) => {
        if (member.jobs.has(id)) send({ kind: 'message', id, message });
      },
    };
  }

  /** Ends all workers; jobs under way fail. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#members].map((member) => this.#end(member)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The idlest worker; a new one while all are busy and there is room. */
  #choose(): Member {
    let best: Member | undefined;
    for (const member of this.#members) if (!best || member.jobs.size < best.jobs.size) best = member;
    if (!best || (best.jobs.size > 0 && this.#members.size < this.#size)) best = this.#spawn();
    clearTimeout(best.idle);
    best.idle = undefined;
    best.worker.ref();
    return best;
  }

  #spawn(): Member {
    const worker = new Worker(this.#url, { name: 'gantry-archive', resourceLimits: { maxOldGenerationSizeMb: 512 } });
    const { promise, resolve } = Promise.withResolvers<void>();
    const member: Member = { worker, jobs: new Map(), idle: undefined, ended: promise };
    this.#members.add(member);
    let cause: unknown;
    worker.on('message', (message: FromWorker) => this.#receive(member, message));
    worker.on('error', (error) => {
      cause = error;
    });
    worker.on('exit', (code) => {
      this.#members.delete(member);
      clearTimeout(member.idle);
      const reason = cause instanceof Error ? cause.message : `exit code ${code}`;
      for (const id of [...member.jobs.keys()]) {
        this.#settle(member, id, (pending) => pending.reject(new Error(`archive worker died: ${reason}`, { cause })));
      }
      resolve();
    });
    return member;
  }

  #receive(member: Member, message: FromWorker): void {
    if (message.kind === 'progress') {
      member.jobs.get(message.id)?.onProgress?.(message.progress);
      return;
    }
    this.#settle(member, message.id, (pending) => {
      if (message.kind === 'result') pending.resolve(message.result);
      else pending.reject(pending.signal?.aborted ? pending.signal.reason : fromFailure(message.error));
    });
    if (member.jobs.size > 0) return;
    // An idle worker must not keep the process alive, nor itself for long.
    member.worker.unref();
    member.idle = setTimeout(() => void this.#end(member), this.#idleAfter);
    member.idle.unref();
  }

  #settle(member: Member, id: number, how: (pending: Pending) => void): void {
    const pending = member.jobs.get(id);
    if (!pending) return;
    member.jobs.delete(id);
    pending.ended();
    if (pending.onAbort) pending.signal?.removeEventListener('abort', pending.onAbort);
    how(pending);
  }

  async #end(member: Member): Promise<void> {
    this.#members.delete(member);
    await member.worker.terminate();
    await member.ended;
  }
}

let shared: WorkerPool | undefined;

/** The process's own pool, made on first use. */
export function archivePool(): WorkerPool {
  shared ??= new WorkerPool();
  return shared;
}
