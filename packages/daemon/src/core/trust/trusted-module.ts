import type { Readable } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { canceled, deadlineExceeded, unknown } from '@gantry/api';
import type { Logger } from '../log/logger.ts';
import { workerUrl } from '../workers/worker-url.ts';
import type { ModuleCall, ModuleReply, ModuleWorkerData } from './module-worker.ts';

export interface TrustedModuleOptions {
  /** An absolute path. Who may own and write it: see trusted-file.ts. */
  file: string;
  /** As errors, threads and log lines name it. */
  name: string;
  /** Gets what the module prints, line by line, at debug level; left out: it is dropped. */
  log?: Logger | undefined;
}

/** Calls at the same time; each has a thread to itself. */
const maxThreads = 4;
const idleMs = 5000;
const heapMegabytes = 128;

/**
 * An ES module of the administrator's, run in threads of its own: one call at a time each, so that a call that never ends
 * can be ended without harm to others. A thread that was idle for a while is let go.
 */
export class TrustedModule {
  readonly #options: TrustedModuleOptions;
  readonly #idle: { worker: Worker; timer: NodeJS.Timeout }[] = [];
  #threads = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(options: TrustedModuleOptions) {
    this.#options = options;
  }

  /**
   * Calls an exported function (of the module, or of its default export) with one structured-cloneable argument.
   * @throws DeadlineExceeded after `timeoutMs`, Canceled with the signal, Unknown with what the module threw
   */
  async call(
    method: string,
    argument: unknown,
    options: { timeoutMs: number; signal?: AbortSignal | undefined },
  ): Promise<unknown> {
    const { timeoutMs, signal } = options;
    const controller = new AbortController();
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      controller.abort();
    }, timeoutMs);
    const leave = (): void => controller.abort();
    signal?.addEventListener('abort', leave, { once: true });
    const failure = (): Error =>
      late
        ? deadlineExceeded(`module ${this.#options.name} gave no answer in ${timeoutMs} ms`)
        : canceled('context canceled', signal?.reason);
    try {
      if (signal?.aborted) throw failure();
      return await this.#call({ method, argument }, controller.signal, failure);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', leave);
    }
  }

  async #call(call: ModuleCall, ended: AbortSignal, failure: () => Error): Promise<unknown> {
    await this.#turn(ended, failure);
    const worker = this.#take();
    let healthy = false;
    try {
      const reply = await this.#ask(worker, call, ended, failure);
      healthy = true;
      if ('error' in reply) throw unknown(`module ${this.#options.name}: ${reply.error}`);
      return reply.value;
    } finally {
      if (healthy) this.#keep(worker);
      else void worker.terminate();
      this.#threads--;
      this.#waiting.shift()?.();
    }
  }

  async close(): Promise<void> {
    const idle = this.#idle.splice(0);
    for (const { timer } of idle) clearTimeout(timer);
    await Promise.all(idle.map(({ worker }) => worker.terminate()));
  }

  /** Waits until fewer than all threads are busy, and counts one more. */
  async #turn(ended: AbortSignal, failure: () => Error): Promise<void> {
    while (this.#threads >= maxThreads) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const leave = (): void => {
        const at = this.#waiting.indexOf(resolve);
        // A turn that came in the same moment goes to the next.
        if (at >= 0) this.#waiting.splice(at, 1);
        else this.#waiting.shift()?.();
        reject(failure());
      };
      this.#waiting.push(resolve);
      ended.addEventListener('abort', leave, { once: true });
      await promise.finally(() => ended.removeEventListener('abort', leave));
    }
    this.#threads++;
  }

  #ask(worker: Worker, call: ModuleCall, ended: AbortSignal, failure: () => Error): Promise<ModuleReply> {
    const { promise, resolve, reject } = Promise.withResolvers<ModuleReply>();
    const { name } = this.#options;
    const late = (): void => reject(failure());
    const failed = (error: unknown): void => reject(unknown(`module ${name}: ${(error as Error).message}`, error));
    const exited = (code: number): void => reject(unknown(`module ${name} ended its thread with code ${code}`));
    ended.addEventListener('abort', late, { once: true });
    worker.on('message', resolve).on('error', failed).on('exit', exited);
    worker.postMessage(call);
    return promise.finally(() => {
      ended.removeEventListener('abort', late);
      worker.off('message', resolve).off('exit', exited);
      // What a thread that is being ended still says is nobody's.
      worker.off('error', failed).on('error', () => undefined);
    });
  }

  #take(): Worker {
    const kept = this.#idle.pop();
    if (kept) {
      clearTimeout(kept.timer);
      kept.worker.ref();
      return kept.worker;
    }
    const { file, name, log } = this.#options;
    const worker = new Worker(workerUrl(import.meta.url, 'module-worker'), {
      name,
      execArgv: [],
      workerData: { file } satisfies ModuleWorkerData,
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: heapMegabytes },
    });
    for (const stream of ['stdout', 'stderr'] as const) forward(worker[stream], log?.with({ module: name, stream }));
    return worker;
  }

  #keep(worker: Worker): void {
    worker.unref();
    worker.removeAllListeners('error').removeAllListeners('exit');
    const drop = (): void => {
      const at = this.#idle.findIndex((kept) => kept.worker === worker);
      if (at >= 0) clearTimeout(this.#idle.splice(at, 1)[0]!.timer);
      void worker.terminate();
    };
    worker.once('error', drop).once('exit', drop);
    this.#idle.push({ worker, timer: setTimeout(drop, idleMs).unref() });
  }
}

const maxLine = 4096;

function forward(stream: Readable, log: Logger | undefined): void {
  let rest = '';
  stream.setEncoding('utf8').on('data', (text: string) => {
    if (!log) return;
    const lines = (rest + text).split('\n');
    rest = lines.pop()!.slice(0, maxLine);
    for (const line of lines) log.debug(line.slice(0, maxLine));
  });
}
