/** Files and directories by descriptor: nothing here follows a path that somebody else can change under us unless told to. */
import { readdirSync, readlinkSync, readSync } from 'node:fs';
import { rmdir, unlink } from 'node:fs/promises';
import { AT, AT_FDCWD, O, RESOLVE } from './constants.ts';
import { hasErrno } from './error.ts';
import { check, cstring, isArm64, lastErrno, native, type Path, sysError } from './libc.ts';

/** A moment as the kernel keeps it. */
export interface FileTime {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** What statx(2) says; sizes and inode numbers are bigint because they need 64 bits. */
export interface FileStat {
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  ino: bigint;
  size: bigint;
  /** 512-byte blocks. */
  blocks: bigint;
  blksize: number;
  atime: FileTime;
  mtime: FileTime;
  ctime: FileTime;
  rdevMajor: number;
  rdevMinor: number;
  devMajor: number;
  devMinor: number;
  /** Kernel's mount id, where it tells one (Linux 5.8). */
  mountId: bigint;
}

const openat2Call = native('syscall', ['long', 'int', 'ptr', 'ptr', 'size_t'], 'long');
const openatCall = native('openat', ['int', 'ptr', 'int', 'uint']);
const statxCall = native('syscall', ['long', 'int', 'ptr', 'int', 'uint', 'ptr'], 'long');
const mkdiratCall = native('mkdirat', ['int', 'ptr', 'uint']);
const unlinkatCall = native('unlinkat', ['int', 'ptr', 'int']);
const symlinkatCall = native('symlinkat', ['ptr', 'int', 'ptr']);
const linkatCall = native('linkat', ['int', 'ptr', 'int', 'ptr', 'int']);
const mknodatCall = native('syscall', ['long', 'int', 'ptr', 'uint', 'uint64_t'], 'long');
const renameat2Call = native('syscall', ['long', 'int', 'ptr', 'int', 'ptr', 'uint'], 'long');
const readlinkatCall = native('readlinkat', ['int', 'ptr', 'ptr', 'size_t'], 'long');
const fchownatCall = native('fchownat', ['int', 'ptr', 'uint', 'uint', 'int']);
const fchmodatCall = native('fchmodat', ['int', 'ptr', 'uint', 'int']);
const utimensatCall = native('utimensat', ['int', 'ptr', 'ptr', 'int']);
const getdentsCall = native('syscall', ['long', 'int', 'ptr', 'size_t'], 'long');
const syncfsCall = native('syncfs', ['int']);
const syncCall = native('syscall', ['long'], 'long');
const fsyncCall = native('fsync', ['int']);
const fallocateCall = native('fallocate', ['int', 'int', 'int64_t', 'int64_t']);
const ioctlInt = native('ioctl', ['int', 'ulong', 'long']);
const ioctlPtr = native('ioctl', ['int', 'ulong', 'ptr']);
const fcntlCall = native('fcntl', ['int', 'int', 'long']);
const closeCall = native('close', ['int']);
const statfsCall = native('statfs', ['ptr', 'ptr']);
const fstatfsCall = native('fstatfs', ['int', 'ptr']);

/**
 * openat2(2). `resolve` is a sum of RESOLVE; O_CLOEXEC is added. EAGAIN (a rename raced with `..` under IN_ROOT) is tried
 * again a few times, as the manual advises.
 */
export function openat2(
  dirfd: number,
  path: Path,
  how: { flags?: number | undefined; mode?: number | undefined; resolve?: number | undefined } = {},
): number {
  const struct = Buffer.alloc(24);
  struct.writeBigUInt64LE(BigInt(((how.flags ?? 0) | O.CLOEXEC) >>> 0), 0);
  struct.writeBigUInt64LE(BigInt(how.mode ?? 0), 8);
  struct.writeBigUInt64LE(BigInt(how.resolve ?? 0), 16);
  const name = cstring(path);
  for (let attempt = 0; ; attempt++) {
    const fd = openat2Call(437, dirfd, name, struct, 24);
    if (fd >= 0) return fd;
    const errno = lastErrno();
    if (errno !== 4 && (errno !== 11 || attempt >= 32)) throw sysError('openat2', errno, path);
  }
}

/** Opens a path as a process whose root is `rootFd` would: absolute links and `..` stay inside. */
export function openInRoot(rootFd: number, path: Path, flags: number, mode?: number): number {
  return openat2(rootFd, path, { flags, mode, resolve: RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS });
}

export function openat(dirfd: number, path: Path, flags: number, mode = 0): number {
  return check('openat', openatCall(dirfd, cstring(path), flags | O.CLOEXEC, mode), path);
}

/** For descriptors of this room; also closes those that Node did not open. */
export function close(fd: number): void {
  check('close', closeCall(fd));
}

/** statx(2), by default of the name itself and not of what a link points to; `''` with AT.EMPTY_PATH is the descriptor. */
export function fstatat(fd: number, name: Path, flags: number = AT.SYMLINK_NOFOLLOW): FileStat {
  const buffer = Buffer.alloc(256);
  check('statx', statxCall(isArm64 ? 291 : 332, fd, cstring(name), flags, 0x17ff, buffer), name);
  const time = (offset: number): FileTime => ({
    seconds: buffer.readBigInt64LE(offset),
    nanos: buffer.readUInt32LE(offset + 8),
  });
  return {
    blksize: buffer.readUInt32LE(4),
    nlink: buffer.readUInt32LE(16),
    uid: buffer.readUInt32LE(20),
    gid: buffer.readUInt32LE(24),
    mode: buffer.readUInt16LE(28),
    ino: buffer.readBigUInt64LE(32),
    size: buffer.readBigUInt64LE(40),
    blocks: buffer.readBigUInt64LE(48),
    atime: time(64),
    ctime: time(96),
    mtime: time(112),
    rdevMajor: buffer.readUInt32LE(128),
    rdevMinor: buffer.readUInt32LE(132),
    devMajor: buffer.readUInt32LE(136),
    devMinor: buffer.readUInt32LE(140),
    mountId: buffer.readBigUInt64LE(144),
  };
}

export function mkdirat(fd: number, name: Path, mode = 0o755): void {
  check('mkdirat', mkdiratCall(fd, cstring(name), mode), name);
}

/** `flags`: AT.REMOVEDIR for a directory. */
export function unlinkat(fd: number, name: Path, flags = 0): void {
  check('unlinkat', unlinkatCall(fd, cstring(name), flags), name);
}

/**
 * The same off the main thread: a filesystem that is mounted with `discard` answers when the disk has discarded the blocks. Node's own
 * calls, which wait in line: what is removed may be much at once.
 */
export async function unlinkatAsync(fd: number, name: Path, flags = 0): Promise<void> {
  const file = Buffer.concat([
    Buffer.from(`/proc/self/fd/${fd}/`),
    typeof name === 'string' ? Buffer.from(name) : name,
  ]);
  await (flags & AT.REMOVEDIR ? rmdir(file) : unlink(file));
}

export function symlinkat(target: Path, fd: number, name: Path): void {
  check('symlinkat', symlinkatCall(cstring(target), fd, cstring(name)), name);
}

export function linkat(oldFd: number, oldName: Path, newFd: number, newName: Path, flags = 0): void {
  check('linkat', linkatCall(oldFd, cstring(oldName), newFd, cstring(newName), flags), newName);
}

/** A device number as the kernel packs it. */
export function makedev(major: number, minor: number): bigint {
  const high = (BigInt(major) & 0xfffff000n) << 32n;
  const low = (BigInt(major) & 0xfffn) << 8n;
  return high | low | ((BigInt(minor) & 0xffffff00n) << 12n) | (BigInt(minor) & 0xffn);
}

/** `mode` carries the type (S.IFCHR, …) and permissions; `device` from makedev. */
export function mknodat(fd: number, name: Path, mode: number, device: bigint | number = 0): void {
  check('mknodat', mknodatCall(isArm64 ? 33 : 259, fd, cstring(name), mode, device), name);
}

/** `flags`: RENAME.NOREPLACE, EXCHANGE or WHITEOUT. */
export function renameat2(oldFd: number, oldName: Path, newFd: number, newName: Path, flags = 0): void {
  check(
    'renameat2',
    renameat2Call(isArm64 ? 276 : 316, oldFd, cstring(oldName), newFd, cstring(newName), flags),
    newName,
  );
}

export function readlinkat(fd: number, name: Path): Buffer {
  const buffer = Buffer.alloc(4096);
  const length = check('readlinkat', readlinkatCall(fd, cstring(name), buffer, buffer.length), name);
  return buffer.subarray(0, length);
}

export function fchownat(fd: number, name: Path, uid: number, gid: number, flags: number = AT.SYMLINK_NOFOLLOW): void {
  check('fchownat', fchownatCall(fd, cstring(name), uid, gid, flags), name);
}

/** Follows a link unless AT.SYMLINK_NOFOLLOW (then a link is ENOTSUP: Linux has no modes of links). */
export function fchmodat(fd: number, name: Path, mode: number, flags = 0): void {
  check('fchmodat', fchmodatCall(fd, cstring(name), mode, flags), name);
}

/** Sets both times to the nanosecond; undefined leaves one as it is. */
export function utimensat(
  fd: number,
  name: Path,
  atime: FileTime | undefined,
  mtime: FileTime | undefined,
  flags: number = AT.SYMLINK_NOFOLLOW,
): void {
  const spec = Buffer.alloc(32);
  [atime, mtime].forEach((time, index) => {
    spec.writeBigInt64LE(time?.seconds ?? 0n, index * 16);
    spec.writeBigInt64LE(BigInt(time?.nanos ?? 0x3ffffffe), index * 16 + 8);
  });
  check('utimensat', utimensatCall(fd, cstring(name), spec, flags), name);
}

/** One entry of a directory; `type` is DT_*: 4 directory, 8 file, 10 link, 2/6 device, 1 FIFO, 12 socket, 0 not told. */
export interface DirEntry {
  name: Buffer;
  type: number;
}

export const DT = { UNKNOWN: 0, FIFO: 1, CHR: 2, DIR: 4, BLK: 6, REG: 8, LNK: 10, SOCK: 12 } as const;

/** The next entries of an open directory, without `.` and `..`; undefined at its end. `size` bounds how many at once. */
export function readdirSome(fd: number, size = 32768): DirEntry[] | undefined {
  const buffer = Buffer.alloc(size);
  const length = check('getdents64', getdentsCall(isArm64 ? 61 : 217, fd, buffer, buffer.length));
  if (length === 0) return undefined;
  const entries: DirEntry[] = [];
  for (let at = 0; at < length; at += buffer.readUInt16LE(at + 16)) {
    const name = buffer.subarray(at + 19, buffer.indexOf(0, at + 19));
    if (name.equals(dot) || name.equals(dotDot)) continue;
    entries.push({ name, type: buffer[at + 18]! });
  }
  return entries;
}

const dot = Buffer.from('.');
const dotDot = Buffer.from('..');

/** All entries from where the descriptor stands (a fresh one: all of the directory). */
export function readdirFd(fd: number): DirEntry[] {
  const all: DirEntry[] = [];
  for (let some = readdirSome(fd); some; some = readdirSome(fd)) all.push(...some);
  return all;
}

export function mkfifo(path: Path, mode: number): void {
  mknodat(AT_FDCWD, path, 0o010000 | mode);
}

/** Writes out the whole filesystem of a descriptor, off the main thread. */
export async function syncfs(fd: number): Promise<void> {
  await syncfsCall.wait('syncfs', undefined, fd);
}

/** sync(2): every filesystem, also those that are mounted in other mount namespaces only. Waits until all is written. */
export async function syncAll(): Promise<void> {
  await syncCall.wait('sync', undefined, isArm64 ? 81 : 162);
}

export async function fsync(fd: number): Promise<void> {
  await fsyncCall.wait('fsync', undefined, fd);
}

export function fallocate(fd: number, mode: number, offset: number | bigint, length: number | bigint): void {
  check('fallocate', fallocateCall(fd, mode, offset, length));
}

/** The same off the main thread. */
export async function fallocateAsync(fd: number, mode: number, offset: number, length: number): Promise<void> {
  await fallocateCall.wait('fallocate', undefined, fd, mode, offset, length);
}

/** Makes `dst` share all of `src`'s extents (btrfs, XFS); EOPNOTSUPP or EXDEV where it cannot. */
export function ioctlFiClone(dst: number, src: number): void {
  check('ioctl FICLONE', ioctlInt(dst, 0x40049409, src));
}

/** Any other ioctl(2): a number or a Buffer as its argument. */
export function ioctl(fd: number, request: number, argument: number | Buffer): number {
  return check(
    'ioctl',
    typeof argument === 'number' ? ioctlInt(fd, request, argument) : ioctlPtr(fd, request, argument),
  );
}

export function fcntl(fd: number, command: number, argument = 0): number {
  return check('fcntl', fcntlCall(fd, command, argument));
}

/** A second descriptor of the same open file, close-on-exec, numbered `least` or above. */
export function dupFd(fd: number, least = 3): number {
  return fcntl(fd, 1030, least);
}

/** O_NONBLOCK of the open file (shared with everybody who has it). */
export function setNonblocking(fd: number, on: boolean): void {
  const flags = fcntl(fd, 3);
  fcntl(fd, 4, on ? flags | O.NONBLOCK : flags & ~O.NONBLOCK);
}

/** A fresh open file of what a descriptor names, with flags of its own. */
export function reopen(fd: number, flags: number): number {
  return openat(AT_FDCWD, `/proc/self/fd/${fd}`, flags);
}

/** Reads all of a small file by descriptor from its start. */
export function readFd(fd: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const part = Buffer.alloc(65536);
    const length = readSync(fd, part, 0, part.length, at);
    if (length === 0) return Buffer.concat(parts);
    parts.push(part.subarray(0, length));
    at += length;
  }
}

