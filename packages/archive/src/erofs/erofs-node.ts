import type { ByteString } from '@gantry/sys/fast-at.ts';
import { S_IFMT } from './erofs-format.ts';

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

/** A file of an image that is being made; one with several names is in several directories. */
export interface ErofsNode {
  /** Type and permissions. */
  mode: number;
  uid: number;
  gid: number;
  mtime: number;
  mtimeNanos: number;
  xattrs?: Map<ByteString, Buffer> | undefined;
  /** Device number as inodes keep it. */
  device?: number;
  /** A symbolic link's target. */
  link?: ByteString;
  children?: Map<ByteString, ErofsNode>;
  /** A regular file's bytes. */
  size?: number;
  /** Its first block; 0 if it has none. */
  block?: number;
  /** A sparse file's chunks instead: block of each, `HOLE` for none. */
  chunks?: { bits: number; blockBits: number; blocks: Uint32Array };
}

export const isDirectory = (node: ErofsNode) => (node.mode & S_IFMT) === S_IFDIR;
export const isRegular = (node: ErofsNode) => (node.mode & S_IFMT) === S_IFREG;
export const isSymlink = (node: ErofsNode) => (node.mode & S_IFMT) === S_IFLNK;
/** A whiteout as overlayfs has it. */
export const isWhiteout = (node: ErofsNode) => (node.mode & S_IFMT) === S_IFCHR && node.device === 0;

export const opaqueXattr = 'trusted.overlay.opaque';

export function markOpaque(node: ErofsNode): void {
  node.xattrs ??= new Map();
  node.xattrs.set(opaqueXattr, Buffer.from('y'));
}

export function newDirectory(): ErofsNode {
  return { mode: S_IFDIR | 0o755, uid: 0, gid: 0, mtime: 0, mtimeNanos: 0, children: new Map() };
}
