import { rmSync } from 'node:fs';
import { Worker } from 'node:worker_threads';

export interface ThreadWatchOptions {
  /** Where the watching thread answers: a unix socket of this user's alone. */
  readonly socket: string;
  /** After how many milliseconds without an answer the main thread's stack is logged; 0: never. */
  readonly blockedAfterMs: number;
  /** The shape of the line that is written to standard error then. */
  readonly logFormat: 'text' | 'json';
}

/** What the threads say to each other. */
export type WatchMessage = 'ready' | 'ping' | 'pong' | { readonly failed: string };

/** The end of the name of a watching thread's socket: the rest is that of the process's debug socket. */
export const watchSuffix = '.watch';

/**
 * Starts a thread that can tell where the main thread is when that does not come back from what it does, so answers nobody. It costs a few
 * megabytes of memory, and nothing else while the main thread is at rest.
 * @returns how it is ended, once it serves
 * @throws Error if it cannot listen there
 */
export function watchMainThread(options: ThreadWatchOptions): Promise<() => Promise<void>> {
  const file = import.meta.url.endsWith('.ts') ? './watch-worker.ts' : './watch-worker.js';
  const worker = new Worker(new URL(file, import.meta.url), {
    name: 'gantry-watch',
    execArgv: [],
    workerData: options,
    resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 },
  });
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.on('message', (message: WatchMessage) => {
      if (message === 'ping') worker.postMessage('pong' satisfies WatchMessage);
      else if (message === 'ready') {
        worker.unref();
        resolve(async () => {
          await worker.terminate();
          rmSync(options.socket, { force: true });
        });
      } else if (typeof message === 'object') {
        reject(new Error(message.failed));
        void worker.terminate();
      }
    });
  });
}