/** What statfs(2) says; `type` is the filesystem's magic number (see FS_MAGIC). */
export interface FsStat {
  type: number;
  blockSize: number;
  blocks: bigint;
  free: bigint;
  available: bigint;
  files: bigint;
  filesFree: bigint;
  nameLength: number;
  flags: number;
}

export const FS_MAGIC = {
  OVERLAY: 0x794c7630,
  BTRFS: 0x9123683e,
  XFS: 0x58465342,
  EXT4: 0xef53,
  TMPFS: 0x01021994,
  CGROUP: 0x27e0eb,
  CGROUP2: 0x63677270,
  EROFS: 0xe0f5e1e2,
  ZFS: 0x2fc12fc1,
  NFS: 0x6969,
  NSFS: 0x6e736673,
} as const;

export function statfs(path: Path | number): FsStat {
  const buffer = Buffer.alloc(128);
  if (typeof path === 'number') check('fstatfs', fstatfsCall(path, buffer));
  else check('statfs', statfsCall(cstring(path), buffer), path);
  const word = (index: number) => buffer.readBigUInt64LE(index * 8);
  return {
    type: Number(word(0) & 0xffffffffn),
    blockSize: Number(word(1)),
    blocks: word(2),
    free: word(3),
    available: word(4),
    files: word(5),
    filesFree: word(6),
    nameLength: Number(word(8)),
    flags: Number(word(10)),
  };
}

/** ioctl(2) off the main thread, for requests that can wait. */
export async function ioctlAsync(fd: number, request: number, argument: number | Buffer): Promise<number> {
  const call = typeof argument === 'number' ? ioctlInt : ioctlPtr;
  return call.wait('ioctl', undefined, fd, request, argument);
}

/** Keeps descriptors that a library opened on files whose path begins so from the programs that this process starts. */
export function closeOnExec(prefix: string): void {
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`).startsWith(prefix)) fcntl(Number(fd), 2, 1); // F_SETFD, FD_CLOEXEC
    } catch (error) {
      // The one by which the list was read is gone already.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' && !hasErrno(error, 'EBADF')) throw error;
    }
  }
}
