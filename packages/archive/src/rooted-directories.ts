/**
 * Directories beneath a root, opened once and kept, for unpacking archives nobody trusts. A path is resolved by the kernel with
 * openat2(RESOLVE_IN_ROOT): symbolic links and `..` cannot lead out, however they change meanwhile. Paths are clean
 * byte strings without a leading slash; '' is the root.
 */

import { constants } from 'node:os';
import {
  type ByteString,
  closeFd,
  errnoError,
  Flags,
  getXattr,
  mkdirAt,
  openAt,
  openAt2,
  readlinkAt,
  statAt,
} from '@gantry/sys/fast-at.ts';

const { EEXIST, ELOOP, ENOENT, ENOTDIR, EXDEV } = constants.errno;
const OPEN_DIRECTORY = Flags.O_PATH | Flags.O_DIRECTORY;
/** Longest path given to the kernel in one piece (PATH_MAX is 4096 with its NUL). */
const MAX_PIECE = 4000;
const MAX_OPEN = 128;

export interface RootedDirectory {
  readonly path: ByteString;
  /** O_PATH descriptor, owned by the cache: do not close, do not keep. */
  readonly fd: number;
  /** Whether a new file here gets our own owner and the mode asked for: no setgid bit, no default ACL. */
  readonly plain: boolean;
}

/** Lexically removes `.`, `..` (never above the root), double and leading slashes. */
export function cleanPath(path: ByteString): ByteString {
  if (!/(^|\/)\.{0,2}(\/|$)/.test(path)) return path;
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}

/** Splits a clean path. */
export function splitPath(path: ByteString): [parent: ByteString, base: ByteString] {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? ['', path] : [path.slice(0, slash), path.slice(slash + 1)];
}

export class RootedDirectories {
  readonly rootFd: number;
  readonly #open = new Map<ByteString, RootedDirectory>();
  #last: RootedDirectory | undefined;
  readonly #root: RootedDirectory;
  readonly #onCreate: ((directory: RootedDirectory) => void) | undefined;

  /** `onCreate` is told of each missing directory made on the way. The root's descriptor is opened here. */
  constructor(root: string, onCreate?: (directory: RootedDirectory) => void) {
    const path = Buffer.from(root).toString('latin1');
    const fd = openAt(-100, path, OPEN_DIRECTORY);
    if (fd < 0) throw errnoError(fd, 'open', path);
    this.rootFd = fd;
    this.#root = { path: '', fd, plain: isPlain(fd) };
    this.#onCreate = onCreate;
  }

  /** Opens the directory; with `create`, missing ones are made (mode 0755). @throws an errno error. */
  get(path: ByteString, create: boolean): RootedDirectory {
    if (path === '') return this.#root;
    if (this.#last?.path === path) return this.#last;
    const known = this.#open.get(path);
    if (known) {
      // Keeps the map in order of use.
      this.#open.delete(path);
      this.#open.set(path, known);
      this.#last = known;
      return known;
    }
    let fd = this.#resolve(path);
    if (fd === -ENOENT && create) {
      fd = this.#make(path);
      // A symbolic link to what is not there: its target is made, as containerd does (the link may be ours, the target below us).
      if (fd === -ELOOP || fd === -ENOTDIR) {
        const real = this.#withoutLinks(path);
        if (real === '') return this.#root;
        if (real !== path) fd = this.#resolve(real);
        if (real !== path && fd === -ENOENT) fd = this.#make(real);
      }
    }
    if (fd < 0) throw errnoError(fd, 'open', path);
    return this.#keep(path, fd);
  }

  /** As `get`, but answers undefined if it is not there or is no directory. */
  find(path: ByteString): RootedDirectory | undefined {
    try {
      return this.get(path, false);
    } catch (error) {
      const { errno } = error as NodeJS.ErrnoException;
      if (errno === -ENOENT || errno === -ENOTDIR || errno === -ELOOP) return undefined;
      throw error;
    }
  }

  /** To be called when a directory or symbolic link went away: cached descriptors may be of what is no longer there. */
  forget(): void {
    for (const directory of this.#open.values()) closeFd(directory.fd);
    this.#open.clear();
    this.#last = undefined;
  }

  close(): void {
    this.forget();
    closeFd(this.rootFd);
  }

  #keep(path: ByteString, fd: number): RootedDirectory {
    const directory = { path, fd, plain: isPlain(fd) };
    this.#open.set(path, directory);
    this.#last = directory;
    if (this.#open.size > MAX_OPEN) {
      const [oldest] = this.#open.values();
      closeFd(oldest!.fd);
      this.#open.delete(oldest!.path);
    }
    return directory;
  }

  #resolve(path: ByteString): number {
    // Most often the parent is known, and the directory is a real one: a single component to look up.
    const [parent, base] = splitPath(path);
    const known = parent === '' ? this.#root : this.#open.get(parent);
    if (known) {
      const fd = openAt(known.fd, base, OPEN_DIRECTORY | Flags.O_NOFOLLOW);
      if (fd !== -ENOTDIR && fd !== -ELOOP) return fd;
    }
    if (path.length <= MAX_PIECE) {
      return openAt2(this.rootFd, path, OPEN_DIRECTORY, Flags.RESOLVE_IN_ROOT | Flags.RESOLVE_NO_MAGICLINKS);
    }
    return this.#resolveLong(path);
  }

