/**
 * Unpacks a layer's entries beneath a root as containerd does: whiteouts, opaque directories, hard links, devices, extended
 * attributes, setuid bits, times of directories at the end. Synchronous; runs in a worker. Two kinds of target: a merged
 * directory, where a whiteout removes, and the upper directory of an overlay, where it becomes the overlay's own mark.
 */

import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import {
  type ByteString,
  chmodAt,
  chownAt,
  closeFd,
  errnoError,
  type FastStat,
  Flags,
  fchmod,
  fchown,
  fsetXattr,
  ftruncate,
  futimens,
  linkAt,
  mkdirAt,
  mknodAt,
  openAt,
  pwriteFd,
  readUmask,
  setXattr,
  shownPath,
  statAt,
  symlinkAt,
  syncFileSystem,
  utimesAt,
} from '@gantry/sys/fast-at.ts';
import { boundTimes, type Times } from './entry-times.ts';
import { isOverlayAttribute, ParentDirectories } from './parent-directories.ts';
import { listNames, removeTree } from './remove-tree.ts';
import {
  cleanPath,
  isDirectoryMode,
  RootedDirectories,
  type RootedDirectory,
  splitPath,
} from './rooted-directories.ts';
import { TarError, type TarHeader } from './tar-header.ts';
import type { TarHandler } from './tar-parser.ts';

const { EEXIST, ENOTSUP, EPERM } = constants.errno;
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
const WHITEOUT_META = '.wh..wh.';
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const S_IFIFO = 0o010000;

export interface ApplyTarget {
  /** The directory to unpack into; must exist. */
  root: string;
  /**
   * `merged`: whiteouts remove names beneath the root. `overlay`: the root is the upper directory of an overlay, and whiteouts
   * and opaque directories are written as overlayfs marks them.
   */
  kind: 'merged' | 'overlay';
  /** For `overlay`: the lower directories, topmost first. A directory that has to be made is like the one they have. */
  parents?: string[];
  /** For `overlay`: marks are `user.overlay.*` attributes (mount option userxattr). */
  userXattr?: boolean;
  /** Leave files to the caller's user, for unprivileged callers. */
  keepOwner?: boolean;
}

export class LayerApplier implements TarHandler {
  readonly #target: ApplyTarget;
  readonly #dirs: RootedDirectories;
  readonly #parents: ParentDirectories;
  readonly #unpacked = new Set<ByteString>();
  readonly #pending = new Map<ByteString, Times>();
  readonly #umask = readUmask();
  readonly #isRoot = process.geteuid?.() === 0 && process.getegid?.() === 0;
  readonly #opaqueAttribute: string;
  /** Entries made. */
  files = 0;
  /** Directories on the way to entries that the layer itself does not have. */
  readonly implied = new Set<ByteString>();
  /** What could not be kept and is no error, such as attributes the file system does not have. */
  readonly warnings: string[] = [];
  #header: TarHeader | undefined;
  #fd = -1;
  #directory: RootedDirectory | undefined;
  #base = '';

