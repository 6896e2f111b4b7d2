/**
 * The layers below an overlay's upper directory, for the directories that have to be made in it because an entry below them needs a
 * place: they take owner, mode, attributes and times of the directory they will be merged with.
 */
import { constants } from 'node:os';
import {
  type ByteString,
  chmodAt,
  chownAt,
  errnoError,
  type FastStat,
  getXattr,
  listXattrs,
  setXattr,
  statAt,
} from '@gantry/sys/fast-at.ts';
import type { Times } from './entry-times.ts';
import { isDirectoryMode, RootedDirectories, type RootedDirectory, splitPath } from './rooted-directories.ts';

const { ELOOP, ENODATA, ENOENT, ENOTDIR, ENOTSUP } = constants.errno;
const S_IFMT = 0o170000;
const S_IFLNK = 0o120000;

export class ParentDirectories {
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

  /**
   * Makes `made` (`base` in `into`) like the directory of the topmost layer that has the name; leaves it alone if none has or it
   * is no directory there. Answers the times it is to have, which later entries in it would change.
   */
  copyTo(made: RootedDirectory, into: RootedDirectory, keepOwner: boolean): Times | undefined {
    const [above, base] = splitPath(made.path);
    for (const layer of this.#layers) {
      const holder = layer.find(above);
      const shown = holder && statAt(holder.fd, base);
      if (shown === undefined || shown === -ENOENT || shown === -ENOTDIR || shown === -ELOOP) continue;
      if (typeof shown === 'number') throw errnoError(shown, 'lstat', made.path);
      const isLink = (shown.mode & S_IFMT) === S_IFLNK;
      if (!isLink && !isDirectoryMode(shown.mode)) return undefined;
      const source = layer.find(made.path);
      if (!source) return undefined;
      const stat = statAt(source.fd, '');
      if (typeof stat === 'number') throw errnoError(stat, 'stat', made.path);
      copyAttributes(source.fd, stat, made, into, keepOwner);
      const { atime, atimeNanos, mtime, mtimeNanos } = stat;
      return { atime, atimeNanos, mtime, mtimeNanos };
    }
    return undefined;
  }

  close(): void {
    for (const layer of this.#layers) layer.close();
  }
}

/** Attributes that overlayfs keeps for itself. */
export function isOverlayAttribute(name: ByteString): boolean {
  return name.startsWith('trusted.overlay.') || name.startsWith('user.overlay.');
}

function copyAttributes(
  from: number,
  stat: FastStat,
  made: RootedDirectory,
  into: RootedDirectory,
  keepOwner: boolean,
): void {
  const [, base] = splitPath(made.path);
  const fail = (result: number, call: string) => {
    if (result < 0) throw errnoError(result, call, made.path);
  };
  if (!keepOwner) fail(chownAt(into.fd, base, stat.uid, stat.gid), 'fchownat');
  fail(chmodAt(into.fd, base, stat.mode & 0o7777), 'fchmodat');
  const source = `/proc/self/fd/${from}/.`;
  const names = listXattrs(source);
  if (names === -ENOTSUP) return;
  if (typeof names === 'number') throw errnoError(names, 'listxattr', made.path);
  for (const name of names) {
    if (isOverlayAttribute(name)) continue;
    const value = getXattr(source, name);
    if (value === -ENODATA) continue;
    if (typeof value === 'number') throw errnoError(value, 'getxattr', made.path);
    const result = setXattr(`/proc/self/fd/${made.fd}/.`, name, value);
    if (result !== -ENOTSUP) fail(result, 'setxattr');
  }
}
