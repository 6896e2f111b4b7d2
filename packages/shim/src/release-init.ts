import { readSync, unlinkSync } from 'node:fs';
import path from 'node:path';
import { AT_FDCWD, close, hasErrno, O, openat, readable } from '@gantry/sys';
import type { RuntimeCommand } from './oci-runtime.ts';

/**
 * Starts a container that runc has created, without another process of runc: its init waits to open `exec.fifo` for writing, and
 * `runc start` does no more than read what comes there and remove it (hooks of the kind poststart apart, which the caller has to look
 * for). That is a seventh of a short container's life.
 * @returns false if this is not to be done here, and `start` has to be called
 * @throws Error if init ended first
 */
export async function releaseInit(runtime: RuntimeCommand, id: string, ended: Promise<unknown>): Promise<boolean> {
  // With a notification socket `runc start` carries the container's READY on.
  if (path.basename(runtime.binary) !== 'runc' || process.env['NOTIFY_SOCKET']) return false;
  const fifo = path.join(runtime.root, id, 'exec.fifo');
  let fd: number;
  try {
    fd = openat(AT_FDCWD, fifo, O.RDONLY | O.NONBLOCK | O.NOFOLLOW);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
  try {
    // Without it, the state that runc tells is no longer `created`.
    unlinkSync(fifo);
    const abort = new AbortController();
    const written = readable(fd, { signal: abort.signal });
    await Promise.race([written, ended]);
    abort.abort();
    await written.catch(() => {});
    if (readSync(fd, Buffer.alloc(1)) === 0) throw new Error('container process is already dead');
    return true;
  } finally {
    close(fd);
  }
}
