import { failedPrecondition, type StatusError } from '@gantry/api';
import * as layout from './layout.ts';

/** What a meta page says of the file; two of them take turns, one a transaction. */
export interface Meta {
  /** In bytes. */
  readonly pageSize: number;
  /** The page of the file's own bucket. */
  readonly root: number;
  /** Pages from this number on are not in use. */
  readonly highWater: number;
  /** The transaction that wrote it. */
  readonly transaction: bigint;
}

/** Bytes of a meta page that matter: header, fields and their checksum. */
export const metaSize = layout.pageHeaderSize + 64;

/** An error about a file that is not as bbolt writes it. */
export function corrupt(file: string, what: string): StatusError {
  return failedPrecondition(`${file}: not a sound bbolt file: ${what}`);
}

/** The meta page in `bytes`, or why it is none. */
export function parseMeta(bytes: Buffer): Meta | string {
  if (bytes.length < metaSize) return 'too short';
  if ((bytes.readUInt16LE(8) & layout.metaPage) === 0) return 'no meta page';
  const fields = bytes.subarray(layout.pageHeaderSize, metaSize);
  const found = fields.readUInt32LE(0);
  if (found === 0xeddacd0e || fields.readUInt32BE(0) === layout.magic) return 'written on a big-endian machine';
  if (found !== layout.magic) return 'wrong magic number';
  const version = fields.readUInt32LE(4);
  if (version !== layout.formatVersion) return `format version ${version}`;
  if (fields.readBigUInt64LE(56) !== layout.fnv1a(fields.subarray(0, 56))) return 'wrong checksum';
  const pageSize = fields.readUInt32LE(8);
  const size = Math.log2(pageSize);
  if (!Number.isInteger(size) || pageSize < layout.smallestPageSize || pageSize > layout.largestPageSize)
    return `page size ${pageSize}`;
  const root = fields.readBigUInt64LE(16);
  const highWater = fields.readBigUInt64LE(40);
  // A file has fewer than 2^53 / 1024 pages, whoever wrote it.
  if (highWater > 1n << 43n) return `${highWater} pages`;
  if (root < 2n || root >= highWater) return `root page ${root} of ${highWater}`;
  return { pageSize, root: Number(root), highWater: Number(highWater), transaction: fields.readBigUInt64LE(48) };
}

/**
 * The meta page in effect: of the two, the later one that is whole. A crash in the middle of a write leaves the other.
 * @param read answers up to `length` bytes at a position, fewer at the end
 */
export function chooseMeta(file: string, read: (position: number, length: number) => Buffer): Meta {
  const first = parseMeta(read(0, metaSize));
  const found: Meta[] = [];
  if (typeof first !== 'string') {
    found.push(first);
    const second = parseMeta(read(first.pageSize, metaSize));
    if (typeof second !== 'string' && second.pageSize === first.pageSize) found.push(second);
  } else {
    // The page size stands in the page that is broken, so the second is where some page size puts it.
    for (let size = layout.smallestPageSize; size <= layout.largestPageSize && found.length === 0; size *= 2) {
      const second = parseMeta(read(size, metaSize));
      if (typeof second !== 'string' && second.pageSize === size) found.push(second);
    }
  }
  const [chosen] = found.sort((a, b) => (a.transaction < b.transaction ? 1 : -1));
  if (!chosen) throw corrupt(file, `no meta page is whole (the first: ${first})`);
  return chosen;
}
