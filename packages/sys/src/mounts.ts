/** Mounts: the old call, the new calls that work on descriptors, and /proc/<pid>/mountinfo. Calls that can wait are async. */
import { readFileSync, realpathSync } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { FSCONFIG, OPEN_TREE } from './constants.ts';
import { check, cstring, lastErrno, native, type Path, sysError } from './libc.ts';

const mountCall = native('mount', ['ptr', 'ptr', 'ptr', 'ulong', 'ptr']);
const umountCall = native('umount2', ['ptr', 'int']);
const fsopenCall = native('syscall', ['long', 'ptr', 'uint'], 'long');
const fsconfigCall = native('syscall', ['long', 'int', 'uint', 'ptr', 'ptr', 'int'], 'long');
const fsmountCall = native('syscall', ['long', 'int', 'uint', 'uint'], 'long');
const moveMountCall = native('syscall', ['long', 'int', 'ptr', 'int', 'ptr', 'uint'], 'long');
const openTreeCall = native('syscall', ['long', 'int', 'ptr', 'uint'], 'long');
const mountSetattrCall = native('syscall', ['long', 'int', 'ptr', 'uint', 'ptr', 'size_t'], 'long');
const readCall = native('read', ['int', 'ptr', 'size_t'], 'long');

const optional = (text: Path | undefined | null) => (text === undefined || text === null ? null : cstring(text));

function mountArguments(source: Path, target: Path, type: Path, flags: bigint | number, data: Path | undefined) {
  return [cstring(source), cstring(target), optional(type || undefined), flags, optional(data)];
}

/** mount(2) off the main thread. `data` is the filesystem's own options, below one page. */
export async function mount(
  source: Path,
  target: Path,
  type: Path,
  flags: bigint | number,
  data?: Path,
): Promise<void> {
  await mountCall.wait('mount', target, ...mountArguments(source, target, type, flags, data));
}

export function mountSync(source: Path, target: Path, type: Path, flags: bigint | number, data?: Path): void {
  check('mount', mountCall(...mountArguments(source, target, type, flags, data)), target);
}

/** umount2(2) off the main thread: it can take long (overlay writes out its upper filesystem). `flags` from MNT. */
export async function umount(target: Path, flags = 0): Promise<void> {
  await umountCall.wait('umount', target, cstring(target), flags);
}

export function umountSync(target: Path, flags = 0): void {
  check('umount', umountCall(cstring(target), flags), target);
}

/** A new filesystem context, always close-on-exec. */
export function fsopen(type: string): number {
  return check('fsopen', fsopenCall(430, cstring(type), 1), type);
}

/** Sets a string (or, without a value, a flag) in a filesystem context. The kernel's own explanation is in the error's message. */
export function fsconfig(fd: number, key: string, value?: Path): void {
  const command = value === undefined ? FSCONFIG.SET_FLAG : FSCONFIG.SET_STRING;
  const result = fsconfigCall(431, fd, command, cstring(key), optional(value), 0);
  if (result < 0) throw contextError('fsconfig', lastErrno(), fd, key);
}

/** Gives a descriptor as a parameter of a filesystem context. */
export function fsconfigFd(fd: number, key: string, value: number): void {
  const result = fsconfigCall(431, fd, FSCONFIG.SET_FD, cstring(key), null, value);
  if (result < 0) throw contextError('fsconfig', lastErrno(), fd, key);
}

/** Creates the filesystem (superblock) of a context, off the main thread. */
export async function fsconfigCreate(fd: number): Promise<void> {
  try {
    await fsconfigCall.wait('fsconfig create', undefined, 431, fd, FSCONFIG.CMD_CREATE, null, null, 0);
  } catch (error) {
    throw contextError('fsconfig create', (error as { errno: number }).errno, fd);
  }
}

// A filesystem context keeps messages for its reader: one a read, as "e overlay: reason".
function contextError(syscall: string, errno: number, fd: number, key?: string) {
  const error = sysError(syscall, errno, key);
  const buffer = Buffer.alloc(1024);
  for (let length = readCall(fd, buffer, 1024); length > 0; length = readCall(fd, buffer, 1024)) {
    error.message += `; ${buffer.toString('utf8', 2, length).trim()}`;
  }
  return error;
}

