/**
 * The few *at() calls that run once or more for every file of a layer, bound so that a call costs no allocation: paths are byte
 * strings (each char one byte, "latin1", so that names that are not UTF-8 survive), and a failure is answered as a negative errno
 * instead of an exception. Synchronous: for worker threads. Everything else should use `files.ts`.
 */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { reasonOf } from './libc.ts';

/** A file name or path whose chars are bytes (`buffer.toString('latin1')`). */
export type ByteString = string;

const libc = koffi.load('libc.so.6');
const calls = {
  openat: libc.func('int openat(int, const void*, int, uint32_t)'),
  mkdirat: libc.func('int mkdirat(int, const void*, uint32_t)'),
  mknodat: libc.func('int mknodat(int, const void*, uint32_t, uint64_t)'),
  symlinkat: libc.func('int symlinkat(const void*, int, const void*)'),
  linkat: libc.func('int linkat(int, const void*, int, const void*, int)'),
  unlinkat: libc.func('int unlinkat(int, const void*, int)'),
  renameat: libc.func('int renameat(int, const void*, int, const void*)'),
  readlinkat: libc.func('int64_t readlinkat(int, const void*, void*, size_t)'),
  fchown: libc.func('int fchown(int, uint32_t, uint32_t)'),
  fchmod: libc.func('int fchmod(int, uint32_t)'),
  fchownat: libc.func('int fchownat(int, const void*, uint32_t, uint32_t, int)'),
  fchmodat: libc.func('int fchmodat(int, const void*, uint32_t, int)'),
  utimensat: libc.func('int utimensat(int, const void*, const void*, int)'),
  futimens: libc.func('int futimens(int, const void*)'),
  statx: libc.func('int statx(int, const void*, int, uint32_t, void*)'),
  lsetxattr: libc.func('int lsetxattr(const void*, const void*, const void*, size_t, int)'),
  fsetxattr: libc.func('int fsetxattr(int, const void*, const void*, size_t, int)'),
  lgetxattr: libc.func('int64_t lgetxattr(const void*, const void*, void*, size_t)'),
  llistxattr: libc.func('int64_t llistxattr(const void*, void*, size_t)'),
  lremovexattr: libc.func('int lremovexattr(const void*, const void*)'),
  ftruncate: libc.func('int ftruncate(int, int64_t)'),
  lseek: libc.func('int64_t lseek(int, int64_t, int)'),
  write: libc.func('int64_t write(int, const void*, size_t)'),
  pwrite: libc.func('int64_t pwrite(int, const void*, size_t, int64_t)'),
  close: libc.func('int close(int)'),
  syncfs: libc.func('int syncfs(int)'),
  syscall: libc.func('int64_t syscall(int64_t, int, const void*, const void*, size_t)'),
};

const SYS_OPENAT2 = 437;
const O_CLOEXEC = 0o2000000;

export const Flags = {
  O_RDONLY: 0,
  O_WRONLY: 1,
  O_CREAT: 0o100,
  O_EXCL: 0o200,
  O_DIRECTORY: process.arch === 'arm64' ? 0o40000 : 0o200000,
  O_NOFOLLOW: process.arch === 'arm64' ? 0o100000 : 0o400000,
  O_NONBLOCK: 0o4000,
  O_PATH: 0o10000000,
  AT_SYMLINK_NOFOLLOW: 0x100,
  AT_REMOVEDIR: 0x200,
  AT_EMPTY_PATH: 0x1000,
  RESOLVE_NO_XDEV: 0x01,
  RESOLVE_NO_MAGICLINKS: 0x02,
  RESOLVE_NO_SYMLINKS: 0x04,
  RESOLVE_BENEATH: 0x08,
  RESOLVE_IN_ROOT: 0x10,
} as const;

let pathScratch = Buffer.alloc(8192);
let otherScratch = Buffer.alloc(8192);
const statScratch = Buffer.alloc(256);
const howScratch = Buffer.alloc(24);
const timesScratch = Buffer.alloc(32);

function pathBytes(path: ByteString): Buffer {
  if (path.length >= pathScratch.length) pathScratch = Buffer.alloc(path.length * 2);
  pathScratch.write(path, 'latin1');
  pathScratch[path.length] = 0;
  return pathScratch;
}

function otherBytes(path: ByteString): Buffer {
  if (path.length >= otherScratch.length) otherScratch = Buffer.alloc(path.length * 2);
  otherScratch.write(path, 'latin1');
  otherScratch[path.length] = 0;
  return otherScratch;
}

