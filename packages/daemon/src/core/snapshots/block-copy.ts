import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { hasErrno, ioctlFiClone } from '@gantry/sys';
import { errnoError, lseek, SEEK_DATA, SEEK_HOLE } from '@gantry/sys/fast-at.ts';

const chunk = 1 << 20;

/**
 * Copies a file that is mostly holes, such as the image of a filesystem, to a new file: shares the blocks where the filesystem
 * can (reflink), else copies the parts that hold data. fsyncs the copy; leaves none behind if it fails. Synchronous: for workers.
 */
export function copyBlocks(from: string, to: string): void {
  const source = openSync(from, 'r');
  try {
    const target = openSync(to, 'wx', 0o600);
    try {
      if (!cloned(source, target)) copyData(source, target);
      fsyncSync(target);
    } catch (error) {
      rmSync(to, { force: true });
      throw error;
    } finally {
      closeSync(target);
    }
  } finally {
    closeSync(source);
  }
}

function cloned(source: number, target: number): boolean {
  try {
    ioctlFiClone(target, source);
    return true;
  } catch (error) {
    // Not this filesystem, not between these two, or not with these alignments.
    if (hasErrno(error, 'EOPNOTSUPP', 'ENOTSUP', 'EXDEV', 'EINVAL', 'ENOTTY', 'ETXTBSY')) return false;
    throw error;
  }
}

function copyData(source: number, target: number): void {
  const { size } = fstatSync(source);
  const buffer = Buffer.allocUnsafeSlow(chunk);
  ftruncateSync(target, size);
  for (let start = seek(source, 0, SEEK_DATA); start < size; ) {
    const end = seek(source, start, SEEK_HOLE);
    for (let at = start; at < end; ) {
      const count = readSync(source, buffer, 0, Math.min(chunk, end - at), at);
      if (count === 0) return;
      for (let done = 0; done < count; ) done += writeSync(target, buffer, done, count - done, at + done);
      at += count;
    }
    start = seek(source, end, SEEK_DATA);
  }
}

/** Infinity: there is no more. */
function seek(fd: number, offset: number, whence: number): number {
  const found = lseek(fd, offset, whence);
  if (found >= 0) return found;
  if (found === -constants.errno.ENXIO) return Number.POSITIVE_INFINITY;
  throw errnoError(found, 'lseek');
}
