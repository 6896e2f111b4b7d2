/** Turns a layer's tar into an EROFS image while it streams: data go to the image as they come, the tree is written at the end. */
import { constants } from 'node:os';
import { type ByteString, errnoError } from '@gantry/sys/fast-at.ts';
import { boundTimes } from '../entry-times.ts';
import { isOverlayAttribute } from '../parent-directories.ts';
import { cleanPath } from '../rooted-directories.ts';
import { TarError, type TarHeader } from '../tar-header.ts';
import type { TarHandler } from '../tar-parser.ts';
import { encodeDevice, splitXattrName } from './erofs-format.ts';
import { type ErofsNode, isDirectory, isSymlink } from './erofs-node.ts';
import type { ImageWriter } from './image-writer.ts';
import { type EntryPlace, LayerTree } from './layer-tree.ts';
import type { LowerLayers } from './lower-layers.ts';

const kinds: Record<string, number> = {
  '0': 0o100000,
  '2': 0o120000,
  '3': 0o020000,
  '4': 0o060000,
  '5': 0o040000,
  '6': 0o010000,
};
const MAX_LINK = 4095;

export interface TarToErofsOptions {
  /** The layers below: a directory that is only implied is like theirs, and a link may be to a file of theirs. */
  lower?: LowerLayers | undefined;
  /**
   * The archive itself is in the image: files are where it has them. Answers the image position of an offset in the chunk that is
   * being parsed.
   */
  positionOf?: (offset: number) => number;
}

export class TarToErofs implements TarHandler {
  readonly #image: ImageWriter;
  readonly #options: TarToErofsOptions;
  readonly tree: LayerTree;
  /** Entries made. */
  files = 0;
  /** Directories on the way to entries that the layer itself does not have. */
  readonly implied = new Set<ByteString>();
  readonly warnings: string[] = [];
  /** The regular file whose data come now; undefined while data are of no use. */
  #file: ErofsNode | undefined;
  /** Its data are already in the image, and only the first piece's place is of interest. */
  #inPlace = false;

  constructor(image: ImageWriter, options: TarToErofsOptions = {}) {
    this.#image = image;
    this.#options = options;
    this.tree = new LayerTree((path, made) => {
      this.implied.add(path);
      options.lower?.describe(path, made);
    });
  }

  entry(header: TarHeader): void {
    this.#file = undefined;
    const place = this.tree.place(header.path, header);
    if (!place) return;
    if (header.type === '1') this.#link(place, header);
    else this.#make(place, header);
    this.files++;
  }

  data(bytes: Buffer, start: number, end: number, at: number): void {
    const file = this.#file;
    if (!file) return;
    if (!this.#inPlace) this.#image.fileData(bytes, start, end, at);
    else if (at === 0) file.block = this.#options.positionOf!(start) / this.#image.blockSize;
  }

  entryEnd(): void {
    if (this.#file && !this.#inPlace) this.#image.endFile();
    this.#file = undefined;
  }

  #make(place: EntryPlace, header: TarHeader): void {
    const kind = kinds[header.type];
    if (kind === undefined) throw new TarError(`unhandled tar header type ${header.type.charCodeAt(0)}`);
    const { mtime, mtimeNanos } = boundTimes(header);
    const { uid, gid } = checkOwner(header);
    const before = place.parent.children!.get(place.base);
    if (header.type === '5' && before && isDirectory(before)) {
      this.implied.delete(place.path);
      Object.assign(before, { mode: kind | header.mode, uid, gid, mtime, mtimeNanos });
      this.#setXattrs(before, header);
      return;
    }
    const node: ErofsNode = { mode: kind | header.mode, uid, gid, mtime, mtimeNanos };
    if (header.type === '2') {
      if (header.linkPath === '') throw errnoError(-constants.errno.ENOENT, 'symlink', header.path);
      if (header.linkPath.length > MAX_LINK) throw errnoError(-constants.errno.ENAMETOOLONG, 'symlink', header.path);
      node.mode = kind | 0o777;
      node.link = header.linkPath;
    } else if (header.type === '5') node.children = new Map();
    else if (header.type === '3' || header.type === '4') node.device = encodeDevice(header.devMajor, header.devMinor);
    else if (header.type === '6') node.device = 0;
    this.#setXattrs(node, header);
    this.tree.put(place, node);
    if (header.type === '0') this.#beginFile(node, header);
  }

  #beginFile(node: ErofsNode, header: TarHeader): void {
    node.size = header.size;
    this.#file = node;
    this.#inPlace = this.#options.positionOf !== undefined;
    if (this.#inPlace && header.sparse) throw new SparseInIndex(`${header.path} is a sparse file`);
    if (!this.#inPlace) this.#image.beginFile(node, header.sparse !== undefined);
  }

  #link(place: EntryPlace, header: TarHeader): void {
    if (cleanPath(header.linkPath) === '') throw errnoError(-constants.errno.EPERM, 'link', header.linkPath);
    const target = this.tree.find(header.linkPath) ?? this.#fromBelow(header.linkPath);
    if (isDirectory(target)) throw errnoError(-constants.errno.EPERM, 'link', header.path);
    if (place.parent.children!.get(place.base) !== target) this.tree.put(place, target);
    const { uid, gid } = checkOwner(header);
    const { mtime, mtimeNanos } = boundTimes(header);
    Object.assign(target, { uid, gid, mtime, mtimeNanos });
    if (!isSymlink(target)) target.mode = (target.mode & ~0o7777) | header.mode;
  }

  /** A file of a layer below becomes one of this layer, as when an overlay copies it up to link it. */
  #fromBelow(name: ByteString): ErofsNode {
    const path = cleanPath(name);
    const node = this.#options.lower?.copyFile(path, this.#image);
    if (!node) throw new MissingBelow(`link to ${path}, which the layer does not have`);
    const place = this.tree.place(path, node);
    if (place) this.tree.put(place, node);
    return node;
  }

  #setXattrs(node: ErofsNode, header: TarHeader): void {
    for (const [name, value] of header.xattrs ?? []) {
      // An overlay's own marks are nothing a layer may set.
      if (isOverlayAttribute(name)) continue;
      const foreign = name.startsWith('user.') && header.type !== '0' && header.type !== '5';
      if (foreign || !splitXattrName(name) || value.length > 65535) {
        if (this.warnings.length < 20) this.warnings.push(`ignored xattr ${name} in archive: not supported`);
        continue;
      }
      node.xattrs ??= new Map();
      node.xattrs.set(name, value);
    }
  }
}

/** Code of `SparseInIndex`, also after it crossed to the main thread. */
export const SPARSE_IN_INDEX = 'ESPARSE';

/** The data of a sparse file are not in one piece in the archive: it has to be converted. */
export class SparseInIndex extends Error {
  readonly code = SPARSE_IN_INDEX;
}

/** Code of `MissingBelow`, also after it crossed to the main thread. */
export const MISSING_BELOW = 'EBELOW';

/** The layer cannot be made without those below it. */
export class MissingBelow extends Error {
  readonly code = MISSING_BELOW;
}

function checkOwner({ uid, gid, path }: TarHeader): { uid: number; gid: number } {
  const valid = (id: number) => id >= 0 && id < 0xffffffff;
  if (!valid(uid) || !valid(gid)) throw errnoError(-constants.errno.EINVAL, 'fchown', path);
  return { uid, gid };
}
