import { createHash, type Hash } from 'node:crypto';
import type { JobWorker } from '../../core/workers/job-worker.ts';
import { type HashPool, hashBlockSize } from './hash-pool.ts';
import type { FileJob, UpdateJob } from './hash-worker.ts';

/** Up to here a worker's round trip costs more than hashing where we are (16 µs of hashing for this much). */
const inlineLimit = 64 * 1024;

type Mode =
  | { kind: 'inline'; hash: Hash }
  | { kind: 'worker'; worker: JobWorker; generation: number; hex: string }
  /** The digest up to the offset is known (or not), but no hash is running that could go on from it. */
  | { kind: 'file'; hex: string | undefined };

/**
 * The running digest of one ingest. Small ingests are hashed in place; when one outgrows that, its bytes go to a worker
 * while they are written to the file.
 */
export class IngestDigest {
  readonly algorithm: string;
  readonly #pool: HashPool;
  readonly #path: string;
  readonly #stream: number;
  #mode: Mode;
  #offset = 0;

  constructor(pool: HashPool, path: string, algorithm: string) {
    this.#pool = pool;
    this.#path = path;
    this.algorithm = algorithm;
    this.#stream = pool.nextStream();
    this.#mode = { kind: 'inline', hash: createHash(algorithm) };
  }

  /** Goes on from a file that has `offset` bytes already; `hex` is their digest, if somebody knows it. */
  restart(offset: number, hex?: string): void {
    this.#release();
    this.#offset = offset;
    this.#mode = offset === 0 ? { kind: 'inline', hash: createHash(this.algorithm) } : { kind: 'file', hex };
  }

  /** Adds bytes that are (or are being) appended to the file. They are read before the promise settles, not after. */
  async update(chunk: Uint8Array): Promise<void> {
    if (this.#mode.kind === 'inline' && this.#offset + chunk.length <= inlineLimit) {
      this.#mode.hash.update(chunk);
      this.#offset += chunk.length;
      return;
    }
    if (this.#mode.kind !== 'worker' || this.#mode.generation !== this.#mode.worker.generation) await this.#toWorker();
    const mode = this.#mode;
    if (mode.kind !== 'worker') return;
    for (let start = 0; start < chunk.length; start += hashBlockSize) {
      const part = chunk.subarray(start, start + hashBlockSize);
      const data = this.#pool.takeBlock();
      new Uint8Array(data).set(part);
      try {
        mode.hex = await mode.worker.run<string>('update', {
          stream: this.#stream,
          data,
          length: part.length,
        } satisfies UpdateJob);
      } finally {
        this.#pool.giveBlock(data);
      }
      this.#offset += part.length;
    }
  }

  /** `algorithm:hex` of all bytes so far. */
  async digest(): Promise<string> {
    const mode = this.#mode;
    if (mode.kind === 'inline') return `${this.algorithm}:${mode.hash.copy().digest('hex')}`;
    if (mode.kind === 'worker') return `${this.algorithm}:${mode.hex}`;
    if (mode.hex !== undefined) return `${this.algorithm}:${mode.hex}`;
    await this.#toWorker();
    return this.digest();
  }

  /** The digest by another algorithm, from the file. */
  async digestBy(algorithm: string): Promise<string> {
    if (algorithm === this.algorithm) return this.digest();
    const stream = this.#pool.nextStream();
    const worker = this.#pool.pick();
    const job: FileJob = { stream, algorithm, path: this.#path, size: this.#offset };
    const hex = await worker.run<string>('file', job);
    await worker.run('end', { stream });
    return `${algorithm}:${hex}`;
  }

  close(): void {
    this.#release();
    this.#mode = { kind: 'file', hex: undefined };
  }

  /** Lets a worker hash what the file has up to the offset, and go on from there. */
  async #toWorker(): Promise<void> {
    const worker = this.#pool.pick();
    const job: FileJob = { stream: this.#stream, algorithm: this.algorithm, path: this.#path, size: this.#offset };
    const hex = await worker.run<string>('file', job);
    this.#mode = { kind: 'worker', worker, generation: worker.generation, hex };
  }

  #release(): void {
    const mode = this.#mode;
    if (mode.kind !== 'worker' || mode.generation !== mode.worker.generation) return;
    // Nobody waits for this; if the worker ended meanwhile, the hash ended with it.
    mode.worker.run('end', { stream: this.#stream }).catch(() => {});
  }
}