function answer(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

/** What `statAt` reports. */
export interface FastStat {
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  ino: bigint;
  size: number;
  /** 512-byte units. */
  blocks: number;
  atime: number;
  atimeNanos: number;
  mtime: number;
  mtimeNanos: number;
  ctime: number;
  ctimeNanos: number;
  rdevMajor: number;
  rdevMinor: number;
  devMajor: number;
  devMinor: number;
}

export function openAt(dirfd: number, name: ByteString, flags: number, mode = 0): number {
  return answer(calls.openat(dirfd, pathBytes(name), flags | O_CLOEXEC, mode));
}

/** openat2(2). `resolve` is of `Flags.RESOLVE_*`. */
export function openAt2(dirfd: number, path: ByteString, flags: number, resolve: number): number {
  howScratch.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  howScratch.writeBigUInt64LE(0n, 8);
  howScratch.writeBigUInt64LE(BigInt(resolve), 16);
  return answer(Number(calls.syscall(SYS_OPENAT2, dirfd, pathBytes(path), howScratch, 24)));
}

export function mkdirAt(dirfd: number, name: ByteString, mode: number): number {
  return answer(calls.mkdirat(dirfd, pathBytes(name), mode));
}

/** `mode` includes the S_IF* type. */
export function mknodAt(dirfd: number, name: ByteString, mode: number, major: number, minor: number): number {
  const high = (BigInt(major & 0xfffff000) << 32n) | (BigInt(minor & 0xffffff00) << 12n);
  const dev = BigInt.asUintN(64, high) | BigInt((major & 0xfff) << 8) | BigInt(minor & 0xff);
  return answer(calls.mknodat(dirfd, pathBytes(name), mode, dev));
}

export function symlinkAt(target: ByteString, dirfd: number, name: ByteString): number {
  return answer(calls.symlinkat(otherBytes(target), dirfd, pathBytes(name)));
}

export function linkAt(oldDirfd: number, oldName: ByteString, dirfd: number, name: ByteString): number {
  return answer(calls.linkat(oldDirfd, otherBytes(oldName), dirfd, pathBytes(name), 0));
}

export function unlinkAt(dirfd: number, name: ByteString, flags = 0): number {
  return answer(calls.unlinkat(dirfd, pathBytes(name), flags));
}

export function renameAt(oldDirfd: number, oldName: ByteString, dirfd: number, name: ByteString): number {
  return answer(calls.renameat(oldDirfd, otherBytes(oldName), dirfd, pathBytes(name)));
}

/** The target of a symbolic link, or a negative errno. */
export function readlinkAt(dirfd: number, name: ByteString): ByteString | number {
  const buffer = Buffer.allocUnsafe(4096);
  const length = answer(Number(calls.readlinkat(dirfd, pathBytes(name), buffer, buffer.length)));
  return length < 0 ? length : buffer.toString('latin1', 0, length);
}

export function fchown(fd: number, uid: number, gid: number): number {
  return answer(calls.fchown(fd, uid, gid));
}

export function fchmod(fd: number, mode: number): number {
  return answer(calls.fchmod(fd, mode));
}

/** Never follows a symbolic link. Name '' means `dirfd` itself, also if it is O_PATH. */
export function chownAt(dirfd: number, name: ByteString, uid: number, gid: number): number {
  const flags = Flags.AT_SYMLINK_NOFOLLOW | (name === '' ? Flags.AT_EMPTY_PATH : 0);
  return answer(calls.fchownat(dirfd, pathBytes(name), uid, gid, flags));
}

/** Follows a symbolic link, as the kernel has it: not for names that may be one. */
export function chmodAt(dirfd: number, name: ByteString, mode: number): number {
  return answer(calls.fchmodat(dirfd, pathBytes(name), mode, 0));
}

function setTimes(atime: number, atimeNanos: number, mtime: number, mtimeNanos: number): Buffer {
  writeSeconds(timesScratch, atime, 0);
  timesScratch.writeUInt32LE(atimeNanos, 8);
  writeSeconds(timesScratch, mtime, 16);
  timesScratch.writeUInt32LE(mtimeNanos, 24);
  return timesScratch;
}

function writeSeconds(buffer: Buffer, seconds: number, offset: number): void {
  const high = Math.floor(seconds / 0x100000000);
  buffer.writeUInt32LE(seconds - high * 0x100000000, offset);
  buffer.writeInt32LE(high, offset + 4);
}

export function futimens(fd: number, atime: number, atimeNanos: number, mtime: number, mtimeNanos: number): number {
  return answer(calls.futimens(fd, setTimes(atime, atimeNanos, mtime, mtimeNanos)));
}

/** Never follows a symbolic link; name '' means `dirfd` itself. */
export function utimesAt(
  dirfd: number,
  name: ByteString,
  atime: number,
  atimeNanos: number,
  mtime: number,
  mtimeNanos: number,
): number {
  const flags = name === '' ? Flags.AT_EMPTY_PATH : Flags.AT_SYMLINK_NOFOLLOW;
  return answer(calls.utimensat(dirfd, pathBytes(name), setTimes(atime, atimeNanos, mtime, mtimeNanos), flags));
}

const STATX_BASIC_STATS = 0x7ff;

function seconds(buffer: Buffer, offset: number): number {
  return buffer.readInt32LE(offset + 4) * 0x100000000 + buffer.readUInt32LE(offset);
}

/** lstat below a directory; name '' means `dirfd` itself. Answers a negative errno on failure. */
export function statAt(dirfd: number, name: ByteString): FastStat | number {
  const flags = (name === '' ? Flags.AT_EMPTY_PATH : 0) | Flags.AT_SYMLINK_NOFOLLOW;
  const b = statScratch;
  const result = answer(calls.statx(dirfd, pathBytes(name), flags, STATX_BASIC_STATS, b));
  if (result < 0) return result;
  return {
    nlink: b.readUInt32LE(16),
    uid: b.readUInt32LE(20),
    gid: b.readUInt32LE(24),
    mode: b.readUInt16LE(28),
    ino: b.readBigUInt64LE(32),
    size: seconds(b, 40),
    blocks: seconds(b, 48),
    atime: seconds(b, 64),
    atimeNanos: b.readUInt32LE(72),
    ctime: seconds(b, 96),
    ctimeNanos: b.readUInt32LE(104),
    mtime: seconds(b, 112),
    mtimeNanos: b.readUInt32LE(120),
    rdevMajor: b.readUInt32LE(128),
    rdevMinor: b.readUInt32LE(132),
    devMajor: b.readUInt32LE(136),
    devMinor: b.readUInt32LE(140),
  };
}

/** Sets an extended attribute of what `path` names itself, also of a symbolic link. */
export function setXattr(path: ByteString, name: ByteString, value: Uint8Array): number {
  return answer(calls.lsetxattr(pathBytes(path), otherBytes(name), value, value.length, 0));
}

export function fsetXattr(fd: number, name: ByteString, value: Uint8Array): number {
  return answer(calls.fsetxattr(fd, otherBytes(name), value, value.length, 0));
}

export function removeXattr(path: ByteString, name: ByteString): number {
  return answer(calls.lremovexattr(pathBytes(path), otherBytes(name)));
}

/** The value of an extended attribute, or a negative errno. */
export function getXattr(path: ByteString, name: ByteString): Buffer | number {
  let buffer = Buffer.allocUnsafe(1024);
  let length = answer(Number(calls.lgetxattr(pathBytes(path), otherBytes(name), buffer, buffer.length)));
  if (length === -constants.errno.ERANGE) {
    buffer = Buffer.allocUnsafe(65536);
    length = answer(Number(calls.lgetxattr(pathBytes(path), otherBytes(name), buffer, buffer.length)));
  }
  return length < 0 ? length : Buffer.from(buffer.subarray(0, length));
}

/** Names of the extended attributes, sorted; or a negative errno. */
export function listXattrs(path: ByteString): ByteString[] | number {
  let buffer = Buffer.allocUnsafe(1024);
  let length = answer(Number(calls.llistxattr(pathBytes(path), buffer, buffer.length)));
  if (length === -constants.errno.ERANGE) {
    buffer = Buffer.allocUnsafe(65536);
    length = answer(Number(calls.llistxattr(pathBytes(path), buffer, buffer.length)));
  }
  if (length < 0) return length;
  return length === 0
    ? []
    : buffer
        .toString('latin1', 0, length - 1)
        .split('\0')
        .sort();
}

export function ftruncate(fd: number, size: number): number {
  return answer(calls.ftruncate(fd, size));
}

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export function lseek(fd: number, offset: number, whence: number): number {
  return answer(Number(calls.lseek(fd, offset, whence)));
}

/** One write(2); may be short. `bytes` is passed by address. */
export function writeFd(fd: number, bytes: Uint8Array, length: number): number {
  return answer(Number(calls.write(fd, bytes, length)));
}

export function pwriteFd(fd: number, bytes: Uint8Array, length: number, offset: number): number {
  return answer(Number(calls.pwrite(fd, bytes, length, offset)));
}

export function closeFd(fd: number): number {
  return answer(calls.close(fd));
}

/** Writes everything of the file system of `fd` to disk; waits. Worker threads only. */
export function syncFileSystem(fd: number): number {
  return answer(calls.syncfs(fd));
}

/** The process's umask, without setting it. */
export function readUmask(): number {
  const line = /^Umask:\s*([0-7]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  return Number.parseInt(line?.[1] ?? '022', 8);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for
const controls = /[\0-\x1f\x7f-\x9f]/g;

/** A name that somebody else has chosen, for a message: cut when it is long, and without anything that a terminal would obey. */
export function shownPath(path: ByteString): string {
  const short = path.length <= 300 ? [path] : [path.slice(0, 140), path.slice(-140)];
  const text = short.map((part) => Buffer.from(part, 'latin1').toString()).join('…');
  return text.replace(controls, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** An Error for a negative errno, with Node's fields and the C library's words. */
export function errnoError(result: number, syscall: string, path?: ByteString): NodeJS.ErrnoException {
  const shown = path === undefined ? '' : ` ${shownPath(path)}`;
  const error: NodeJS.ErrnoException = new Error(`${syscall}${shown}: ${reasonOf(-result)}`);
  error.code = getSystemErrorName(result);
  error.errno = result;
  error.syscall = syscall;
  return error;
}
