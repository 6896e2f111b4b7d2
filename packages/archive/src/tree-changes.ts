/**
 * What differs between two directory trees, as a list of entries and whiteouts in the order of their paths. Files are the same when
 * type, mode, owner, device, attributes, size and time are (containerd's rule: where times have no fraction, the content decides).
 */

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
import { isOverlayAttribute } from './parent-directories.ts';
import { listNames } from './remove-tree.ts';
import { isDirectoryMode, RootedDirectories, type RootedDirectory } from './rooted-directories.ts';

const { ENODATA, ENOENT, ENOTSUP } = constants.errno;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

export type Change =
  | { kind: 'entry'; path: ByteString; stat: FastStat }
  /** The path was there below and is no more. */
  | { kind: 'whiteout'; path: ByteString }
  /** Everything below the directory is hidden. */
  | { kind: 'opaque'; path: ByteString };

/** Code of `UnsupportedUpper`, also after it crossed to the main thread. */
export const UPPER_UNSUPPORTED = 'EUPPER';

/** The upper directory of an overlay has what overlayfs does not show elsewhere; only this reader understands. */
export class UnsupportedUpper extends Error {
  readonly code = UPPER_UNSUPPORTED;
}

interface Found {
  change: Change;
  /** Emitted only when something below it changed, or another name of the same file. */
  changed: boolean;
}

/** Collects changes, keeps hard links together and adds the directories that lead to them. */
class ChangeList {
  readonly #found = new Map<ByteString, Found>();
  readonly #links = new Map<string, Found[]>();

  add(change: Change, changed: boolean): void {
    const found = { change, changed };
    // A whiteout and an entry cannot share a path; an opaque mark accompanies its directory.
    this.#found.set(change.kind === 'opaque' ? `${change.path}\0opaque` : change.path, found);
    if (change.kind !== 'entry' || isDirectoryMode(change.stat.mode) || change.stat.nlink < 2) return;
    const key = inodeKey(change.stat);
    const group = this.#links.get(key);
    if (group) group.push(found);
    else this.#links.set(key, [found]);
  }

