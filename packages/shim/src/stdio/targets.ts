import { fstatSync, mkdirSync, openSync } from 'node:fs';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { AT_FDCWD, close, hasErrno, O, openat } from '@gantry/sys';
import { log } from '../log.ts';

/** Where a client wants output to go, opened. */
export interface Target {
  fd: number;
  fifo: boolean;
}

/** Opens a path, `fifo://` or `file://`, without ever waiting. @throws StatusError InvalidArgument for other schemes, SysError */
export function openTarget(target: string): Target {
  const file = filePath(target);
  if (file !== undefined) {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
    return { fd: openSync(file, 'a', 0o644), fifo: false };
  }
  const name = fifoPath(target);
  const fd = openat(AT_FDCWD, name, O.RDWR | O.NONBLOCK | O.NOCTTY);
  if (fstatSync(fd).isFIFO()) return { fd, fifo: true };
  // A terminal or a regular file: written to at its end, as it is.
  close(fd);
  return { fd: openat(AT_FDCWD, name, O.WRONLY | O.APPEND | O.NOCTTY), fifo: false };
}

/** The same for a process that is there already: if the place is gone, nobody will look for its output any more. */
export function openTargetAgain(target: string): Target {
  try {
    if (target !== '') return openTarget(target);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) log.warn('output cannot be connected again', { target, error });
  }
  return { fd: openat(AT_FDCWD, '/dev/null', O.WRONLY), fifo: false };
}

/** The path of a `file://` URI. */
function filePath(target: string): string | undefined {
  if (!target.startsWith('file://')) return undefined;
  return decodeURIComponent(new URL(target).pathname);
}

function fifoPath(target: string): string {
  if (target.startsWith('fifo://')) return decodeURIComponent(new URL(target).pathname);
  if (/^[a-z][a-z0-9+.-]*:\/\//.test(target)) throw invalidArgument(`unknown STDIO scheme ${target.split(':')[0]}`);
  return target;
}
