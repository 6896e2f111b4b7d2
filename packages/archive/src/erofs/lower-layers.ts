/** The directories that the layers below are mounted on, for what a layer takes over from them. */
import { readSync } from 'node:fs';
import { constants } from 'node:os';
import {
  type ByteString,
  closeFd,
  errnoError,
  type FastStat,
  Flags,
  getXattr,
  listXattrs,
  openAt,
  readlinkAt,
  statAt,
} from '@gantry/sys/fast-at.ts';
import { isOverlayAttribute } from '../parent-directories.ts';
import { isDirectoryMode, RootedDirectories, type RootedDirectory, splitPath } from '../rooted-directories.ts';
import { encodeDevice, S_IFMT, splitXattrName } from './erofs-format.ts';
import type { ErofsNode } from './erofs-node.ts';
import type { ImageWriter } from './image-writer.ts';

export class LowerLayers {
  readonly #layers: RootedDirectories[] = [];

  /** `roots`: topmost first. */
  constructor(roots: readonly string[]) {
    try {
      for (const root of roots) this.#layers.push(new RootedDirectories(root));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    for (const layer of this.#layers) layer.close();
  }

  /** Makes `made` like the directory of the topmost layer that has the path, if it is one there. */
  describe(path: ByteString, made: ErofsNode): void {
    const found = this.#find(path);
    if (found && isDirectoryMode(found.stat.mode))
      Object.assign(made, attributes(found.directory, found.base, found.stat));
  }

  /** Copies a file into the image; undefined if no layer has it, or it is a directory. */
  copyFile(path: ByteString, image: ImageWriter): ErofsNode | undefined {
    const found = this.#find(path);
    if (!found || isDirectoryMode(found.stat.mode)) return undefined;
    const { directory, base, stat } = found;
    return readNode(directory, base, stat, image);
  }

  #find(path: ByteString): { directory: RootedDirectory; base: ByteString; stat: FastStat } | undefined {
    const [above, base] = splitPath(path);
    for (const layer of this.#layers) {
      const directory = layer.find(above);
      const stat = directory && statAt(directory.fd, base);
      if (directory && stat !== undefined && typeof stat !== 'number') {
        // A whiteout: it is not there, whatever lies further below.
        if ((stat.mode & S_IFMT) === 0o020000 && stat.rdevMajor === 0 && stat.rdevMinor === 0) return undefined;
        return { directory, base, stat };
      }
    }
    return undefined;
  }
}

/** Marks of an overlay that say something of a layer; the others are about one mount of it. */
const layerMarks = new Set(['opaque', 'redirect', 'metacopy'].map((name) => `trusted.overlay.${name}`));

function attributes(directory: RootedDirectory, base: ByteString, stat: FastStat, marks = false): ErofsNode {
  const { mode, uid, gid, mtime, mtimeNanos } = stat;
  const node: ErofsNode = { mode, uid, gid, mtime, mtimeNanos };
  const path = `/proc/self/fd/${directory.fd}/${base === '' ? '.' : base}`;
  const names = listXattrs(path);
  if (names === -constants.errno.ENOTSUP) return node;
  if (typeof names === 'number') throw errnoError(names, 'listxattr', directory.path);
  for (const name of names) {
    if ((isOverlayAttribute(name) && !(marks && layerMarks.has(name))) || !splitXattrName(name)) continue;
    const value = getXattr(path, name);
    if (value === -constants.errno.ENODATA) continue;
    if (typeof value === 'number') throw errnoError(value, 'getxattr', directory.path);
    node.xattrs ??= new Map();
    node.xattrs.set(name, value);
  }
  return node;
}

/** A file of a directory as a node, its data written to the image. `marks`: with an overlay's marks, as an upper directory has. */
export function readNode(
  directory: RootedDirectory,
  base: ByteString,
  stat: FastStat,
  image: ImageWriter,
  marks = false,
): ErofsNode {
  const node = attributes(directory, base, stat, marks);
  switch (stat.mode & S_IFMT) {
    case 0o040000:
      node.children = new Map();
      break;
    case 0o120000: {
      const link = readlinkAt(directory.fd, base);
      if (typeof link === 'number') throw errnoError(link, 'readlink', base);
      node.link = link;
      break;
    }
    case 0o020000:
    case 0o060000:
      node.device = encodeDevice(stat.rdevMajor, stat.rdevMinor);
      break;
    case 0o100000:
      copyData(directory, base, node, stat, image);
  }
  return node;
}

const PIECE = 512 << 10;

function copyData(
  directory: RootedDirectory,
  base: ByteString,
  node: ErofsNode,
  stat: FastStat,
  image: ImageWriter,
): void {
  const fd = openAt(directory.fd, base, Flags.O_RDONLY | Flags.O_NOFOLLOW | Flags.O_NONBLOCK);
  if (fd < 0) throw errnoError(fd, 'open', base);
  try {
    node.size = stat.size;
    // Sparse: it takes less room than its size; then pieces of zeros are left out.
    const sparse = stat.blocks * 512 < stat.size && stat.size > PIECE;
    image.beginFile(node, sparse);
    const buffer = Buffer.allocUnsafe(Math.min(PIECE, stat.size));
    for (let at = 0; at < stat.size; ) {
      const n = readSync(fd, buffer, 0, Math.min(buffer.length, stat.size - at), at);
      if (n === 0) throw new Error(`${base} became shorter while it was read`);
      if (!sparse || !isZero(buffer, n)) image.fileData(buffer, 0, n, at);
      at += n;
    }
    image.endFile();
  } finally {
    closeFd(fd);
  }
}

const zeros = Buffer.alloc(PIECE);

function isZero(buffer: Buffer, length: number): boolean {
  return buffer.compare(zeros, 0, length, 0, length) === 0;
}