  constructor(target: ApplyTarget) {
    this.#target = target;
    this.#opaqueAttribute = target.userXattr ? 'user.overlay.opaque' : 'trusted.overlay.opaque';
    this.#dirs = new RootedDirectories(target.root, (made) => {
      this.implied.add(made.path);
      const into = this.#dirs.get(splitPath(made.path)[0], false);
      const times = this.#parents.copyTo(made, into, target.keepOwner ?? false);
      if (times) this.#pending.set(made.path, times);
    });
    try {
      this.#parents = new ParentDirectories(target.parents ?? []);
    } catch (error) {
      this.#dirs.close();
      throw error;
    }
  }

  entry(header: TarHeader): void {
    this.#header = undefined;
    if (header.path.startsWith('\0')) throw new TarError('invalid tar header: name');
    const path = cleanPath(header.path);
    if (path === '' || header.path.length > 1 << 20) return;
    const [parent, base] = splitPath(path);
    if (base.length > 255) throw errnoError(-constants.errno.ENAMETOOLONG, 'open', path);
    const isMeta = path.startsWith(WHITEOUT_META) && base !== OPAQUE;
    if (isMeta) return;
    const directory = this.#dirs.get(parent, true);
    this.#remember(parent);
    if (base.startsWith(WHITEOUT)) {
      this.#whiteout(directory, parent, base, header);
      return;
    }
    this.#unpacked.add(path);
    this.#header = header;
    this.#directory = directory;
    this.#base = base;
    switch (header.type) {
      case '0':
        this.#createFile(directory, base, header);
        break;
      case '5':
        this.#createDirectory(directory, base, path, header);
        break;
      case '1':
        this.#createLink(directory, base, header);
        break;
      case '2':
        this.#createNode(directory, base, 'symlink', (fd) => symlinkAt(header.linkPath, fd, base));
        break;
      case '3':
        this.#createDevice(directory, base, header, S_IFCHR);
        break;
      case '4':
        this.#createDevice(directory, base, header, S_IFBLK);
        break;
      case '6':
        this.#createDevice(directory, base, header, S_IFIFO);
        break;
      default:
        throw new TarError(`unhandled tar header type ${header.type.charCodeAt(0)}`);
    }
    this.files++;
  }

  data(bytes: Buffer, start: number, end: number, at: number): void {
    if (this.#fd < 0) return;
    if (!this.#header?.sparse) {
      while (start < end) start += writeSync(this.#fd, bytes, start, end - start);
      return;
    }
    while (start < end) {
      const n = pwriteFd(this.#fd, bytes.subarray(start, end), end - start, at);
      if (n < 0) throw errnoError(n, 'pwrite', this.#base);
      start += n;
      at += n;
    }
  }

  entryEnd(): void {
    const header = this.#header;
    if (!header) return;
    this.#header = undefined;
    if (header.type === '0') this.#finishFile(header);
    else if (header.type !== '1') this.#finishNode(header);
  }

  /** Sets the times of directories. With `sync`, waits until the file system is on disk. */
  finish(sync = false): void {
    // Innermost last or first does not matter: setting times does not touch the parent.
    for (const [path, times] of this.#pending) {
      const directory = this.#dirs.find(path);
      if (!directory) continue;
      check(
        utimesAt(directory.fd, '', times.atime, times.atimeNanos, times.mtime, times.mtimeNanos),
        'utimensat',
        path,
      );
    }
    if (sync) {
      const fd = openAt(this.#dirs.rootFd, '.', Flags.O_DIRECTORY);
      check(fd, 'open', '.');
      const result = syncFileSystem(fd);
      closeFd(fd);
      check(result, 'syncfs', '.');
    }
  }

  /** Lets go of all descriptors. What was unpacked stays. */
  close(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
    this.#dirs.close();
    this.#parents.close();
  }

  /** Directories on the way to an entry belong to the layer too, so that an opaque mark after them spares them. */
  #remember(parent: ByteString): void {
    for (let path = parent; path !== '' && !this.#unpacked.has(path); path = splitPath(path)[0]) {
      this.#unpacked.add(path);
    }
  }

  #createFile(directory: RootedDirectory, base: ByteString, header: TarHeader): void {
    const flags = Flags.O_CREAT | Flags.O_EXCL | Flags.O_WRONLY | Flags.O_NOFOLLOW;
    const mode = header.mode & 0o777;
    let fd = openAt(directory.fd, base, flags, mode);
    if (fd === -EEXIST) {
      directory = this.#replace(base);
      fd = openAt(directory.fd, base, flags, mode);
    }
    check(fd, 'open', base);
    this.#fd = fd;
  }

  #finishFile(header: TarHeader): void {
    const fd = this.#fd;
    const plain = this.#directory!.plain && this.#isRoot;
    if (header.sparse) check(ftruncate(fd, header.size), 'ftruncate', header.path);
    const owned = plain && header.uid === 0 && header.gid === 0;
    if (!owned && !this.#target.keepOwner) check(fchown(fd, header.uid, header.gid), 'fchown', header.path);
    if (header.xattrs) {
      for (const [name, value] of header.xattrs) {
        if (this.#wantsXattr(name)) this.#xattrResult(fsetXattr(fd, name, value), name, header);
      }
    }
    if (!plain || header.mode & 0o7000 || header.mode & this.#umask) {
      check(fchmod(fd, header.mode), 'fchmod', header.path);
    }
    const times = boundTimes(header);
    check(futimens(fd, times.atime, times.atimeNanos, times.mtime, times.mtimeNanos), 'futimens', header.path);
    this.#fd = -1;
    check(closeFd(fd), 'close', header.path);
  }

  #createDirectory(directory: RootedDirectory, base: ByteString, path: ByteString, header: TarHeader): void {
    this.implied.delete(path);
    let result = mkdirAt(directory.fd, base, header.mode & 0o777);
    if (result === -EEXIST) {
      const existing = statAt(directory.fd, base);
      if (typeof existing === 'number') throw errnoError(existing, 'lstat', path);
      if (isDirectoryMode(existing.mode)) {
        result = 0;
      } else {
        const hides = this.#target.kind === 'overlay' && isOverlayWhiteout(existing);
        const parent = this.#replace(base);
        result = mkdirAt(parent.fd, base, header.mode & 0o777);
        // The name was hidden below, and must not shine through the new directory.
        if (result >= 0 && hides) this.#setOpaque(parent, base);
      }
    }
    check(result, 'mkdir', path);
    this.#pending.set(path, boundTimes(header));
  }

  #createLink(directory: RootedDirectory, base: ByteString, header: TarHeader): void {
    const target = cleanPath(header.linkPath);
    if (target === '') throw errnoError(-EPERM, 'link', header.linkPath);
    const [targetParent, targetBase] = splitPath(target);
    const from = this.#dirs.get(targetParent, false);
    // Opening the target's folder may have closed the entry's.
    directory = this.#dirs.get(directory.path, true);
    let result = linkAt(from.fd, targetBase, directory.fd, base);
    if (result === -EEXIST) {
      const a = statAt(from.fd, targetBase);
      const b = statAt(directory.fd, base);
      const same =
        typeof a !== 'number' &&
        typeof b !== 'number' &&
        a.ino === b.ino &&
        a.devMinor === b.devMinor &&
        a.devMajor === b.devMajor;
      if (same) {
        result = 0;
      } else {
        const into = this.#replace(base);
        result = linkAt(this.#dirs.get(targetParent, false).fd, targetBase, into.fd, base);
      }
    }
    check(result, 'link', header.path);
    this.#finishLink(this.#dirs.get(directory.path, true), base, header);
  }

  /** A link's header may differ from the target's: only then is anything set, since a chown would drop file capabilities. */
  #finishLink(directory: RootedDirectory, base: ByteString, header: TarHeader): void {
    const stat = statAt(directory.fd, base);
    if (typeof stat === 'number') throw errnoError(stat, 'lstat', header.path);
    const foreign = stat.uid !== header.uid || stat.gid !== header.gid;
    if (foreign && !this.#target.keepOwner) {
      check(chownAt(directory.fd, base, header.uid, header.gid), 'fchownat', header.path);
    }
    if ((stat.mode & S_IFMT) !== S_IFLNK && (foreign || (stat.mode & 0o7777) !== header.mode)) {
      check(chmodAt(directory.fd, base, header.mode), 'fchmodat', header.path);
    }
    const times = boundTimes(header);
    if (stat.mtime !== times.mtime || stat.mtimeNanos !== times.mtimeNanos) {
      this.#setTimes(directory, base, header);
    }
  }

  #createDevice(directory: RootedDirectory, base: ByteString, header: TarHeader, kind: number): void {
    const mode = kind | (header.mode & 0o777);
    this.#createNode(directory, base, 'mknod', (fd) => mknodAt(fd, base, mode, header.devMajor, header.devMinor));
  }

  #createNode(directory: RootedDirectory, base: ByteString, call: string, make: (fd: number) => number): void {
    let result = make(directory.fd);
    if (result === -EEXIST) result = make(this.#replace(base).fd);
    check(result, call, base);
  }

  #finishNode(header: TarHeader): void {
    const base = this.#base;
    const directory = this.#dirs.get(this.#directory!.path, true);
    if (!this.#target.keepOwner) check(chownAt(directory.fd, base, header.uid, header.gid), 'fchownat', header.path);
    for (const [name, value] of header.xattrs ?? []) {
      if (!this.#wantsXattr(name)) continue;
      this.#xattrResult(setXattr(`/proc/self/fd/${directory.fd}/${base}`, name, value), name, header);
    }
    if (header.type !== '2') check(chmodAt(directory.fd, base, header.mode), 'fchmodat', header.path);
    if (header.type !== '5') this.#setTimes(directory, base, header);
  }

  #setTimes(directory: RootedDirectory, base: ByteString, header: TarHeader): void {
    const times = boundTimes(header);
    check(
      utimesAt(directory.fd, base, times.atime, times.atimeNanos, times.mtime, times.mtimeNanos),
      'utimensat',
      header.path,
    );
  }

  /** Removes what is in the way of the current entry. Answers its directory, opened anew if need be. */
  #replace(base: ByteString): RootedDirectory {
    const directory = this.#directory!;
    const existing = statAt(directory.fd, base);
    const kind = typeof existing === 'number' ? 0 : existing.mode & S_IFMT;
    removeTree(directory.fd, base);
    if (kind === S_IFREG) return directory;
    this.#dirs.forget();
    this.#directory = this.#dirs.get(directory.path, true);
    return this.#directory;
  }

  #whiteout(directory: RootedDirectory, parent: ByteString, base: ByteString, header: TarHeader): void {
    if (base === OPAQUE) {
      if (this.#target.kind === 'overlay') {
        if (parent !== '') this.#markOpaque(directory);
      } else {
        this.#clearDirectory(parent);
      }
      return;
    }
    const name = base.slice(WHITEOUT.length);
    if (name === '' || name === '.' || name === '..') throw new TarError(`invalid whiteout name ${shownPath(base)}`);
    if (this.#target.kind === 'merged') {
      removeTree(directory.fd, name);
      this.#dirs.forget();
      return;
    }
    const path = parent === '' ? name : `${parent}/${name}`;
    const result = mknodAt(directory.fd, name, S_IFCHR, 0, 0);
    if (result === -EEXIST) {
      const existing = statAt(directory.fd, name);
      if (typeof existing === 'number') throw errnoError(existing, 'lstat', path);
      // A whiteout is about the layers below: what this layer itself has stays, and a directory of it hides the one below.
      if (this.#unpacked.has(path)) {
        if (isDirectoryMode(existing.mode)) this.#setOpaque(directory, name);
        return;
      }
      removeTree(directory.fd, name);
      this.#dirs.forget();
      check(mknodAt(this.#dirs.get(parent, true).fd, name, S_IFCHR, 0, 0), 'mknod', path);
      directory = this.#dirs.get(parent, true);
    } else {
      check(result, 'mknod', path);
    }
    if (!this.#target.keepOwner) check(chownAt(directory.fd, name, header.uid, header.gid), 'fchownat', path);
  }

  #markOpaque(directory: RootedDirectory): void {
    const result = setXattr(`/proc/self/fd/${directory.fd}/.`, this.#opaqueAttribute, Buffer.from('y'));
    check(result, 'setxattr', directory.path);
  }

  #setOpaque(directory: RootedDirectory, base: ByteString): void {
    const path = directory.path === '' ? base : `${directory.path}/${base}`;
    this.#markOpaque(this.#dirs.get(path, false));
  }

  /** Merged target: removes from a directory all that is not this layer's own. Without recursion, for depth. */
  #clearDirectory(start: ByteString): void {
    const queue: ByteString[] = [start];
    for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
      const directory = this.#dirs.get(path, false);
      const fd = openAt(directory.fd, '.', Flags.O_DIRECTORY);
      check(fd, 'open', path);
      try {
        for (const name of listNames(fd)) {
          const child = path === '' ? name : `${path}/${name}`;
          if (!this.#unpacked.has(child)) {
            removeTree(fd, name);
            continue;
          }
          const stat = statAt(fd, name);
          if (typeof stat !== 'number' && isDirectoryMode(stat.mode)) queue.push(child);
        }
      } finally {
        closeFd(fd);
      }
    }
    this.#dirs.forget();
  }

  /** Attributes that an overlay reads as its own are nothing a layer may set in an upper directory. */
  #wantsXattr(name: ByteString): boolean {
    return this.#target.kind === 'merged' || !isOverlayAttribute(name);
  }

  #xattrResult(result: number, name: ByteString, header: TarHeader): void {
    if (result >= 0) return;
    const lenient =
      result === -ENOTSUP ||
      (result === -EPERM && name.startsWith('user.') && header.type !== '0' && header.type !== '5');
    if (!lenient) throw errnoError(result, `setxattr ${shownPath(name)}`, header.path);
    if (this.warnings.length < 20) this.warnings.push(`ignored xattr ${shownPath(name)} in archive: not supported`);
  }
}

function isOverlayWhiteout(stat: FastStat): boolean {
  return (stat.mode & S_IFMT) === S_IFCHR && stat.rdevMajor === 0 && stat.rdevMinor === 0;
}

function check(result: number, syscall: string, path: ByteString): void {
  if (result < 0) throw errnoError(result, syscall, path);
}