  finish(): Change[] {
    // A file with a changed name is written with all its names, or the link between them would be lost.
    for (const group of this.#links.values()) {
      if (group.some((found) => found.changed)) for (const found of group) found.changed = true;
    }
    for (const { change, changed } of this.#found.values()) {
      if (!changed) continue;
      for (let cut = change.path.lastIndexOf('/'); cut > 0; cut = change.path.lastIndexOf('/', cut - 1)) {
        const parent = this.#found.get(change.path.slice(0, cut));
        if (!parent || (parent.changed && parent.change.kind === 'entry')) break;
        parent.changed = true;
      }
      if (change.kind !== 'opaque') continue;
      const directory = this.#found.get(change.path);
      if (directory) directory.changed = true;
    }
    const changes = [...this.#found.values()].filter((found) => found.changed).map((found) => found.change);
    const keyed = changes.map((change) => ({ change, key: sortKey(change) }));
    keyed.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
    return keyed.map(({ change }) => change);
  }
}

/** Bytewise by component; a directory's own marks come right after it. */
function sortKey(change: Change): string {
  const path = change.path.replaceAll('/', '\0');
  return change.kind === 'opaque' ? `${path}\0` : path;
}

/** Changes that turn the tree at `lower` (nothing, if undefined) into that at `upper`. */
export function compareTrees(lower: string | undefined, upper: string): Change[] {
  using upperTree = new Tree(upper);
  using lowerTree = new Tree(lower ?? upper);
  const list = new ChangeList();
  /** Directories to compare; `shared`: it is in both. Without recursion, for depth. */
  const todo: { path: ByteString; shared: boolean }[] = [{ path: '', shared: lower !== undefined }];
  for (let next = todo.pop(); next; next = todo.pop()) {
    const { path, shared } = next;
    const names = upperTree.list(path);
    const old = new Set(shared ? lowerTree.list(path) : []);
    for (const name of names) {
      const child = path === '' ? name : `${path}/${name}`;
      const stat = upperTree.stat(path, name);
      if (!stat || isSocket(stat)) continue;
      const before = old.has(name) ? lowerTree.stat(path, name) : undefined;
      old.delete(name);
      const changed = !before || !sameFile(lowerTree, before, upperTree, stat, path, name);
      list.add({ kind: 'entry', path: child, stat }, changed);
      if (!isDirectoryMode(stat.mode)) continue;
      todo.push({ path: child, shared: before !== undefined && isDirectoryMode(before.mode) });
    }
    for (const name of old) list.add({ kind: 'whiteout', path: path === '' ? name : `${path}/${name}` }, true);
  }
  return list.finish();
}

/**
 * Changes that the upper directory of an overlay stands for. @throws UnsupportedUpper if it uses redirects or metadata-only
 * copies: then compare mounts.
 */
export function upperChanges(upper: string): Change[] {
  using tree = new Tree(upper);
  const list = new ChangeList();
  const todo: ByteString[] = [''];
  for (let path = todo.pop(); path !== undefined; path = todo.pop()) {
    for (const name of tree.list(path)) {
      const child = path === '' ? name : `${path}/${name}`;
      const stat = tree.stat(path, name);
      if (!stat || isSocket(stat)) continue;
      if ((stat.mode & S_IFMT) === S_IFCHR && stat.rdevMajor === 0 && stat.rdevMinor === 0) {
        list.add({ kind: 'whiteout', path: child }, true);
        continue;
      }
      list.add({ kind: 'entry', path: child, stat }, true);
      const isDirectory = isDirectoryMode(stat.mode);
      for (const attribute of tree.overlayAttributes(path, name)) {
        if (
          attribute === 'redirect' ||
          attribute === 'metacopy' ||
          attribute === 'whiteout' ||
          attribute === 'whiteouts'
        ) {
          throw new UnsupportedUpper(`${Buffer.from(child, 'latin1')}: overlay attribute ${attribute}`);
        }
        if (attribute === 'opaque' && isDirectory) list.add({ kind: 'opaque', path: child }, true);
      }
      if (isDirectory) todo.push(child);
    }
  }
  return list.finish();
}

function isSocket(stat: FastStat): boolean {
  return (stat.mode & S_IFMT) === 0o140000;
}

/** Identifies a file within one tree. */
export function inodeKey(stat: FastStat): string {
  return `${stat.devMajor}:${stat.devMinor}:${stat.ino}`;
}

/** A directory tree to read from, by descriptors beneath its root. */
export class Tree implements Disposable {
  readonly #dirs: RootedDirectories;

  constructor(root: string) {
    this.#dirs = new RootedDirectories(root);
  }

  directory(path: ByteString): RootedDirectory {
    return this.#dirs.get(path, false);
  }

  list(path: ByteString): ByteString[] {
    const fd = openAt(this.directory(path).fd, '.', Flags.O_DIRECTORY);
    if (fd < 0) throw errnoError(fd, 'open', path);
    try {
      return listNames(fd);
    } finally {
      closeFd(fd);
    }
  }

  /** lstat; undefined if the name is gone. */
  stat(path: ByteString, name: ByteString): FastStat | undefined {
    const stat = statAt(this.directory(path).fd, name);
    if (stat === -ENOENT) return undefined;
    if (typeof stat === 'number') throw errnoError(stat, 'lstat', `${path}/${name}`);
    return stat;
  }

  open(path: ByteString, name: ByteString): number {
    const fd = openAt(this.directory(path).fd, name, Flags.O_NOFOLLOW | Flags.O_NONBLOCK);
    if (fd < 0) throw errnoError(fd, 'open', `${path}/${name}`);
    return fd;
  }

  readlink(path: ByteString, name: ByteString): ByteString {
    const target = readlinkAt(this.directory(path).fd, name);
    if (typeof target === 'number') throw errnoError(target, 'readlink', `${path}/${name}`);
    return target;
  }

