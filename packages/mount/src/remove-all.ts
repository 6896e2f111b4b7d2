/** The one recursive delete: by directory descriptors that cannot cross into a mount or follow a link, however the tree changes. */
import { basename, dirname, resolve } from 'node:path';
import { setImmediate as yieldLoop } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';
import {
  AT,
  AT_FDCWD,
  close,
  hasErrno,
  O,
  openat,
  openat2,
  RENAME,
  RESOLVE,
  readdirSome,
  renameat2,
  unlinkat,
  unlinkatAsync,
} from '@gantry/sys';

const descend = RESOLVE.NO_XDEV | RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS;
/** A call in another thread costs more than most removals: in a worker, which may wait, they are made at once. */
const remove: (fd: number, name: string | Buffer, flags?: number) => Promise<void> | void = isMainThread
  ? unlinkatAsync
  : unlinkat;
/** Directories held open at once: deeper ones are moved up to the top first, since names can nest without end. */
const deepest = 64;
/** Milliseconds of work before others on this thread get their turn. */
const slice = 4;

interface Walk {
  top: number;
  moved: number;
  turnEnds: number;
}

/**
 * Deletes a path and everything beneath it. One that does not exist is well. A mount anywhere in the tree is EXDEV (or EBUSY) and stays
 * with the directories that lead to it. With `keep` the directory itself stays, empty.
 */
export async function removeAllBeneath(path: string, options: { keep?: boolean } = {}): Promise<void> {
  const full = resolve(path);
  let parent: number;
  try {
    parent = openat(AT_FDCWD, dirname(full), O.PATH | O.DIRECTORY);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return;
    throw error;
  }
  try {
    const name = basename(full);
    const top = openDirectory(parent, name);
    if (top === undefined) return;
    if (top === 'file') return await unlink(parent, name);
    try {
      await empty(top, 0, { top, moved: 0, turnEnds: performance.now() + slice });
    } finally {
      close(top);
    }
    if (!options.keep) await remove(parent, name, AT.REMOVEDIR);
  } catch (error) {
    if (error instanceof Error) error.message = `remove ${full}: ${error.message}`;
    throw error;
  } finally {
    close(parent);
  }
}

function openDirectory(parent: number, name: string | Buffer): number | 'file' | undefined {
  try {
    return openat2(parent, name, { flags: O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.NONBLOCK, resolve: descend });
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    if (hasErrno(error, 'ENOTDIR', 'ELOOP')) return 'file';
    throw error;
  }
}

async function unlink(parent: number, name: string | Buffer): Promise<void> {
  try {
    await remove(parent, name);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}

async function empty(fd: number, depth: number, walk: Walk): Promise<void> {
  // Some filesystems skip entries when others are deleted while listing, and moved directories come to the top late: look again
  // until a look finds nothing.
  for (let round = 0; ; round++) {
    const again = openat(fd, '.', O.RDONLY | O.DIRECTORY);
    let seen = 0;
    try {
      for (let entries = readdirSome(again); entries; entries = readdirSome(again)) {
        for (const entry of entries) {
          seen++;
          if (performance.now() > walk.turnEnds) {
            await yieldLoop();
            walk.turnEnds = performance.now() + slice;
          }
          // Type 0: this filesystem does not tell.
          if (entry.type !== 4 && entry.type !== 0) await unlink(fd, entry.name);
          else await removeEntry(fd, entry.name, depth, walk);
        }
      }
    } finally {
      close(again);
    }
    if (seen === 0) return;
    if (round > 10_000) throw new Error('somebody keeps adding files');
  }
}

async function removeEntry(fd: number, name: Buffer, depth: number, walk: Walk): Promise<void> {
  const child = openDirectory(fd, name);
  if (child === undefined) return;
  if (child === 'file') return await unlink(fd, name);
  try {
    if (depth >= deepest) return moveUp(fd, name, walk);
    await empty(child, depth + 1, walk);
  } finally {
    close(child);
  }
  try {
    await remove(fd, name, AT.REMOVEDIR);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}

function moveUp(fd: number, name: Buffer, walk: Walk): void {
  for (;;) {
    try {
      renameat2(fd, name, walk.top, `.gantry-remove-${walk.moved++}`, RENAME.NOREPLACE);
      return;
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
    }
  }
}
