import { closeSync, constants, copyFileSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { resourceExhausted } from '@gantry/api';
import {
  AT_FDCWD,
  close,
  DT,
  type FileStat,
  fchmodat,
  fchownat,
  fstatat,
  hasErrno,
  lgetxattr,
  linkat,
  llistxattr,
  lsetxattr,
  makedev,
  mkdirat,
  mknodat,
  O,
  openat,
  readdirFd,
  readlinkat,
  symlinkat,
  utimensat,
} from '@gantry/sys';

const typeMask = 0o170000;
const typeDirectory = 0o040000;
const typeRegular = 0o100000;
const typeSymlink = 0o120000;

/** A path that leads through an open directory, whatever happens to the names above it. */
const through = (fd: number, name: Buffer | string) =>
  Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), typeof name === 'string' ? Buffer.from(name) : name]);

/**
 * Copies a directory's contents and attributes to another one that exists and is empty: owners, modes, times, extended
 * attributes, hard links within the tree, links, devices, FIFOs and sockets; file data by reflink where the filesystem can.
 * Follows no link. Synchronous: for workers.
 */
export function copyTree(from: string, to: string): void {
  const source = openat(AT_FDCWD, from, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    const target = openat(AT_FDCWD, to, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
    try {
      const stat = fstatat(source, '.');
      copyEntries({ target, depth: 0, links: new Map() }, source, target, '');
      copyAttributes(stat, through(source, '.'), target, '.');
    } finally {
      close(target);
    }
  } finally {
    close(source);
  }
}

/** Levels of directories: each holds two descriptors and some stack while it is copied. */
const deepest = 1000;

interface Copy {
  target: number;
  depth: number;
  /** First copies of files with several names, by inode: the path below the target. */
  links: Map<string, Buffer>;
}

function copyEntries(copy: Copy, source: number, target: number, path: string | Buffer): void {
  for (const { name, type } of readdirFd(source)) {
    const stat = fstatat(source, name);
    const isDirectory = (stat.mode & typeMask) === typeDirectory;
    const below = path.length === 0 ? name : Buffer.concat([Buffer.from(path), Buffer.from('/'), name]);
    if (isDirectory && (type === DT.DIR || type === DT.UNKNOWN)) copyDirectory(copy, source, target, name, below);
    else if (!isDirectory) copyFile(copy, stat, source, target, name, below);
  }
}

function copyDirectory(copy: Copy, source: number, target: number, name: Buffer, below: Buffer): void {
  if (++copy.depth > deepest) throw resourceExhausted(`cannot copy more than ${deepest} nested directories`);
  const from = openat(source, name, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    mkdirat(target, name, 0o700);
    const to = openat(target, name, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
    try {
      const stat = fstatat(from, '.');
      copyEntries(copy, from, to, below);
      copyAttributes(stat, through(from, '.'), to, '.');
    } finally {
      close(to);
    }
  } finally {
    close(from);
  }
  copy.depth--;
}

function copyFile(copy: Copy, stat: FileStat, source: number, target: number, name: Buffer, below: Buffer): void {
  const identity = stat.nlink > 1 ? `${stat.devMajor}:${stat.devMinor}:${stat.ino}` : undefined;
  const first = identity === undefined ? undefined : copy.links.get(identity);
  if (first) {
    linkat(copy.target, first, target, name);
    return;
  }
  const type = stat.mode & typeMask;
  if (type === typeRegular) copyData(stat, source, target, name);
  else if (type === typeSymlink) symlinkat(readlinkat(source, name), target, name);
  else mknodat(target, name, type | 0o600, makedev(stat.rdevMajor, stat.rdevMinor));
  copyAttributes(stat, through(source, name), target, name);
  if (identity !== undefined) copy.links.set(identity, below);
}

function copyData(stat: FileStat, source: number, target: number, name: Buffer): void {
  const from = openat(source, name, O.RDONLY | O.NOFOLLOW | O.NONBLOCK);
  try {
    const path = through(target, name);
    if (stat.blocks * 512n < stat.size) copySparse(from, path);
    else copyFileSync(`/proc/self/fd/${from}`, path, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  } finally {
    close(from);
  }
}

const block = Buffer.allocUnsafeSlow(64 * 1024);
const zeros = Buffer.alloc(block.length);

/** Copies a file with holes: blocks of zeros are left out. */
function copySparse(from: number, path: Buffer): void {
  const to = openSync(path, 'wx', 0o600);
  try {
    let offset = 0;
    for (let count = readSync(from, block, 0, block.length, 0); count > 0; ) {
      if (block.compare(zeros, 0, count, 0, count) !== 0) {
        for (let done = 0; done < count; ) done += writeSync(to, block, done, count - done, offset + done);
      }
      offset += count;
      count = readSync(from, block, 0, block.length, offset);
    }
    ftruncateSync(to, offset);
  } finally {
    closeSync(to);
  }
}

/** Owner before mode, because chown clears setuid; attributes after both, because chown clears capabilities; times last. */
function copyAttributes(stat: FileStat, from: Buffer, target: number, name: Buffer | string): void {
  fchownat(target, name, stat.uid, stat.gid);
  if ((stat.mode & typeMask) !== typeSymlink) fchmodat(target, name, stat.mode & 0o7777);
  const to = through(target, name);
  for (const attribute of llistxattr(from)) {
    const value = lgetxattr(from, attribute);
    if (value === undefined) continue;
    try {
      lsetxattr(to, attribute, value);
    } catch (reason) {
      // Some attributes are not ours to set (a security module's), or not on this filesystem.
      if (!hasErrno(reason, 'ENOTSUP', 'EOPNOTSUPP')) throw reason;
    }
  }
  utimensat(target, name, stat.atime, stat.mtime);
}
