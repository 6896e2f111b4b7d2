/**
 * The parts of EROFS on disk that an image without compression needs (Linux: Documentation/filesystems/erofs.rst): superblock,
 * extended inodes, extended attributes, directory blocks. All numbers are little-endian.
 */
import { constants } from 'node:os';
import { type ByteString, errnoError } from '@gantry/sys/fast-at.ts';
import { crc32c } from './crc32c.ts';

export const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_SIZE = 128;
export const MAGIC = 0xe0f5e1e2;
const COMPAT_CHECKSUM = 1;
const COMPAT_MTIME = 2;
const INCOMPAT_CHUNKED = 4;

/** Inode numbers on disk count these from the start of the metadata. */
export const SLOT = 32;
export const INODE_SIZE = 64;
/** A hole in a chunk map. */
export const HOLE = 0xffffffff;

/** How an inode's data lie: in consecutive blocks; so but for the tail, which follows the inode; in chunks by a map. */
export const Layout = { plain: 0, inline: 2, chunked: 4 } as const;
export type Layout = (typeof Layout)[keyof typeof Layout];

export const S_IFMT = 0o170000;
const fileTypes: Record<number, number> = {
  [0o100000]: 1,
  [0o040000]: 2,
  [0o020000]: 3,
  [0o060000]: 4,
  [0o010000]: 5,
  [0o140000]: 6,
  [0o120000]: 7,
};

export interface Superblock {
  blockBits: number;
  /** Of the root directory; has to fit 16 bits. */
  rootNid: number;
  inodes: number;
  blocks: number;
  /** First block of the metadata. */
  metaBlock: number;
  /** 16 bytes. */
  uuid: Buffer;
  chunked: boolean;
}

/** All from the superblock to the end of what its checksum covers. */
export function encodeSuperblock(sb: Superblock): Buffer {
  const blockSize = 2 ** sb.blockBits;
  const covered = blockSize > SUPERBLOCK_OFFSET ? blockSize - SUPERBLOCK_OFFSET : blockSize;
  const bytes = Buffer.alloc(Math.max(covered, SUPERBLOCK_SIZE));
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(COMPAT_CHECKSUM | COMPAT_MTIME, 8);
  bytes.writeUInt8(sb.blockBits, 12);
  bytes.writeUInt16LE(sb.rootNid, 14);
  bytes.writeBigUInt64LE(BigInt(sb.inodes), 16);
  bytes.writeUInt32LE(sb.blocks, 36);
  bytes.writeUInt32LE(sb.metaBlock, 40);
  sb.uuid.copy(bytes, 48);
  bytes.writeUInt32LE(sb.chunked ? INCOMPAT_CHUNKED : 0, 80);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, covered)), 4);
  return bytes;
}

export interface InodeFields {
  layout: Layout;
  /** Bytes of attributes after the inode. */
  xattrSize: number;
  mode: number;
  size: number;
  /** First block, device number or chunk format, as type and layout have it. */
  union: number;
  number: number;
  uid: number;
  gid: number;
  mtime: number;
  mtimeNanos: number;
  nlink: number;
}

export function encodeInode(fields: InodeFields, into: Buffer, at: number): void {
  into.writeUInt16LE(1 | (fields.layout << 1), at);
  into.writeUInt16LE(fields.xattrSize === 0 ? 0 : (fields.xattrSize - 12) / 4 + 1, at + 2);
  into.writeUInt16LE(fields.mode, at + 4);
  into.writeBigUInt64LE(BigInt(fields.size), at + 8);
  into.writeUInt32LE(fields.union, at + 16);
  into.writeUInt32LE(fields.number, at + 20);
  into.writeUInt32LE(fields.uid, at + 24);
  into.writeUInt32LE(fields.gid, at + 28);
  into.writeBigInt64LE(BigInt(fields.mtime), at + 32);
  into.writeUInt32LE(fields.mtimeNanos, at + 40);
  into.writeUInt32LE(fields.nlink, at + 44);
}

/** A device number as inodes keep it. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** Their length is counted in 16 bits, of four bytes each. */
const MAX_XATTRS = 12 + 4 * 65534;

const xattrPrefixes: [index: number, prefix: string, whole: boolean][] = [
  [1, 'user.', false],
  [2, 'system.posix_acl_access', true],
  [3, 'system.posix_acl_default', true],
  [4, 'trusted.', false],
  [6, 'security.', false],
];

/** Index and rest of an attribute's name; undefined for one that no EROFS image can hold. */
export function splitXattrName(name: ByteString): { index: number; rest: ByteString } | undefined {
  for (const [index, prefix, whole] of xattrPrefixes) {
    if (whole ? name !== prefix : !name.startsWith(prefix) || name === prefix) continue;
    const rest = name.slice(prefix.length);
    return rest.length > 255 ? undefined : { index, rest };
  }
  return undefined;
}

/** The attributes that follow an inode. Names must be such that `splitXattrName` knows them. @throws E2BIG */
export function encodeXattrs(xattrs: ReadonlyMap<ByteString, Buffer> | undefined): Buffer {
  if (!xattrs || xattrs.size === 0) return Buffer.alloc(0);
  const parts: Buffer[] = [Buffer.alloc(12)];
  for (const [name, value] of xattrs) {
    const { index, rest } = splitXattrName(name)!;
    const entry = Buffer.alloc((4 + rest.length + value.length + 3) & ~3);
    entry.writeUInt8(rest.length, 0);
    entry.writeUInt8(index, 1);
    entry.writeUInt16LE(value.length, 2);
    entry.write(rest, 4, 'latin1');
    value.copy(entry, 4 + rest.length);
    parts.push(entry);
  }
  const all = Buffer.concat(parts);
  if (all.length > MAX_XATTRS) throw errnoError(-constants.errno.E2BIG, 'setxattr');
  return all;
}

export interface DirectoryEntry {
  name: ByteString;
  mode: number;
  /** Known only when all inodes have their places. */
  nid(): number;
}

/** How a directory's entries (sorted by name) go into blocks; `size` is that of the directory. */
export interface DirectoryPlan {
  blocks: DirectoryEntry[][];
  size: number;
  /** Bytes of the last block that are used. */
  tail: number;
}

export function planDirectory(entries: DirectoryEntry[], blockSize: number): DirectoryPlan {
  const blocks: DirectoryEntry[][] = [];
  let used = blockSize;
  for (const entry of entries) {
    const need = 12 + entry.name.length;
    if (used + need > blockSize) {
      blocks.push([]);
      used = 0;
    }
    blocks.at(-1)!.push(entry);
    used += need;
  }
  return { blocks, size: (blocks.length - 1) * blockSize + used, tail: used };
}

/** Writes one block's entries, then their names; the rest of `into` has to be zero. */
export function encodeDirectoryBlock(entries: readonly DirectoryEntry[], into: Buffer, at: number): void {
  let nameAt = entries.length * 12;
  for (const [index, { name, mode, nid }] of entries.entries()) {
    const entry = at + index * 12;
    into.writeBigUInt64LE(BigInt(nid()), entry);
    into.writeUInt16LE(nameAt, entry + 8);
    into.writeUInt8(fileTypes[mode & S_IFMT] ?? 0, entry + 10);
    into.write(name, at + nameAt, 'latin1');
    nameAt += name.length;
  }
}
