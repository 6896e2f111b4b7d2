/** Writes tar headers: ustar, with a PAX header before it for what ustar cannot hold. The same entry always gives the same bytes. */
import type { ByteString } from '@gantry/sys/fast-at.ts';
import { paxRecord } from './pax.ts';
import { BLOCK } from './tar-header.ts';

/** What an archive entry is made of. Paths are byte strings; a directory's ends in a slash. */
export interface TarEntry {
  /** '0' file, '1' hard link, '2' symlink, '3' character device, '4' block device, '5' directory, '6' FIFO. */
  type: string;
  path: ByteString;
  linkPath?: ByteString;
  mode: number;
  uid?: number;
  gid?: number;
  /** Bytes of the file, holes included. */
  size?: number;
  /** Seconds since 1970. */
  mtime: number;
  devMajor?: number;
  devMinor?: number;
  xattrs?: [name: ByteString, value: Buffer][];
  /** Data segments of a sparse file (GNU format 1.0). The data that follow are `sparseMap` and then the segments. */
  sparse?: { offset: number; length: number }[];
}

/** Bytes of zeros that follow `size` bytes of data. */
export function tarPadding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** The end of an archive: two empty blocks. */
export function tarEnd(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}

/** The text that a sparse entry's data start with, padded to a block. */
export function sparseMap(segments: { offset: number; length: number }[]): Buffer {
  const numbers = segments.flatMap(({ offset, length }) => [offset, length]);
  const text = `${[segments.length, ...numbers].join('\n')}\n`;
  const map = Buffer.alloc(text.length + tarPadding(text.length));
  map.write(text, 'latin1');
  return map;
}

/** Bytes of data that follow the entry's header, without padding. */
export function tarDataSize(entry: TarEntry): number {
  if (!entry.sparse) return entry.size ?? 0;
  return entry.sparse.reduce((sum, segment) => sum + segment.length, sparseMap(entry.sparse).length);
}

const MAX_OCTAL_12 = 0o77777777777;
const MAX_OCTAL_8 = 0o7777777;

/** The header, extended header included. */
export function encodeTarHeader(entry: TarEntry): Buffer {
  const records: [ByteString, ByteString][] = [];
  let { path } = entry;
  const linkPath = entry.linkPath ?? '';
  const size = tarDataSize(entry);
  if (entry.sparse) {
    records.push(['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0']);
    records.push(['GNU.sparse.name', path], ['GNU.sparse.realsize', String(entry.size ?? 0)]);
    path = shortened('GNUSparseFile.0', path);
  }
  const split = splitUstar(path);
  if (!split) records.push(['path', path]);
  if (linkPath.length > 100 || !isAscii(linkPath)) records.push(['linkpath', linkPath]);
  if (size > MAX_OCTAL_12) records.push(['size', String(size)]);
  if ((entry.uid ?? 0) > MAX_OCTAL_8) records.push(['uid', String(entry.uid)]);
  if ((entry.gid ?? 0) > MAX_OCTAL_8) records.push(['gid', String(entry.gid)]);
  if (entry.mtime < 0 || entry.mtime > MAX_OCTAL_12) records.push(['mtime', String(entry.mtime)]);
  for (const [name, value] of entry.xattrs ?? []) records.push([`SCHILY.xattr.${name}`, value.toString('latin1')]);
  const [prefix, name] = split ?? ['', path.slice(0, 100)];
  const block = ustarBlock(entry, prefix, name, linkPath, size);
  if (records.length === 0) return block;
  records.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const text = Buffer.from(records.map(([key, value]) => paxRecord(key, value)).join(''), 'latin1');
  const pax = ustarBlock(
    { type: 'x', path: '', mode: 0o644, mtime: 0 },
    '',
    shortened('PaxHeaders.0', entry.path),
    '',
    text.length,
  );
  return Buffer.concat([pax, text, Buffer.alloc(tarPadding(text.length)), block]);
}

function ustarBlock(entry: TarEntry, prefix: ByteString, name: ByteString, linkPath: ByteString, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(name, 0, 100, 'latin1');
  octal(block, entry.mode & 0o7777, 100, 8);
  octal(block, within(entry.uid ?? 0, MAX_OCTAL_8), 108, 8);
  octal(block, within(entry.gid ?? 0, MAX_OCTAL_8), 116, 8);
  octal(block, within(size, MAX_OCTAL_12), 124, 12);
  octal(block, within(entry.mtime, MAX_OCTAL_12), 136, 12);
  block.write(entry.type, 156, 'latin1');
  block.write(linkPath.slice(0, 100), 157, 100, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  if (entry.type === '3' || entry.type === '4') {
    octal(block, entry.devMajor ?? 0, 329, 8);
    octal(block, entry.devMinor ?? 0, 337, 8);
  }
  block.write(prefix, 345, 155, 'latin1');
  let sum = 8 * 0x20;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
  return block;
}

function octal(block: Buffer, value: number, start: number, length: number): void {
  block.write(value.toString(8).padStart(length - 1, '0'), start, length - 1, 'latin1');
}

/** What does not fit is in the PAX header, and the field is zero. */
function within(value: number, max: number): number {
  return value < 0 || value > max ? 0 : value;
}

function isAscii(text: ByteString): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 127) return false;
  return true;
}

/** Splits a path into ustar's two fields; undefined if it does not fit. */
function splitUstar(path: ByteString): [prefix: ByteString, name: ByteString] | undefined {
  if (!isAscii(path)) return undefined;
  if (path.length <= 100) return ['', path];
  if (path.length > 256) return undefined;
  // The first slash that leaves a name of at most 100 characters, and not the one at the end of a directory.
  const cut = path.indexOf('/', path.length - 101);
  if (cut <= 0 || cut > 155 || cut >= path.length - 1) return undefined;
  return [path.slice(0, cut), path.slice(cut + 1)];
}

/** A name for an extended header's own entry: only for tools that do not know the format. */
function shortened(directory: string, path: ByteString): ByteString {
  const base = path.replace(/\/$/, '').split('/').at(-1) ?? '';
  return `${directory}/${base.replace(/[^\x20-\x7e]/g, '_')}`.slice(0, 100);
}