/** The mount of a created context, attached to nothing yet. `attributes` from MOUNT_ATTR. */
export function fsmount(fd: number, attributes = 0): number {
  return check('fsmount', fsmountCall(432, fd, 1, attributes));
}

/** Attaches a mount (or moves one). With MOVE_MOUNT.F_EMPTY_PATH and `''` the first descriptor itself is the mount. */
export function moveMount(fromFd: number, from: Path, toFd: number, to: Path, flags: number): void {
  check('move_mount', moveMountCall(429, fromFd, cstring(from), toFd, cstring(to), flags), to);
}

/** open_tree(2): with OPEN_TREE.CLONE a detached copy of a mount (AT.RECURSIVE: with those beneath). */
export function openTree(fd: number, path: Path, flags: number): number {
  return check('open_tree', openTreeCall(428, fd, cstring(path), flags | OPEN_TREE.CLOEXEC), path);
}

/** What mount_setattr(2) changes: bits from MOUNT_ATTR, a propagation from MS, a user namespace for MOUNT_ATTR.IDMAP. */
export interface MountAttributes {
  set?: number;
  clear?: number;
  propagation?: number;
  userns?: number;
}

export function mountSetattr(fd: number, path: Path, flags: number, attributes: MountAttributes): void {
  const struct = Buffer.alloc(32);
  struct.writeBigUInt64LE(BigInt(attributes.set ?? 0), 0);
  struct.writeBigUInt64LE(BigInt(attributes.clear ?? 0), 8);
  struct.writeBigUInt64LE(BigInt(attributes.propagation ?? 0), 16);
  struct.writeBigUInt64LE(BigInt(attributes.userns ?? 0), 24);
  check('mount_setattr', mountSetattrCall(442, fd, cstring(path), flags, struct, 32), path);
}

/** One line of /proc/<pid>/mountinfo (proc(5)), escapes undone. */
export interface MountInfo {
  id: number;
  parent: number;
  major: number;
  minor: number;
  root: string;
  mountPoint: string;
  options: string[];
  /** Propagation: `shared:1`, `master:2`, `unbindable`. */
  optional: string[];
  fsType: string;
  source: string;
  superOptions: string[];
}

const unescaped = (text: string) =>
  text.replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 8)));

/** Reads the text of a mountinfo file; lines it does not understand are left out. */
export function parseMountInfo(text: string): MountInfo[] {
  const mounts: MountInfo[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    if (dash < 0) continue;
    const [major, minor] = fields[2]!.split(':').map(Number);
    mounts.push({
      id: Number(fields[0]),
      parent: Number(fields[1]),
      major: major!,
      minor: minor!,
      root: unescaped(fields[3]!),
      mountPoint: unescaped(fields[4]!),
      options: fields[5]!.split(','),
      optional: fields.slice(6, dash),
      fsType: fields[dash + 1] ?? '',
      source: unescaped(fields[dash + 2] ?? ''),
      superOptions: unescaped(fields[dash + 3] ?? '').split(','),
    });
  }
  return mounts;
}

/** All mounts that a process (this one by default) sees. The file is read as a whole: it is small and never waits. */
export function readMountInfo(pid: number | 'self' = 'self'): MountInfo[] {
  return parseMountInfo(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'));
}

export async function readMountInfoAsync(pid: number | 'self' = 'self'): Promise<MountInfo[]> {
  return parseMountInfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8'));
}

function find(mounts: MountInfo[], path: string): MountInfo | undefined {
  let best: MountInfo | undefined;
  for (const info of mounts) {
    const point = info.mountPoint;
    if (path !== point && point !== '/' && !path.startsWith(`${point}/`)) continue;
    // Of two on one point the later covers the earlier.
    if (!best || point.length >= best.mountPoint.length) best = info;
  }
  return best;
}

/** The mount that a path lies on. The path must exist. */
export function lookupMount(path: string): MountInfo | undefined {
  return find(readMountInfo(), realpathSync(path));
}

export async function lookupMountAsync(path: string): Promise<MountInfo | undefined> {
  return find(await readMountInfoAsync(), await realpath(path));
}
