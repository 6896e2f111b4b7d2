import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import { aborted, failedPrecondition, invalidArgument, StatusError } from '@gantry/api';
import {
  type ByteString,
  chmodAt,
  chownAt,
  closeFd,
  Flags,
  fchmod,
  fchown,
  ftruncate,
  futimens,
  linkAt,
  mkdirAt,
  mknodAt,
  openAt,
  openAt2,
  pwriteFd,
  shownPath,
  statAt,
  symlinkAt,
  unlinkAt,
  utimesAt,
} from '@gantry/sys/fast-at.ts';
import { boundTimes } from '../entry-times.ts';
import { cleanPath, splitPath } from '../rooted-directories.ts';
import type { TarHeader } from '../tar-header.ts';
import type { TarHandler } from '../tar-parser.ts';
import { type IdMaps, outsideId } from './id-maps.ts';
import { checked, failure } from './rooted-path.ts';

const { EBUSY, EEXIST, ENOENT, EXDEV } = constants.errno;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFIFO = 0o010000;

export interface TreeUnpackerTarget {
  /** Descriptor of the directory to unpack into. Closed with the unpacker. */
  directory: number;
  /** The directory is the tree's root: absolute links in it lead where they do for who lives in the tree. */
  isRoot: boolean;
  preserveOwnership?: boolean;
  ids?: IdMaps;
  rename?: { from: ByteString; to: ByteString };
}

/**
 * Writes an archive's entries below a directory and nowhere else: names are looked up beneath it by the kernel, so no `..`, no link that was
 * there and none that the archive brought leads out. What is in an entry's way is replaced, but a directory only by a directory.
 */
export class TreeUnpacker implements TarHandler {
  readonly #target: TreeUnpackerTarget;
  readonly #resolve: number;
  /** Directories whose times are to be set at the end: what is written into them changes them. */
  readonly #times: { path: ByteString; header: TarHeader }[] = [];
  #header: TarHeader | undefined;
  #path = '';
  #fd = -1;

  constructor(target: TreeUnpackerTarget) {
    this.#target = target;
    this.#resolve = Flags.RESOLVE_NO_MAGICLINKS | (target.isRoot ? Flags.RESOLVE_IN_ROOT : Flags.RESOLVE_BENEATH);
  }

  entry(header: TarHeader): void {
    this.#header = undefined;
    if (header.path.includes('\0')) throw invalidArgument('a name in the archive has a zero byte');
    const path = this.#renamed(cleanPath(header.path));
    if (path === '') return;
    const [parent, base] = splitPath(path);
    this.#path = path;
    const fd = this.#directory(parent, true);
    try {
      switch (header.type) {
        case '0':
          this.#createFile(fd, base, header);
          break;
        case '1':
          this.#createLink(fd, base, header);
          break;
        case '2':
          this.#create(fd, base, 'symlink', () => symlinkAt(header.linkPath, fd, base));
          this.#own(fd, base, header);
          this.#setTimes(fd, base, header);
          break;
        case '5':
          this.#createDirectory(fd, base, header);
          break;
        case '6':
          this.#create(fd, base, 'mknod', () => mknodAt(fd, base, S_IFIFO | (header.mode & 0o777), 0, 0));
          this.#setMode(fd, base, S_IFIFO, header);
          break;
        default:
          throw invalidArgument(
            `/${shownPath(path)}: entries of type ${JSON.stringify(header.type)} cannot be copied in`,
          );
      }
    } finally {
      closeFd(fd);
    }
  }

