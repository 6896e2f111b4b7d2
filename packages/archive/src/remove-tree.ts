/**
 * Removes one name of a directory with all below it while unpacking. By descriptors, never following a link or crossing into a
 * mount; flat in the stack and in open descriptors however deep the tree is: deep folders are first moved up.
 */

import { readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { type ByteString, closeFd, errnoError, Flags, openAt2, renameAt, unlinkAt } from '@gantry/sys/fast-at.ts';

const { EISDIR, ENOENT, ENOTEMPTY, EPERM } = constants.errno;
const RESOLVE = Flags.RESOLVE_BENEATH | Flags.RESOLVE_NO_SYMLINKS | Flags.RESOLVE_NO_XDEV;

/** Names in a directory, as byte strings, in the order the file system has them. */
export function listNames(fd: number): ByteString[] {
  return readdirSync(`/proc/self/fd/${fd}`, { encoding: 'latin1' });
}

/** Removes `name`; missing is fine. @throws an errno error (EBUSY or EXDEV for a mount point). */
export function removeTree(dirfd: number, name: ByteString): void {
  const result = unlinkAt(dirfd, name);
  if (result >= 0 || result === -ENOENT) return;
  if (result !== -EISDIR && result !== -EPERM) throw errnoError(result, 'unlink', name);
  const removed = unlinkAt(dirfd, name, Flags.AT_REMOVEDIR);
  if (removed >= 0 || removed === -ENOENT) return;
  if (removed !== -ENOTEMPTY) throw errnoError(removed, 'rmdir', name);
  const top = openAt2(dirfd, name, Flags.O_DIRECTORY, RESOLVE);
  if (top < 0) throw errnoError(top, 'open', name);
  try {
    empty(top);
  } finally {
    closeFd(top);
  }
  const last = unlinkAt(dirfd, name, Flags.AT_REMOVEDIR);
  if (last < 0 && last !== -ENOENT) throw errnoError(last, 'rmdir', name);
}

function empty(top: number): void {
  let moved = 0;
  for (let names = listNames(top); names.length > 0; names = listNames(top)) {
    for (const name of names) {
      if (removeFlat(top, name)) continue;
      const fd = openAt2(top, name, Flags.O_DIRECTORY, RESOLVE);
      if (fd < 0) throw errnoError(fd, 'open', name);
      try {
        for (const child of listNames(fd)) {
          if (removeFlat(fd, child)) continue;
          // A folder with something in it: up to the top, where a later round meets it.
          let target: string;
          let result: number;
          do {
            target = `.gantry-rm-${moved++}`;
            result = renameAt(fd, child, top, target);
          } while (result === -ENOTEMPTY || result === -constants.errno.EEXIST);
          if (result < 0) throw errnoError(result, 'rename', child);
        }
      } finally {
        closeFd(fd);
      }
      const result = unlinkAt(top, name, Flags.AT_REMOVEDIR);
      if (result < 0) throw errnoError(result, 'rmdir', name);
    }
  }
}

/** Removes what goes in one call; false for a folder with something in it. */
function removeFlat(fd: number, name: ByteString): boolean {
  const result = unlinkAt(fd, name);
  if (result >= 0 || result === -ENOENT) return true;
  if (result !== -EISDIR && result !== -EPERM) throw errnoError(result, 'unlink', name);
  const removed = unlinkAt(fd, name, Flags.AT_REMOVEDIR);
  if (removed >= 0 || removed === -ENOENT) return true;
  if (removed === -ENOTEMPTY) return false;
  throw errnoError(removed, 'rmdir', name);
}
