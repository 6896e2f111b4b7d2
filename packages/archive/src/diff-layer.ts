/**
 * Job `diff-layer`: the changes between two trees become a layer. Sorted and without anything that depends on when or where it
 * ran, so that the same trees give the same digest.
 */

import { readSync } from 'node:fs';
import { constants } from 'node:os';
import { type ByteString, closeFd, type FastStat, lseek, SEEK_DATA, SEEK_HOLE } from '@gantry/sys/fast-at.ts';
import type { Compression } from './compression.ts';
import type { JobContext } from './job.ts';
import { type LayerDigests, LayerOutput, type LayerTarget } from './layer-output.ts';
import { splitPath } from './rooted-directories.ts';
import { encodeTarHeader, sparseMap, type TarEntry, tarDataSize, tarEnd, tarPadding } from './tar-encode.ts';
import { type Change, compareTrees, inodeKey, Tree, upperChanges } from './tree-changes.ts';

export interface DiffLayerParams {
  /** Directories to compare. Without `lower`, all of `upper` is new. */
  lower?: string;
  upper: string;
  /**
   * `upper` is the upper directory of an overlay: what is in it is the changes. Fails with code `UPPER_UNSUPPORTED`, before
   * anything is written, if only the mounted overlay can tell.
   */
  upperOnly?: boolean;
  target: LayerTarget;
  compression: Compression;
  /** Times later than this (seconds since 1970) become this. */
  sourceDateEpoch?: number;
}

export interface DiffLayerResult extends LayerDigests {
  /** Entries written. */
  files: number;
}

export async function diffLayer(params: DiffLayerParams, context: JobContext): Promise<DiffLayerResult> {
  const output = new LayerOutput(params.target, params.compression);
  try {
    const changes = params.upperOnly ? upperChanges(params.upper) : compareTrees(params.lower, params.upper);
    using tree = new Tree(params.upper);
    const writer = new LayerWriter(tree, output, params.sourceDateEpoch);
    for (const change of changes) {
      context.signal.throwIfAborted();
      await writer.write(change);
    }
    output.write(tarEnd());
    return { ...(await output.finish()), files: changes.length };
  } catch (error) {
    output.destroy(error instanceof Error ? error : new Error(String(error)));
    throw error;
  }
}

const types = new Map<number, string>([
  [0o100000, '0'],
  [0o120000, '2'],
  [0o020000, '3'],
  [0o060000, '4'],
  [0o040000, '5'],
  [0o010000, '6'],
]);

class LayerWriter {
  readonly #tree: Tree;
  readonly #output: LayerOutput;
  readonly #latest: number | undefined;
  /** First name written of a file with several. */
  readonly #written = new Map<string, ByteString>();
  readonly #buffer = Buffer.allocUnsafeSlow(256 << 10);

  constructor(tree: Tree, output: LayerOutput, latest: number | undefined) {
    this.#tree = tree;
    this.#output = output;
    this.#latest = latest;
  }

  async write(change: Change): Promise<void> {
    if (change.kind !== 'entry') {
      const [parent, base] = splitPath(change.path);
      const mark = change.kind === 'opaque' ? [change.path, '.wh..wh..opq'] : [parent, `.wh.${base}`];
      const path = mark.filter((part) => part !== '').join('/');
      // Nothing about a mark is kept but its name, so its time is fixed.
      this.#output.write(encodeTarHeader({ type: '0', path, mode: 0, mtime: this.#latest ?? 0 }));
    } else {
      await this.#entry(change.path, change.stat);
    }
    await this.#output.ready();
  }

  async #entry(path: ByteString, stat: FastStat): Promise<void> {
    const [parent, base] = splitPath(path);
    const type = types.get(stat.mode & 0o170000);
    if (type === undefined) return;
    const entry: TarEntry = {
      type,
      path: type === '5' ? `${path}/` : path,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      // Whole seconds, as containerd writes them.
      mtime: this.#latest === undefined ? stat.mtime : Math.min(stat.mtime, this.#latest),
    };
    if (type !== '5' && stat.nlink > 1) {
      const key = inodeKey(stat);
      const first = this.#written.get(key);
      if (first !== undefined) {
        this.#output.write(encodeTarHeader({ ...entry, type: '1', linkPath: first }));
        return;
      }
      this.#written.set(key, path);
    }
    const xattrs = this.#tree.xattrs(parent, base);
    if (xattrs.length > 0) entry.xattrs = xattrs;
    if (type === '2') entry.linkPath = this.#tree.readlink(parent, base);
    if (type === '3' || type === '4') {
      entry.devMajor = stat.rdevMajor;
      entry.devMinor = stat.rdevMinor;
    }
    if (type === '0') await this.#file(entry, parent, base, stat);
    else this.#output.write(encodeTarHeader(entry));
  }

  async #file(entry: TarEntry, parent: ByteString, base: ByteString, stat: FastStat): Promise<void> {
    entry.size = stat.size;
    if (stat.size === 0) {
      this.#output.write(encodeTarHeader(entry));
      return;
    }
    const fd = this.#tree.open(parent, base);
    try {
      const segments = stat.blocks * 512 < stat.size ? dataSegments(fd, stat.size) : undefined;
      if (segments) entry.sparse = segments;
      this.#output.write(encodeTarHeader(entry));
      if (segments) this.#output.write(sparseMap(segments));
      for (const { offset, length } of segments ?? [{ offset: 0, length: stat.size }]) {
        await this.#copy(fd, offset, length, entry.path);
      }
      this.#output.write(Buffer.alloc(tarPadding(tarDataSize(entry))));
    } finally {
      closeFd(fd);
    }
  }

  async #copy(fd: number, offset: number, length: number, path: ByteString): Promise<void> {
    const end = offset + length;
    while (offset < end) {
      const n = readSync(fd, this.#buffer, 0, Math.min(this.#buffer.length, end - offset), offset);
      if (n === 0) throw new Error(`${Buffer.from(path, 'latin1')}: file became shorter while it was read`);
      this.#output.write(this.#buffer.subarray(0, n));
      offset += n;
      await this.#output.ready();
    }
  }
}

/** Holes smaller than this in total are not worth a sparse entry. */
const MIN_HOLES = 64 << 10;

/** The parts of a file that hold data, or undefined if it is best written whole. */
function dataSegments(fd: number, size: number): { offset: number; length: number }[] | undefined {
  const segments: { offset: number; length: number }[] = [];
  let total = 0;
  for (let at = 0; at < size; ) {
    const start = lseek(fd, at, SEEK_DATA);
    if (start === -constants.errno.ENXIO) break;
    if (start < 0) return undefined;
    const hole = lseek(fd, start, SEEK_HOLE);
    if (hole < 0) return undefined;
    const end = Math.min(hole, size);
    segments.push({ offset: start, length: end - start });
    total += end - start;
    at = end;
  }
  return size - total < MIN_HOLES ? undefined : segments;
}
