/**
 * A tar reader that is pushed bytes and calls back, all synchronously: no stream, promise or copy for an entry, which is what
 * makes unpacking forty thousand small files fast. Bounded: a hostile archive cannot make it hold more than a few megabytes.
 */
import type { ByteString } from '@gantry/sys/fast-at.ts';
import { applyPax, type PaxRecords, parsePax } from './pax.ts';
import { BLOCK, fieldNumber, isZeroBlock, parseHeaderBlock, TarError, type TarHeader } from './tar-header.ts';

/** What the parser tells. Between `entry` and `entryEnd` come the data in order, `at` being the position in the file (holes skipped). */
export interface TarHandler {
  entry(header: TarHeader): void;
  data(bytes: Buffer, start: number, end: number, at: number): void;
  entryEnd(): void;
}

/** Largest PAX or GNU long-name header taken. */
const MAX_META = 1 << 20;
const MAX_SPARSE_SEGMENTS = 1 << 20;

const State = { header: 0, meta: 1, data: 2, pad: 3, sparseExtension: 4, sparseMap: 5, ended: 6 } as const;

export class TarParser {
  readonly #handler: TarHandler;
  #state: number = State.header;
  /** A block that straddles two chunks. */
  readonly #block = Buffer.alloc(BLOCK);
  #blockFill = 0;
  #zeroBlocks = 0;
  /** Bytes of data or padding still to come. */
  #left = 0;
  #pad = 0;
  #metaType = '';
  #meta: Buffer[] = [];
  #pax: PaxRecords | undefined;
  #longPath: ByteString | undefined;
  #longLink: ByteString | undefined;
  #header: TarHeader | undefined;
  #mapText = '';
  #segment = 0;
  #segmentUsed = 0;

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  /** Whether the end-of-archive marker has been seen; what follows it is ignored. */
  get ended(): boolean {
    return this.#state === State.ended;
  }

