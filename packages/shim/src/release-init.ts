import { readSync, unlinkSync, writeSync } from 'node:fs';
import path from 'node:path';
import { AT_FDCWD, close, hasErrno, O, openat, readable } from '@gantry/sys';
import type { RuntimeCommand } from './oci-runtime.ts';

/**
 * Starts a container that runc or crun has created, without another process of the runtime: its init waits at `exec.fifo`, and `start`
 * does no more than meet it there and remove the FIFO (hooks of the kind poststart apart, which the caller has to look for). That is a
 * seventh of a short container's life.
 * @returns false if this is not to be done here, and `start` has to be called
 * @throws Error if init ended first
 */
export async function releaseInit(runtime: RuntimeCommand, id: string, ended: Promise<unknown>): Promise<boolean> {
  // With a notification socket `start` carries the container's READY on.
  if (process.env['NOTIFY_SOCKET']) return false;
  const fifo = path.join(runtime.root, id, 'exec.fifo');
  switch (path.basename(runtime.binary)) {
    case 'runc':
      return releaseRunc(fifo, ended);
    case 'crun':
      return releaseCrun(fifo);
    default:
      return false;
  }
}

/** runc's init opens the FIFO for writing, and goes on once somebody reads. */
async function releaseRunc(fifo: string, ended: Promise<unknown>): Promise<boolean> {
  const fd = openFifo(fifo, O.RDONLY);
  if (fd === undefined) return false;
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

/** crun's init has the FIFO open for reading, and goes on once it gets a byte. */
function releaseCrun(fifo: string): boolean {
  const fd = openFifo(fifo, O.WRONLY);
  if (fd === undefined) return false;
  try {
    unlinkSync(fifo);
    writeSync(fd, Buffer.alloc(1));
    return true;
  } finally {
    close(fd);
  }
}

/** undefined if there is none, or nobody at its other end who would have to be. */
function openFifo(fifo: string, mode: number): number | undefined {
  try {
    return openat(AT_FDCWD, fifo, mode | O.NONBLOCK | O.NOFOLLOW);
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENXIO')) return undefined;
    throw error;
  }
}
