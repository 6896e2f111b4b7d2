/** What is around the deflate stream of a gzip member (RFC 1952), read byte by byte as it comes. */
import { crc32 } from 'node:zlib';
import { CompressionError } from './decompressor.ts';

/** A header without end is no header. */
const LONGEST = 256 << 10;

const FHCRC = 2;
const FEXTRA = 4;
const FNAME = 8;
const FCOMMENT = 16;

/** Takes the header of one member. `take` answers how many bytes were part of it; `done` tells that it is whole. */
export class GzipHeader {
  readonly #bytes: number[] = [];
  readonly #steps = this.#parse();
  done = false;
  /** Whether a byte of it was seen. */
  get begun(): boolean {
    return this.#bytes.length > 0;
  }

  constructor() {
    this.#steps.next();
  }

  /** @throws CompressionError */
  take(input: Buffer): number {
    let at = 0;
    while (!this.done && at < input.length) {
      if (this.#bytes.length > LONGEST) throw new CompressionError('gzip', 'header');
      const byte = input[at++]!;
      this.#bytes.push(byte);
      this.done = this.#steps.next(byte).done === true;
    }
    return at;
  }

  *#parse(): Generator<undefined, void, number> {
    for (const expected of [0x1f, 0x8b, 8]) if ((yield) !== expected) throw new CompressionError('gzip', 'header');
    const flags = yield;
    // Time, extra flags, operating system.
    for (let i = 0; i < 6; i++) yield;
    if (flags & FEXTRA) {
      const length = (yield) | ((yield) << 8);
      for (let i = 0; i < length; i++) yield;
    }
    if (flags & FNAME) while ((yield) !== 0);
    if (flags & FCOMMENT) while ((yield) !== 0);
    if (flags & FHCRC) {
      const sum = crc32(Buffer.from(this.#bytes)) & 0xffff;
      if (((yield) | ((yield) << 8)) !== sum) throw new CompressionError('gzip', 'header');
    }
  }
}

/** Takes the eight bytes after a member's data. */
export class GzipTrailer {
  readonly #bytes = Buffer.alloc(8);
  #have = 0;

  get done(): boolean {
    return this.#have === this.#bytes.length;
  }

  take(input: Buffer): number {
    const taken = input.copy(this.#bytes, this.#have);
    this.#have += taken;
    return taken;
  }

  /** @throws CompressionError if the data is not what was packed */
  check(sum: number, size: number): void {
    if (this.#bytes.readUInt32LE(0) !== sum || this.#bytes.readUInt32LE(4) !== size % 2 ** 32) {
      throw new CompressionError('gzip', 'checksum');
    }
  }
}