  /** Takes the next bytes. They are only used during the call. @throws TarError, and whatever the handler throws. */
  write(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#state) {
        case State.ended:
          return;
        case State.pad: {
          const n = Math.min(this.#left, chunk.length - at);
          this.#left -= n;
          at += n;
          if (this.#left === 0) this.#state = State.header;
          break;
        }
        case State.data:
          at = this.#takeData(chunk, at);
          break;
        case State.meta: {
          const n = Math.min(this.#left, chunk.length - at);
          this.#meta.push(Buffer.from(chunk.subarray(at, at + n)));
          this.#left -= n;
          at += n;
          if (this.#left === 0) this.#finishMeta();
          break;
        }
        default: {
          let block: Buffer;
          if (this.#blockFill === 0 && chunk.length - at >= BLOCK) {
            block = chunk.subarray(at, at + BLOCK);
            at += BLOCK;
          } else {
            const n = Math.min(BLOCK - this.#blockFill, chunk.length - at);
            chunk.copy(this.#block, this.#blockFill, at, at + n);
            this.#blockFill += n;
            at += n;
            if (this.#blockFill < BLOCK) return;
            this.#blockFill = 0;
            block = this.#block;
          }
          if (this.#state === State.header) this.#takeHeader(block);
          else if (this.#state === State.sparseExtension) this.#takeSparseExtension(block);
          else this.#takeSparseMap(block);
        }
      }
    }
  }

  /** No more bytes come. @throws TarError if the archive stops in the middle of something. */
  end(): void {
    if (this.#state === State.ended) return;
    const dangling = this.#pax !== undefined || this.#longPath !== undefined || this.#longLink !== undefined;
    // Missing padding after the last file's data is tolerated by no reader worth following.
    if (this.#state !== State.header || this.#blockFill > 0 || dangling) {
      throw new TarError('unexpected EOF: the archive is truncated');
    }
  }

  #takeHeader(block: Buffer): void {
    if (isZeroBlock(block)) {
      if (++this.#zeroBlocks === 2) this.#state = State.ended;
      return;
    }
    if (this.#zeroBlocks === 1) throw new TarError('invalid tar header: data after a zero block');
    const header = parseHeaderBlock(block);
    switch (header.type) {
      case 'x':
      case 'X':
      case 'g':
      case 'L':
      case 'K':
        if (header.size > MAX_META) throw new TarError('invalid tar header: extension too large');
        this.#metaType = header.type;
        this.#meta = [];
        this.#left = header.size;
        this.#pad = padding(header.size);
        this.#state = State.meta;
        if (header.size === 0) this.#finishMeta();
        return;
    }
    if (this.#longPath !== undefined) header.path = this.#longPath;
    if (this.#longLink !== undefined) header.linkPath = this.#longLink;
    const sparse = this.#pax && applyPax(header, this.#pax);
    // Before POSIX there was no type, and a directory was a file whose name ends in a slash.
    if (block[156] === 0 && header.path.endsWith('/')) header.type = '5';
    this.#longPath = undefined;
    this.#longLink = undefined;
    this.#pax = undefined;
    this.#header = header;
    if (header.type === 'S') {
      header.type = '0';
      header.sparse = [];
      const extended = this.#addSparseFields(block, 386, 4, 482);
      header.size = fieldNumber(block, 483, 12);
      if (extended) this.#state = State.sparseExtension;
      else this.#begin();
      return;
    }
    if (sparse && header.type === '0') this.#beginPaxSparse(header, sparse);
    else this.#begin();
  }

  #finishMeta(): void {
    const data = Buffer.concat(this.#meta);
    this.#meta = [];
    switch (this.#metaType) {
      case 'L':
        this.#longPath = untilNul(data);
        break;
      case 'K':
        this.#longLink = untilNul(data);
        break;
      case 'x':
      case 'X':
        this.#pax = parsePax(data);
        break;
      default:
        // Global headers are checked and then ignored, as containerd ignores them: the same layer must unpack to the same files.
        parsePax(data);
    }
    this.#skip(this.#pad);
  }

  #skip(bytes: number): void {
    this.#left = bytes;
    this.#state = bytes > 0 ? State.pad : State.header;
  }

  #begin(): void {
    const header = this.#header!;
    this.#left = header.dataSize;
    this.#pad = padding(header.dataSize);
    this.#segment = 0;
    this.#segmentUsed = 0;
    if (header.sparse) checkSparse(header);
    this.#handler.entry(header);
    if (this.#left > 0) this.#state = State.data;
    else this.#finishEntry();
  }

  #finishEntry(): void {
    this.#handler.entryEnd();
    this.#header = undefined;
    this.#skip(this.#pad);
  }

  #takeData(chunk: Buffer, at: number): number {
    const header = this.#header!;
    const end = at + Math.min(this.#left, chunk.length - at);
    if (!header.sparse) {
      this.#handler.data(chunk, at, end, header.dataSize - this.#left);
    } else {
      let from = at;
      while (from < end) {
        const segment = header.sparse[this.#segment]!;
        const n = Math.min(segment.length - this.#segmentUsed, end - from);
        if (n > 0) this.#handler.data(chunk, from, from + n, segment.offset + this.#segmentUsed);
        from += n;
        this.#segmentUsed += n;
        if (this.#segmentUsed === segment.length) {
          this.#segment++;
          this.#segmentUsed = 0;
        }
      }
    }
    this.#left -= end - at;
    if (this.#left === 0) this.#finishEntry();
    return end;
  }

  #addSparseFields(block: Buffer, start: number, count: number, extendedAt: number): boolean {
    const list = this.#header!.sparse!;
    for (let i = 0; i < count; i++) {
      const field = start + i * 24;
      if (block[field] === 0) break;
      list.push({ offset: fieldNumber(block, field, 12), length: fieldNumber(block, field + 12, 12) });
    }
    if (list.length > MAX_SPARSE_SEGMENTS) throw new TarError('invalid tar header: too many sparse segments');
    return block[extendedAt] !== 0;
  }

  #takeSparseExtension(block: Buffer): void {
    if (!this.#addSparseFields(block, 0, 21, 504)) this.#begin();
  }

  #beginPaxSparse(header: TarHeader, sparse: Map<string, string>): void {
    const name = sparse.get('name');
    if (name) header.path = name;
    const size = sparse.get('realsize') ?? sparse.get('size');
    if (size !== undefined) header.size = decimal(size);
    if (sparse.get('major') === '1') {
      this.#mapText = '';
      this.#state = State.sparseMap;
      return;
    }
    const numbers = (sparse.get('map') ?? '').split(',').filter((part) => part !== '');
    header.sparse = pairs(numbers.map(decimal));
    this.#begin();
  }

  /** Sparse format 1.0: the map is text at the start of the data: a count, then offset and length of each, a line each. */
  #takeSparseMap(block: Buffer): void {
    const header = this.#header!;
    this.#mapText += block.toString('latin1');
    header.dataSize -= BLOCK;
    if (header.dataSize < 0) throw new TarError('invalid tar header: sparse map');
    if (this.#mapText.length > 64 * MAX_META) throw new TarError('invalid tar header: sparse map too large');
    const firstLine = this.#mapText.indexOf('\n');
    if (firstLine < 0) return;
    const count = decimal(this.#mapText.slice(0, firstLine));
    if (count > MAX_SPARSE_SEGMENTS) throw new TarError('invalid tar header: too many sparse segments');
    // Each number takes at least two bytes, so that the text is split only when it can be whole.
    if (this.#mapText.length < firstLine + 1 + count * 4) return;
    const lines = this.#mapText.split('\n');
    if (lines.length < 2 + count * 2) return;
    header.sparse = pairs(lines.slice(1, 1 + count * 2).map(decimal));
    this.#mapText = '';
    this.#begin();
  }
}

function padding(size: number): number {
  const rest = size % BLOCK;
  return rest === 0 ? 0 : BLOCK - rest;
}

function untilNul(data: Buffer): ByteString {
  const nul = data.indexOf(0);
  return data.toString('latin1', 0, nul < 0 ? data.length : nul);
}

function decimal(text: string): number {
  if (!/^[0-9]+$/.test(text) || !Number.isSafeInteger(Number(text))) {
    throw new TarError('invalid tar header: sparse number');
  }
  return Number(text);
}

function pairs(numbers: number[]): { offset: number; length: number }[] {
  if (numbers.length % 2 !== 0) throw new TarError('invalid tar header: sparse map');
  const list: { offset: number; length: number }[] = [];
  for (let i = 0; i < numbers.length; i += 2) list.push({ offset: numbers[i]!, length: numbers[i + 1]! });
  return list;
}

function checkSparse(header: TarHeader): void {
  let position = 0;
  let total = 0;
  for (const { offset, length } of header.sparse!) {
    if (offset < position || length < 0) throw new TarError('invalid tar header: sparse segments overlap');
    position = offset + length;
    total += length;
  }
  if (position > header.size || total !== header.dataSize) throw new TarError('invalid tar header: sparse map');
}
