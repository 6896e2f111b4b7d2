// Large buffers that are used again. Memory outside V8's heap counts towards its garbage collection: with a new megabyte for
// each message of a transfer, collecting takes more time than the transfer.

const idleMs = 10_000;

/** Lends buffers of one size. One that is never given back is simply collected; those that lie idle are let go. */
export class BufferPool {
  /** Bytes of each buffer. */
  readonly size: number;
  readonly #keep: number;
  readonly #own = new WeakSet<ArrayBufferLike>();
  #free: Buffer[] = [];
  #idle: NodeJS.Timeout | undefined;

  /** @param keep the largest number of free buffers that are kept */
  constructor(size: number, keep: number) {
    this.size = size;
    this.#keep = keep;
  }

  take(): Buffer {
    const free = this.#free.pop();
    if (free) return free;
    const buffer = Buffer.allocUnsafeSlow(this.size);
    this.#own.add(buffer.buffer);
    return buffer;
  }

  /** Takes back a buffer, by any view of it; other memory is none of its business. Nobody may use it from then on. */
  give(bytes: Uint8Array): void {
    if (!this.#own.has(bytes.buffer) || this.#free.length >= this.#keep) return;
    this.#free.push(Buffer.from(bytes.buffer));
    if (this.#idle) this.#idle.refresh();
    else
      this.#idle = setTimeout(() => {
        this.#idle = undefined;
        this.#free = [];
      }, idleMs).unref();
  }
}
