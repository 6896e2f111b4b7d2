import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { invalidArgument, permissionDenied } from '@gantry/api';

/** Code and programs that the daemon runs with its own rights must be beyond the reach of everybody else. */

interface Ownership {
  uid: number;
  gid: number;
  mode: number;
}

const maxLinks = 40;

/**
 * Opens a file that is going to be run or loaded: a regular one that belongs to root (or to the daemon's own user) and that
 * nobody else may write, reached only through directories and links of which the same is true. Directories that everybody
 * may write to but only owners may remove from (`/tmp`) count as safe: what root owns there stays. Whoever calls closes the
 * descriptor.
 * @throws PermissionDenied `<path>: not trusted: …`; Node's own error if it is not there
 */
function openTrusted(file: string): { fd: number; real: string } {
  const real = walk(file);
  const fd = openSync(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw permissionDenied(`${real}: not trusted: it is not a regular file`);
    mustBeOurs(real, stat);
    return { fd, real };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The whole of a trusted file, read through the descriptor that was checked. */
export function readTrusted(file: string): Buffer {
  const { fd } = openTrusted(file);
  try {
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Checks a program; answers the path to start it by, links resolved. */
export function trustedProgram(file: string): string {
  const { fd, real } = openTrusted(file);
  closeSync(fd);
  return real;
}

/** Follows the links of a path one by one, so that no directory on the way goes unseen. */
function walk(file: string): string {
  if (!path.isAbsolute(file)) throw invalidArgument(`${file}: expected an absolute path`);
  const rest = file.split('/');
  let at = '/';
  let links = 0;
  mustBeSafe(at, lstatSync(at));
  while (rest.length > 0) {
    const name = rest.shift()!;
    if (name === '' || name === '.') continue;
    if (name === '..') {
      at = path.dirname(at);
      continue;
    }
    const next = path.join(at, name);
    const stat = lstatSync(next);
    if (stat.isSymbolicLink()) {
      if (!isOurUser(stat.uid)) throw permissionDenied(`${next}: not trusted: it is a link of user ${stat.uid}`);
      if (++links > maxLinks) throw invalidArgument(`${file}: too many symbolic links`);
      const target = readlinkSync(next);
      if (path.isAbsolute(target)) at = '/';
      rest.unshift(...target.split('/'));
      continue;
    }
    if (stat.isDirectory()) mustBeSafe(next, stat);
    at = next;
  }
  return at;
}

function isOurUser(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

function writableByOthers({ gid, mode }: Ownership): boolean {
  return (mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && gid !== 0);
}

function mustBeOurs(file: string, stat: Ownership): void {
  if (!isOurUser(stat.uid)) {
    throw permissionDenied(`${file}: not trusted: it belongs to user ${stat.uid}, not to root`);
  }
  if (writableByOthers(stat)) {
    const mode = (stat.mode & 0o7777).toString(8).padStart(4, '0');
    throw permissionDenied(`${file}: not trusted: others may write to it (mode ${mode})`);
  }
}

function mustBeSafe(directory: string, stat: Ownership): void {
  if ((stat.mode & 0o1000) !== 0 && isOurUser(stat.uid)) return;
  mustBeOurs(directory, stat);
}