  /** Extended attributes a layer keeps, by name in order. */
  xattrs(path: ByteString, name: ByteString): [ByteString, Buffer][] {
    const file = `/proc/self/fd/${this.directory(path).fd}/${name}`;
    const names = listXattrs(file);
    if (names === -ENOTSUP || names === -ENOENT) return [];
    if (typeof names === 'number') throw errnoError(names, 'listxattr', `${path}/${name}`);
    const kept: [ByteString, Buffer][] = [];
    for (const attribute of names) {
      if (!isLayerAttribute(attribute)) continue;
      const value = getXattr(file, attribute);
      if (value === -ENODATA) continue;
      if (typeof value === 'number') throw errnoError(value, `getxattr ${attribute}`, `${path}/${name}`);
      kept.push([attribute, value]);
    }
    return kept;
  }

  /** What overlayfs has noted about a name, without the prefix. */
  overlayAttributes(path: ByteString, name: ByteString): string[] {
    const names = listXattrs(`/proc/self/fd/${this.directory(path).fd}/${name}`);
    if (typeof names === 'number') return [];
    return names.flatMap((attribute) => /^(?:trusted|user)\.overlay\.(.*)$/.exec(attribute)?.[1] ?? []);
  }

  [Symbol.dispose](): void {
    this.#dirs.close();
  }
}

/** Labels of the host's own security modules, and overlayfs's notes, are no part of an image. */
function isLayerAttribute(name: ByteString): boolean {
  if (isOverlayAttribute(name)) return false;
  return name === 'security.capability' || !name.startsWith('security.');
}

function sameFile(
  lowerTree: Tree,
  lower: FastStat,
  upperTree: Tree,
  upper: FastStat,
  path: ByteString,
  name: ByteString,
): boolean {
  if (lower.ino === upper.ino && lower.devMinor === upper.devMinor && lower.devMajor === upper.devMajor) return true;
  if (lower.mode !== upper.mode || lower.uid !== upper.uid || lower.gid !== upper.gid) return false;
  if (lower.rdevMajor !== upper.rdevMajor || lower.rdevMinor !== upper.rdevMinor) return false;
  const kind = upper.mode & S_IFMT;
  if (!isDirectoryMode(upper.mode)) {
    if (lower.size !== upper.size || lower.mtime !== upper.mtime || lower.mtimeNanos !== upper.mtimeNanos) return false;
    if (kind === S_IFLNK && lowerTree.readlink(path, name) !== upperTree.readlink(path, name)) return false;
  }
  if (!sameXattrs(lowerTree.xattrs(path, name), upperTree.xattrs(path, name))) return false;
  // A whole second says that somebody rounded it, and says nothing about the content.
  if (kind !== S_IFREG || upper.size === 0 || upper.mtimeNanos !== 0) return true;
  return sameContent(lowerTree, upperTree, path, name);
}

function sameXattrs(a: [ByteString, Buffer][], b: [ByteString, Buffer][]): boolean {
  if (a.length !== b.length) return false;
  return a.every(([name, value], i) => name === b[i]![0] && value.equals(b[i]![1]));
}

const bufferA = Buffer.allocUnsafeSlow(128 << 10);
const bufferB = Buffer.allocUnsafeSlow(128 << 10);

function sameContent(lowerTree: Tree, upperTree: Tree, path: ByteString, name: ByteString): boolean {
  const a = lowerTree.open(path, name);
  try {
    const b = upperTree.open(path, name);
    try {
      for (let at = 0; ; ) {
        const n = readFull(a, bufferA, at);
        const m = readFull(b, bufferB, at);
        if (n !== m || bufferA.compare(bufferB, 0, n, 0, n) !== 0) return false;
        if (n < bufferA.length) return true;
        at += n;
      }
    } finally {
      closeFd(b);
    }
  } finally {
    closeFd(a);
  }
}

function readFull(fd: number, buffer: Buffer, at: number): number {
  let filled = 0;
  while (filled < buffer.length) {
    const n = readSync(fd, buffer, filled, buffer.length - filled, at + filled);
    if (n === 0) break;
    filled += n;
  }
  return filled;
}
