/**
 * What a tar header says: ustar, GNU and PAX fields read from 512-byte blocks into one shape. Names are byte strings (each char
 * one byte), because a name in an archive need not be UTF-8.
 */
import type { ByteString } from '@gantry/sys/fast-at.ts';

export const BLOCK = 512;

/** An archive that breaks the format. */
export class TarError extends Error {
  readonly code = 'ETAR';
  constructor(message: string) {
    super(message);
    this.name = 'TarError';
  }
}

/** One entry's header, all extensions applied. */
export interface TarHeader {
  /** The type flag: '0' file, '1' hard link, '2' symlink, '3' character device, '4' block device, '5' directory, '6' FIFO; others as found. */
  type: string;
  path: ByteString;
  linkPath: ByteString;
  /** Permission bits with setuid, setgid and sticky. */
  mode: number;
  uid: number;
  gid: number;
  userName: ByteString;
  groupName: ByteString;
  /** Bytes of the file as it will be, holes included. */
  size: number;
  /** Bytes of data that follow in the archive. */
  dataSize: number;
  mtime: number;
  mtimeNanos: number;
  atime?: number;
  atimeNanos?: number;
  devMajor: number;
  devMinor: number;
  /** By name; bytes. */
  xattrs?: Map<ByteString, Buffer>;
  /** Data segments of a sparse file: where each lies in the file; in order. */
  sparse?: { offset: number; length: number }[];
}

/** Reads a NUL-terminated field. */
export function fieldString(block: Buffer, start: number, length: number): ByteString {
  const end = start + length;
  let stop = start;
  while (stop < end && block[stop] !== 0) stop++;
  return block.toString('latin1', start, stop);
}

/** Reads a number: octal text, or base-256 when the first bit is set. @throws TarError */
export function fieldNumber(block: Buffer, start: number, length: number): number {
  const first = block[start]!;
  if (first & 0x80) return base256(block, start, length);
  let i = start;
  const end = start + length;
  while (i < end && (block[i] === 0x20 || block[i] === 0)) i++;
  let value = 0;
  for (; i < end; i++) {
    const c = block[i]!;
    if (c === 0x20 || c === 0) break;
    if (c < 0x30 || c > 0x37) throw new TarError('invalid tar header: number field');
    value = value * 8 + (c - 0x30);
  }
  return value;
}

function base256(block: Buffer, start: number, length: number): number {
  const negative = (block[start]! & 0x40) !== 0;
  let value = 0n;
  for (let i = start; i < start + length; i++) {
    let byte = block[i]!;
    if (i === start) byte &= 0x7f;
    if (negative) byte = i === start ? ~byte & 0x7f : ~byte & 0xff;
    if (i === start) byte &= 0x3f;
    value = (value << 8n) | BigInt(byte);
  }
  const result = negative ? -(value + 1n) : value;
  if (result > BigInt(Number.MAX_SAFE_INTEGER) || result < BigInt(Number.MIN_SAFE_INTEGER)) {
    throw new TarError('invalid tar header: number too large');
  }
  return Number(result);
}

/** Whether the block's checksum is right, summed as unsigned or, as old tars did, signed bytes. */
export function checksumMatches(block: Buffer): boolean {
  let unsigned = 0;
  for (let i = 0; i < BLOCK; i++) unsigned += block[i]!;
  // The checksum's own field counts as spaces.
  for (let i = 148; i < 156; i++) unsigned += 0x20 - block[i]!;
  let stored: number;
  try {
    stored = fieldNumber(block, 148, 8);
  } catch {
    return false;
  }
  if (stored === unsigned) return true;
  let signed = unsigned;
  for (let i = 0; i < BLOCK; i++) if (block[i]! > 127 && (i < 148 || i >= 156)) signed -= 256;
  return stored === signed;
}

export function isZeroBlock(block: Buffer): boolean {
  for (let i = 0; i < BLOCK; i++) if (block[i] !== 0) return false;
  return true;
}

/** Reads the fixed fields of a header block. @throws TarError on a wrong checksum or field. */
export function parseHeaderBlock(block: Buffer): TarHeader {
  if (!checksumMatches(block)) throw new TarError('invalid tar header: checksum');
  const magic = block.toString('latin1', 257, 265);
  const typeByte = block[156]!;
  const isUstar = magic.startsWith('ustar\0');
  const hasExtra = isUstar || magic === 'ustar  \0';
  let path = fieldString(block, 0, 100);
  if (isUstar) {
    const isStar = block.toString('latin1', 508, 512) === 'tar\0';
    const prefix = fieldString(block, 345, isStar ? 131 : 155);
    if (prefix) path = `${prefix}/${path}`;
  }
  const type = typeByte === 0 || typeByte === 0x37 ? '0' : String.fromCharCode(typeByte);
  const size = fieldNumber(block, 124, 12);
  if (size < 0) throw new TarError('invalid tar header: negative size');
  const headerOnly = type >= '1' && type <= '6';
  return {
    type,
    path,
    linkPath: fieldString(block, 157, 100),
    mode: fieldNumber(block, 100, 8) & 0o7777,
    uid: fieldNumber(block, 108, 8),
    gid: fieldNumber(block, 116, 8),
    userName: hasExtra ? fieldString(block, 265, 32) : '',
    groupName: hasExtra ? fieldString(block, 297, 32) : '',
    size: headerOnly ? 0 : size,
    dataSize: headerOnly ? 0 : size,
    mtime: fieldNumber(block, 136, 12),
    mtimeNanos: 0,
    devMajor: hasExtra ? fieldNumber(block, 329, 8) : 0,
    devMinor: hasExtra ? fieldNumber(block, 337, 8) : 0,
  };
}
