import type { ContentWriter } from '../../core/content/content-store.ts';

/** Bytes gathered before a write: each costs two ways to the thread pool, however small it is. */
const batchSize = 1 << 20;

/** Writes small chunks as large ones. Two buffers in turn: one is filled while the other is written. */
export class BatchedWrites {
  readonly #writer: Pick<ContentWriter, 'write'>;
  readonly #size: number;
  readonly #written: (bytes: number) => void;
  #buffers: [Buffer, Buffer] | undefined;
  #fill = 0;
  #writing: Promise<void> = Promise.resolve();

  /** `expected`: so many bytes will come, as far as is known. `written` is told of each batch that is in the writer. */
  constructor(writer: Pick<ContentWriter, 'write'>, expected: number, written: (bytes: number) => void = () => {}) {
    this.#writer = writer;
    this.#size = Math.min(batchSize, Math.max(1, expected));
    this.#written = written;
  }

  /** The chunk is copied before this settles. @throws what an earlier write failed with */
  async add(chunk: Uint8Array): Promise<void> {
    this.#buffers ??= [Buffer.allocUnsafeSlow(this.#size), Buffer.allocUnsafeSlow(this.#size)];
    for (let at = 0; at < chunk.length; ) {
      const count = Math.min(chunk.length - at, this.#size - this.#fill);
      this.#buffers[0].set(chunk.subarray(at, at + count), this.#fill);
      this.#fill += count;
      at += count;
      if (this.#fill === this.#size) await this.#start();
    }
  }

  /** Settles when all is written; to be called in the end, whatever happened, so that no write is under way any more. */
  async finish(): Promise<void> {
    await this.#start();
    await this.#writing;
  }

  async #start(): Promise<void> {
    if (!this.#buffers || this.#fill === 0) return;
    await this.#writing;
    const [full, other] = this.#buffers;
    const bytes = full.subarray(0, this.#fill);
    this.#buffers = [other, full];
    this.#fill = 0;
    this.#writing = this.#writer.write(bytes).then(() => this.#written(bytes.length));
    // It is awaited before the next write; until then its failure must not count as unhandled.
    this.#writing.catch(() => undefined);
  }
}
