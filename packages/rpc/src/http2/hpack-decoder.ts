import { ConnectionFailure, ErrorCode } from './frame.ts';
import { decodeHuffman } from './huffman.ts';
import { staticTable } from './static-table.ts';

export type Header = readonly [name: string, value: string];

/** Bytes of the table of headers that were sent before, as every entry is counted: its text and 32 more. */
const tableLimit = 4096;
const entryOverhead = 32;
/** Bytes that the headers of one message may have, counted in the same way. Indices make few bytes many. */
const listLimit = 256 << 10;

/** Takes header blocks apart (RFC 7541). One for each connection, which sees all its blocks in order. */
export class HpackDecoder {
  /** The newest last. */
  #table: Header[] = [];
  #size = 0;
  #limit = tableLimit;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  /** @throws ConnectionFailure: whoever has lost count of the table cannot read anything after it */
  decode(block: Buffer): Header[] {
    this.#block = block;
    this.#at = 0;
    const headers: Header[] = [];
    let size = 0;
    while (this.#at < block.length) {
      const first = block[this.#at]!;
      let header: Header;
      if (first & 0x80) header = this.#entry(this.#integer(7));
      else if (first & 0x40) {
        header = this.#literal(6);
        this.#add(header);
      } else if (first & 0x20) {
        // Only before the first header.
        if (headers.length > 0) throw broken('size of the table changed among headers');
        const limit = this.#integer(5);
        if (limit > tableLimit) throw broken('size of the table over the limit');
        this.#limit = limit;
        this.#evict();
        continue;
      } else header = this.#literal(4);
      size += sizeOf(header);
      if (size > listLimit) throw new ConnectionFailure(ErrorCode.enhanceYourCalm, 'too many headers');
      headers.push(header);
    }
    return headers;
  }

  #entry(index: number): Header {
    const entry =
      index <= staticTable.length
        ? staticTable[index - 1]
        : this.#table[this.#table.length - (index - staticTable.length)];
    if (!entry) throw broken('index of no header');
    return entry;
  }

  #literal(prefixBits: number): Header {
    const index = this.#integer(prefixBits);
    const name = index === 0 ? this.#text() : this.#entry(index)[0];
    return [name, this.#text()];
  }

  #add(header: Header): void {
    this.#table.push(header);
    this.#size += sizeOf(header);
    this.#evict();
  }

  #evict(): void {
    let gone = 0;
    while (this.#size > this.#limit) this.#size -= sizeOf(this.#table[gone++]!);
    if (gone > 0) this.#table = this.#table.slice(gone);
  }

  #integer(prefixBits: number): number {
    const block = this.#block;
    const mask = (1 << prefixBits) - 1;
    let value = block[this.#at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = block[this.#at++];
      if (byte === undefined) throw broken('header block ends within a number');
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw broken('number too large');
  }

  #text(): string {
    const block = this.#block;
    const coded = block[this.#at];
    if (coded === undefined) throw broken('header block ends within a header');
    const length = this.#integer(7);
    const start = this.#at;
    this.#at += length;
    if (this.#at > block.length) throw broken('header block ends within a text');
    if (coded < 0x80) return block.toString('latin1', start, this.#at);
    const text = decodeHuffman(block, start, this.#at);
    if (text === undefined) throw broken('text is not in its code');
    return text;
  }
}

function sizeOf([name, value]: Header): number {
  return name.length + value.length + entryOverhead;
}

function broken(what: string): ConnectionFailure {
  return new ConnectionFailure(ErrorCode.compression, what);
}
