import { availableParallelism } from 'node:os';
import { internal } from '@gantry/api';
import { JobWorker } from '../../core/workers/job-worker.ts';
import { workerUrl } from '../../core/workers/worker-url.ts';

/** Bytes that one message to a hash worker can carry. */
export const hashBlockSize = 1024 * 1024;

/** The hash workers of one content store, and the shared memory that carries bytes to them. */
export class HashPool {
  readonly #workers: JobWorker[] = [];
  readonly #blocks: SharedArrayBuffer[] = [];
  #lastStream = 0;

  constructor(threads = Math.min(4, availableParallelism())) {
    const url = workerUrl(import.meta.url, 'hash-worker');
    for (let i = 0; i < threads; i++) this.#workers.push(new JobWorker(url, `content-hash-${i}`));
  }

  nextStream(): number {
    return ++this.#lastStream;
  }

  /** The worker with the least to do, in turns among equals. A stream stays with its worker. */
  pick(): JobWorker {
    const first = this.#workers.shift();
    if (!first) throw internal('no hash worker');
    this.#workers.push(first);
    return this.#workers.reduce((best, worker) => (worker.load < best.load ? worker : best));
  }

  takeBlock(): SharedArrayBuffer {
    return this.#blocks.pop() ?? new SharedArrayBuffer(hashBlockSize);
  }

  giveBlock(block: SharedArrayBuffer): void {
    if (this.#blocks.length < 8) this.#blocks.push(block);
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.close()));
  }
}
