/** gzip by ISA-L: where that is installed, the fastest. While a piece is used, the thread pool inflates the next. */
import { hasIsal, type Inflated, IsalError, IsalInflater } from '@gantry/sys/isal.ts';
import { CompressionError, type Decompressor, PIECE } from './decompressor.ts';
import { GzipHeader, GzipTrailer } from './gzip-frame.ts';

export const isalGzip: Decompressor = {
  name: 'isal',
  compression: 'gzip',
  async *decompress(source) {
    const chunks = source[Symbol.asyncIterator]();
    try {
      yield* new Members(chunks).pieces();
    } finally {
      // Not waited for: it may be in the middle of a download that stands still.
      chunks.return?.().catch(() => {});
    }
  },
};

/** Unpacked bytes of a member that are inflated at once, on this thread. */
const SMALL = 64 << 10;

export const isalAvailable = hasIsal;

class Members {
  readonly #source: AsyncIterator<Buffer>;
  readonly #inflater = new IsalInflater();
  /** What of the source is not used yet. */
  #input: Buffer = Buffer.alloc(0);
  /** The library at work on the pool. */
  #native: Promise<unknown> | undefined;
  #stopped = false;

  constructor(source: AsyncIterator<Buffer>) {
    this.#source = source;
  }

  async *pieces(): AsyncGenerator<Buffer> {
    const buffers = [Buffer.allocUnsafeSlow(PIECE), Buffer.allocUnsafeSlow(PIECE)] as const;
    let turn = 0;
    for (;;) {
      if (!(await this.#header())) return;
      const inflater = this.#inflater;
      inflater.reset();
      inflater.input(this.#input);
      let sum = 0;
      let size = 0;
      let ended = false;
      let next = this.#fill(buffers[turn]!, true);
      try {
        for (;;) {
          const { produced, done } = await next;
          const piece = buffers[turn]!.subarray(0, produced);
          turn ^= 1;
          if (!done) next = this.#fill(buffers[turn]!);
          // What fails in the next piece is told when it is asked for.
          next.catch(() => {});
          sum = inflater.crc32(piece, sum);
          size += produced;
          if (produced > 0) yield piece;
          if (done) break;
        }
        ended = true;
      } finally {
        // A reader that stopped early does not wait for the source, but the library may still write into our memory.
        this.#stopped = !ended;
        await this.#native?.catch(() => {});
      }
      const { taken, left } = inflater.rest();
      const trailer = new GzipTrailer();
      trailer.take(taken);
      this.#input = left;
      while (!trailer.done) {
        if (this.#input.length === 0 && !(await this.#more())) throw new CompressionError('gzip', 'truncated');
        this.#input = this.#input.subarray(trailer.take(this.#input));
      }
      trailer.check(sum, size);
    }
  }

  /** Reads a header; false at the end of the source. */
  async #header(): Promise<boolean> {
    const header = new GzipHeader();
    while (!header.done) {
      if (this.#input.length === 0 && !(await this.#more())) {
        if (header.begun) throw new CompressionError('gzip', 'truncated');
        return false;
      }
      this.#input = this.#input.subarray(header.take(this.#input));
    }
    return true;
  }

  async #more(): Promise<boolean> {
    const { value, done } = await this.#source.next();
    if (done) return false;
    this.#input = value;
    return true;
  }

  /** Inflates until the buffer is full or the member ends. */
  async #fill(buffer: Buffer, start = false): Promise<Inflated> {
    let produced = 0;
    for (;;) {
      const step = await this.#inflate(buffer.subarray(produced), start && produced === 0);
      produced += step.produced;
      if (step.done || produced === buffer.length) return { produced, done: step.done };
      if (!this.#inflater.hungry) continue;
      do {
        if (!(await this.#more())) throw new CompressionError('gzip', 'truncated');
      } while (this.#input.length === 0);
      if (this.#stopped) throw new Error('nobody reads on');
      this.#inflater.input(this.#input);
    }
  }

  async #inflate(output: Buffer, start: boolean): Promise<Inflated> {
    try {
      // Members of a few kilobytes, thousands of them in an eStargz layer, are not worth the way to the pool.
      if (start) return this.#inflater.inflate(output.subarray(0, SMALL));
      const working = this.#inflater.inflateAsync(output);
      this.#native = working;
      return await working;
    } catch (error) {
      throw error instanceof IsalError ? new CompressionError('gzip', 'corrupt', error) : error;
    }
  }
}
