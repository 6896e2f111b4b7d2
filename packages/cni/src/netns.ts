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

/** A namespace that goes with this process, or when it is disposed of, unless it is kept at a path. */
export interface OpenNetns extends Disposable {
  /** Keeps it at that path, where nothing may be yet. */
  keep(file: string): void;
}

/** Makes a namespace with its loopback interface up, and enters it for no longer than that takes. */
export function openNetns(): OpenNetns {
  return openEntered(() => unshare(CLONE.NEWNET));
}

/** Makes a namespace with its loopback interface up, kept at that path. */
export function createNetns(file: string): void {
  using made = openNetns();
  made.keep(file);
}

/** Keeps the namespace that a process is in at that path, with its loopback interface up. */
export function keepNetnsOf(pid: number, file: string): void {
  using found = openEntered(() => {
    const fd = openat(AT_FDCWD, `/proc/${pid}/ns/net`, O.RDONLY);
    try {
      setns(fd, CLONE.NEWNET);
    } finally {
      close(fd);
    }
  });
  found.keep(file);
}

function openEntered(enter: () => void): OpenNetns {
  const home = openat(AT_FDCWD, '/proc/thread-self/ns/net', O.RDONLY);
  let fd: number;
  try {
    enter();
    try {
      fd = openat(AT_FDCWD, '/proc/thread-self/ns/net', O.RDONLY);
      try {
        setLoopbackUp();
      } catch (error) {
        close(fd);
        throw error;
      }
    } finally {
      setns(home, CLONE.NEWNET);
    }
  } finally {
    close(home);
  }
  return {
    keep: (file) => keepAt(fd, file),
    [Symbol.dispose]: () => close(fd),
  };
}

function keepAt(fd: number, file: string): void {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
  closeSync(openSync(file, 'wx', 0o444));
  try {
    mountSync(`/proc/self/fd/${fd}`, file, '', MS.BIND);
  } catch (error) {
    rmSync(file, { force: true });
    throw error;
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
