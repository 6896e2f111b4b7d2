import { BlobReader, type BlobSource } from './fetch-blob.ts';
import { type BlobRequest, openBlob } from './open-blob.ts';

/** A large blob by several requests at once, each for a range of it. */
export interface RangeOptions {
  /** Bytes of each request. */
  size: number;
  /** Requests under way, or read and not yet taken, at once: `size` × `concurrency` bytes are held at most. */
  concurrency: number;
}

/** Thrown for part of a blob by a registry that ignores Range: it can only be had from the start. */
export class RangeIgnoredError extends Error {
  constructor() {
    super('the registry ignores the Range header');
    this.name = 'RangeIgnoredError';
  }
}

/** One range only. @throws RangeIgnoredError if that would mean to read, and throw away, everything before it. */
export class RangeReader implements BlobSource {
  readonly #request: BlobRequest;
  #reader: BlobReader | undefined;

  constructor(request: BlobRequest) {
    this.#request = request;
  }

  get origin(): string {
    return this.#reader?.origin ?? '';
  }

  distrust(): boolean {
    return this.#reader?.distrust() ?? false;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    const opened = await openBlob(this.#request, this.#request.start);
    if (opened.skip > 0) {
      opened.response.body.destroy();
      throw new RangeIgnoredError();
    }
    this.#reader = new BlobReader(this.#request, opened);
    yield* this.#reader;
  }
}

/** In order, from ranges that are read ahead. A registry that ignores Range is read in one piece. */
export class ParallelReader implements BlobSource {
  readonly #request: BlobRequest;
  readonly #ranges: RangeOptions;
  /** What bytes have been taken from. */
  readonly #taken: BlobSource[] = [];

  constructor(request: BlobRequest, ranges: RangeOptions) {
    this.#request = request;
    this.#ranges = ranges;
  }

  get origin(): string {
    return this.#taken.at(-1)?.origin ?? '';
  }

  /** Any of the ranges may be the wrong one. */
  distrust(): boolean {
    return this.#taken.map((source) => source.distrust()).at(-1) ?? false;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    const { start, end, signal } = this.#request;
    const { size, concurrency } = this.#ranges;
    const stop = new AbortController();
    const stopped = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    const part = (from: number): BlobRequest => ({
      ...this.#request,
      start: from,
      end: Math.min(from + size, end),
      signal: stopped,
    });
    const first = part(start);
    // Whether it knows ranges shows with the first answer; then that is read on, whole.
    const opened = await openBlob(first, start);
    if (opened.response.status !== 206) {
      yield* this.#take(new BlobReader(this.#request, opened));
      return;
    }
    const ahead: ReadAhead[] = [];
    let next = first.end;
    const fill = (taken: number): void => {
      for (; next < end && ahead.length + taken < concurrency; next += size) ahead.push(new ReadAhead(part(next)));
    };
    try {
      fill(1);
      yield* this.#take(new BlobReader(first, opened));
      for (;;) {
        fill(0);
        const range = ahead.shift();
        if (!range) return;
        yield* this.#take(range);
      }
    } finally {
      stop.abort();
      opened.response.body.destroy();
    }
  }

  #take(source: BlobSource): BlobSource {
    this.#taken.push(source);
    return source;
  }
}

/** Reads a range at once, and hands it on when it is asked for. */
class ReadAhead implements BlobSource {
  readonly #reader: BlobReader;
  readonly #pieces: Uint8Array[] = [];
  #done = false;
  #failure: unknown;
  #wake: () => void = () => undefined;

  constructor(request: BlobRequest) {
    this.#reader = new BlobReader(request);
    void this.#read();
  }

  get origin(): string {
    return this.#reader.origin;
  }

  distrust(): boolean {
    return this.#reader.distrust();
  }

  async #read(): Promise<void> {
    try {
      for await (const piece of this.#reader) {
        this.#pieces.push(piece);
        this.#wake();
      }
    } catch (error) {
      this.#failure = error;
    } finally {
      this.#done = true;
      this.#wake();
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const pieces = this.#pieces.splice(0);
      yield* pieces;
      if (this.#pieces.length > 0) continue;
      if (this.#done) break;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure !== undefined) throw this.#failure;
  }
}