  data(bytes: Buffer, start: number, end: number, at: number): void {
    if (this.#fd < 0) return;
    try {
      while (start < end) {
        const count = this.#header?.sparse
          ? checked(pwriteFd(this.#fd, bytes.subarray(start, end), end - start, at), 'pwrite', this.#path)
          : writeSync(this.#fd, bytes, start, end - start);
        start += count;
        at += count;
      }
    } catch (error) {
      throw StatusError.wrap(error, `write /${shownPath(this.#path)}`);
    }
  }

  entryEnd(): void {
    const header = this.#header;
    const fd = this.#fd;
    this.#header = undefined;
    this.#fd = -1;
    if (!header || fd < 0) return;
    try {
      if (header.sparse) checked(ftruncate(fd, header.size), 'ftruncate', this.#path);
      const { uid, gid } = this.#ownerOf(header);
      checked(fchown(fd, uid, gid), 'fchown', this.#path);
      checked(fchmod(fd, header.mode), 'fchmod', this.#path);
      const times = boundTimes(header);
      checked(futimens(fd, times.atime, times.atimeNanos, times.mtime, times.mtimeNanos), 'futimens', this.#path);
    } finally {
      closeFd(fd);
    }
  }

  /** Sets the times of directories. */
  finish(): void {
    for (const { path, header } of this.#times) {
      const fd = this.#open(path);
      if (fd < 0) continue;
      this.#setTimes(fd, '', header);
      closeFd(fd);
    }
  }

  close(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
    closeFd(this.#target.directory);
  }

  #renamed(path: ByteString): ByteString {
    const { from, to } = this.#target.rename ?? { from: '', to: '' };
    if (from === '' || (path !== from && !path.startsWith(`${from}/`))) return path;
    return to + path.slice(from.length);
  }

  #open(path: ByteString): number {
    return openAt2(this.#target.directory, path === '' ? '.' : path, Flags.O_PATH | Flags.O_DIRECTORY, this.#resolve);
  }

  /** A directory on the way to an entry; with `make`, made if it is missing. */
  #directory(path: ByteString, make: boolean): number {
    const found = this.#open(path);
    if (found === -EXDEV) throw invalidArgument(`/${shownPath(path)}: a link leads out of the destination`);
    if (found !== -ENOENT || !make || path === '') return checked(found, 'open', path);
    const [parent, base] = splitPath(path);
    const above = this.#directory(parent, true);
    try {
      const made = mkdirAt(above, base, 0o755);
      if (made < 0 && made !== -EEXIST) throw failure(made, 'mkdir', path);
      if (made >= 0) this.#ownAs(above, base, this.#root());
    } finally {
      closeFd(above);
    }
    return checked(this.#open(path), 'open', path);
  }

  #createFile(fd: number, base: ByteString, header: TarHeader): void {
    const flags = Flags.O_CREAT | Flags.O_EXCL | Flags.O_WRONLY | Flags.O_NOFOLLOW;
    let file = openAt(fd, base, flags, 0o600);
    if (file === -EEXIST) {
      const removed = this.#remove(fd, base);
      // A file that is mounted over this name cannot be removed: it gets the bytes.
      if (removed === -EBUSY) file = this.#truncated(fd, base);
      else file = openAt(fd, base, flags, 0o600);
    }
    this.#fd = checked(file, 'open', this.#path);
    this.#header = header;
  }

  #truncated(fd: number, base: ByteString): number {
    const file = openAt(fd, base, Flags.O_WRONLY | Flags.O_NOFOLLOW | Flags.O_NONBLOCK);
    if (file >= 0) checked(ftruncate(file, 0), 'ftruncate', this.#path);
    return file;
  }

  #createDirectory(fd: number, base: ByteString, header: TarHeader): void {
    let made = mkdirAt(fd, base, 0o700);
    if (made === -EEXIST) {
      const found = statAt(fd, base);
      if (typeof found !== 'number' && (found.mode & S_IFMT) === S_IFDIR) return;
      // A link to a directory is as good as one.
      const through = this.#open(this.#path);
      if (through >= 0) {
        closeFd(through);
        return;
      }
      checked(this.#remove(fd, base), 'unlink', this.#path);
      made = mkdirAt(fd, base, 0o700);
    }
    checked(made, 'mkdir', this.#path);
    this.#setMode(fd, base, S_IFDIR, header);
    this.#times.push({ path: this.#path, header });
  }

  #createLink(fd: number, base: ByteString, header: TarHeader): void {
    const target = this.#renamed(cleanPath(header.linkPath));
    if (target === '') throw invalidArgument(`/${shownPath(this.#path)}: a hard link to nothing`);
    const [parent, name] = splitPath(target);
    const from = this.#directory(parent, false);
    try {
      const found = statAt(from, name);
      if (typeof found === 'number') throw failure(found, 'link', target);
      const there = statAt(fd, base);
      const same =
        typeof there !== 'number' &&
        there.ino === found.ino &&
        there.devMajor === found.devMajor &&
        there.devMinor === found.devMinor;
      if (!same) this.#create(fd, base, 'link', () => linkAt(from, name, fd, base));
    } finally {
      closeFd(from);
    }
  }

  #create(fd: number, base: ByteString, call: string, make: () => number): void {
    let made = make();
    if (made === -EEXIST) {
      checked(this.#remove(fd, base), 'unlink', this.#path);
      made = make();
    }
    checked(made, call, this.#path);
  }

  /** Removes what is in an entry's way. @throws StatusError FailedPrecondition for a directory */
  #remove(fd: number, base: ByteString): number {
    const found = statAt(fd, base);
    if (typeof found !== 'number' && (found.mode & S_IFMT) === S_IFDIR)
      throw failedPrecondition(`/${shownPath(this.#path)} is a directory, and cannot be replaced by something else`);
    return unlinkAt(fd, base);
  }

  #root(): { uid: number; gid: number } {
    const { ids } = this.#target;
    return { uid: outsideId(ids?.uid, 0), gid: outsideId(ids?.gid, 0) };
  }

  #ownerOf(header: TarHeader): { uid: number; gid: number } {
    const { ids, preserveOwnership } = this.#target;
    if (!preserveOwnership) return this.#root();
    return { uid: outsideId(ids?.uid, header.uid), gid: outsideId(ids?.gid, header.gid) };
  }

  #own(fd: number, base: ByteString, header: TarHeader): void {
    this.#ownAs(fd, base, this.#ownerOf(header));
  }

  /** Owner and mode of what was just made. By a descriptor: somebody in the tree may have put a link there, and a mode goes through links. */
  #setMode(fd: number, base: ByteString, kind: number, header: TarHeader): void {
    const made = checked(openAt(fd, base, Flags.O_PATH | Flags.O_NOFOLLOW), 'open', this.#path);
    try {
      const found = statAt(made, '');
      if (typeof found === 'number' || (found.mode & S_IFMT) !== kind)
        throw aborted(`/${shownPath(this.#path)} was replaced while it was made`);
      const file = `/proc/self/fd/${made}`;
      const { uid, gid } = this.#ownerOf(header);
      checked(chownAt(made, '', uid, gid), 'fchownat', this.#path);
      checked(chmodAt(made, file, header.mode), 'fchmodat', this.#path);
    } finally {
      closeFd(made);
    }
  }

  #ownAs(fd: number, base: ByteString, { uid, gid }: { uid: number; gid: number }): void {
    checked(chownAt(fd, base, uid, gid), 'fchownat', this.#path);
  }

  #setTimes(fd: number, base: ByteString, header: TarHeader): void {
    const times = boundTimes(header);
    checked(utimesAt(fd, base, times.atime, times.atimeNanos, times.mtime, times.mtimeNanos), 'utimensat', this.#path);
  }
}
