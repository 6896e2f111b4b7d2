/** Network namespaces that a bind mount keeps: made and entered by the main thread, synchronously, and left at once. */
import { randomUUID } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { unlink } from 'node:fs/promises';
import path from 'node:path';
import {
  AT_FDCWD,
  CLONE,
  close,
  FS_MAGIC,
  hasErrno,
  MNT,
  MS,
  mountSync,
  O,
  openat,
  setns,
  statfs,
  umount,
  unshare,
} from '@gantry/sys';
import { setLoopbackUp } from './loopback.ts';

/** Where the namespaces of containers are, by default. */
export const defaultNetnsDirectory = '/var/run/netns';

/** A fresh path in the directory, where nothing is yet. */
export function newNetnsPath(directory: string): string {
  return path.join(directory, `cni-${randomUUID()}`);
}

/** Makes a namespace with its loopback interface up, kept at that path. */
export function createNetns(file: string): void {
  keepNetns(file, () => unshare(CLONE.NEWNET));
}

/** Keeps the namespace that a process is in at that path, with its loopback interface up. */
export function keepNetnsOf(pid: number, file: string): void {
  keepNetns(file, () => {
    const fd = openat(AT_FDCWD, `/proc/${pid}/ns/net`, O.RDONLY);
    try {
      setns(fd, CLONE.NEWNET);
    } finally {
      close(fd);
    }
  });
}

function keepNetns(file: string, enter: () => void): void {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
  closeSync(openSync(file, 'wx', 0o444));
  const home = openat(AT_FDCWD, '/proc/thread-self/ns/net', O.RDONLY);
  try {
    enter();
    try {
      mountSync('/proc/thread-self/ns/net', file, '', MS.BIND);
      setLoopbackUp();
    } finally {
      setns(home, CLONE.NEWNET);
    }
  } catch (error) {
    rmSync(file, { force: true });
    throw error;
  } finally {
    close(home);
  }
}

/** Whether a namespace is still kept there. */
export function netnsAlive(file: string): boolean {
  try {
    return statfs(file).type === FS_MAGIC.NSFS;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** Lets go of a namespace. One that is not there is well. */
export async function removeNetns(file: string): Promise<void> {
  try {
    await umount(file, MNT.DETACH | MNT.UMOUNT_NOFOLLOW);
  } catch (error) {
    if (!hasErrno(error, 'EINVAL', 'ENOENT')) throw error;
  }
  await unlink(file).catch((error) => {
    // `ip netns` lays a copy of the directory, with all its mounts, over it. What is beneath cannot be reached and stays until that goes.
    if (!hasErrno(error, 'ENOENT', 'EBUSY')) throw error;
  });
}