  /** A path longer than the kernel takes goes in pieces, and may then hold no symbolic links. */
  #resolveLong(path: ByteString): number {
    let fd = this.rootFd;
    let at = 0;
    // Only the nearest: looking up all of ten thousand long names would take longer than walking them.
    for (
      let cut = path.lastIndexOf('/'), tries = 16;
      cut > 0 && tries > 0;
      cut = path.lastIndexOf('/', cut - 1), tries--
    ) {
      const known = this.#open.get(path.slice(0, cut));
      if (known) {
        fd = known.fd;
        at = cut + 1;
        break;
      }
    }
    const start = fd;
    while (at < path.length) {
      let end = path.length - at <= MAX_PIECE ? path.length : path.lastIndexOf('/', at + MAX_PIECE);
      if (end <= at) end = path.length;
      const resolve = Flags.RESOLVE_BENEATH | Flags.RESOLVE_NO_SYMLINKS;
      const next = openAt2(fd, path.slice(at, end), OPEN_DIRECTORY, resolve);
      if (fd !== start) closeFd(fd);
      if (next < 0) return next === -EXDEV ? -ELOOP : next;
      fd = next;
      at = end + 1;
    }
    return fd;
  }

  /** The same place with every symbolic link replaced by its target, which need not exist. @throws ELOOP */
  #withoutLinks(path: ByteString): ByteString {
    let real = '';
    let links = 0;
    const todo = path.split('/').reverse();
    for (let part = todo.pop(); part !== undefined; part = todo.pop()) {
      if (part === '' || part === '.') continue;
      if (part === '..') {
        real = splitPath(real)[0];
        continue;
      }
      const directory = this.find(real);
      const target = directory ? readlinkAt(directory.fd, part) : -ENOENT;
      if (typeof target === 'number') {
        real = real === '' ? part : `${real}/${part}`;
        continue;
      }
      if (++links > 255) throw errnoError(-ELOOP, 'open', path);
      if (target.startsWith('/')) real = '';
      todo.push(...target.split('/').reverse());
    }
    return real;
  }

  /** Makes what is missing of `path`, from the top down without recursion: archives may be ten thousand deep. */
  #make(path: ByteString): number {
    let parent = this.#root;
    for (let end = path.indexOf('/'), start = 0; ; start = end + 1, end = path.indexOf('/', start)) {
      if (end < 0) end = path.length;
      const here = path.slice(0, end);
      const known = this.#open.get(here);
      if (known) {
        if (end === path.length) return openAt(known.fd, '.', OPEN_DIRECTORY);
        parent = known;
        continue;
      }
      const base = path.slice(start, end);
      let fd = openAt(parent.fd, base, OPEN_DIRECTORY | Flags.O_NOFOLLOW);
      const made = fd === -ENOENT;
      if (made) {
        const result = mkdirAt(parent.fd, base, 0o755);
        if (result < 0 && result !== -EEXIST) return result;
        fd = openAt(parent.fd, base, OPEN_DIRECTORY | Flags.O_NOFOLLOW);
      } else if (fd === -ENOTDIR || fd === -ELOOP) {
        fd = this.#resolve(here);
        if (fd === -ENOENT) return -ELOOP;
      }
      if (fd < 0) return fd;
      if (end === path.length && !made) return fd;
      parent = this.#keep(here, fd);
      if (made) this.#onCreate?.(parent);
      if (end === path.length) {
        // The caller keeps it anew.
        this.#open.delete(path);
        this.#last = undefined;
        return fd;
      }
    }
  }
}

function isPlain(fd: number): boolean {
  const stat = statAt(fd, '');
  if (typeof stat === 'number' || stat.mode & 0o2000) return false;
  return typeof getXattr(`/proc/self/fd/${fd}`, 'system.posix_acl_default') === 'number';
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;

/** Whether a mode is a directory's. */
export function isDirectoryMode(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}
