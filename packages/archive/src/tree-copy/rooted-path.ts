/**
 * Paths of somebody else's tree, resolved by the kernel with that tree's root as `/`: `..` and links, absolute ones too, stay in it, and
 * links of the kind that /proc has are not followed, however the tree changes meanwhile.
 */
import { constants } from 'node:os';
import { invalidArgument, notFound, permissionDenied, StatusError } from '@gantry/api';
import {
  type ByteString,
  chownAt,
  closeFd,
  errnoError,
  type FastStat,
  Flags,
  mkdirAt,
  openAt2,
  shownPath,
  statAt,
} from '@gantry/sys/fast-at.ts';
import { cleanPath, splitPath } from '../rooted-directories.ts';

const { EACCES, EEXIST, EISDIR, ELOOP, ENOENT, ENOTDIR, EPERM, EROFS, EXDEV } = constants.errno;
const inRoot = Flags.RESOLVE_IN_ROOT | Flags.RESOLVE_NO_MAGICLINKS;

/** A path as bytes, without `.`, `..` and slashes at its ends; '' is the root. @throws StatusError InvalidArgument */
export function rootedPath(path: string): ByteString {
  if (path.includes('\0')) throw invalidArgument('a path has no zero bytes');
  return cleanPath(Buffer.from(path).toString('latin1'));
}

/** A directory below the root, as an O_PATH descriptor; a negative errno if it cannot be opened. */
export function openDirectory(root: number, path: ByteString): number {
  return openAt2(root, path === '' ? '.' : path, Flags.O_PATH | Flags.O_DIRECTORY, inRoot);
}

/** The same, made with all that is missing on the way, as that owner's. @throws StatusError */
export function makeDirectory(root: number, path: ByteString, owner: { uid: number; gid: number }): number {
  const found = openDirectory(root, path);
  if (found !== -ENOENT || path === '') return checked(found, 'open', path);
  const [parent, base] = splitPath(path);
  const above = makeDirectory(root, parent, owner);
  try {
    const made = mkdirAt(above, base, 0o755);
    if (made < 0 && made !== -EEXIST) throw failure(made, 'mkdir', path);
    if (made >= 0) checked(chownAt(above, base, owner.uid, owner.gid), 'fchownat', path);
  } finally {
    closeFd(above);
  }
  return checked(openDirectory(root, path), 'open', path);
}

/** A file that a path names, links followed. @throws StatusError */
export function openFile(root: number, path: ByteString, flags: number): number {
  return checked(openAt2(root, path, flags | Flags.O_NONBLOCK, inRoot), 'open', path);
}

export function stat(fd: number, name: ByteString, path: ByteString): FastStat {
  const found = statAt(fd, name);
  if (typeof found === 'number') throw failure(found, 'lstat', path);
  return found;
}

/** @throws StatusError for a negative errno */
export function checked(result: number, call: string, path: ByteString): number {
  if (result < 0) throw failure(result, call, path);
  return result;
}

/** What a system call's failure is for the client. */
export function failure(result: number, call: string, path: ByteString): StatusError {
  const cause = errnoError(result, call, path);
  const message = `${call} /${shownPath(path)}: ${cause.code ?? cause.message}`;
  switch (-result) {
    case ENOENT:
      return notFound(message, cause);
    case EACCES:
    case EPERM:
    case EROFS:
      return permissionDenied(message, cause);
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case EXDEV:
      return invalidArgument(message, cause);
    default:
      return StatusError.wrap(cause, 'copy failed');
  }
}
