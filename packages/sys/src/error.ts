import { constants } from 'node:os';

const names = new Map<number, string>();
for (const [name, value] of Object.entries(constants.errno)) if (!names.has(value)) names.set(value, name);
for (const [name, value] of Object.entries({
  EUCLEAN: 117,
  EREMOTEIO: 121,
  ENOMEDIUM: 123,
  ENOKEY: 126,
  ERFKILL: 132,
})) {
  if (!names.has(value)) names.set(value, name);
}

/** The name of an errno (`ENOENT`); `E<number>` for one that has none here. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `E${errno}`;
}

/** A system call that failed. `code` is errno's name as Node's own errors carry it; the message reads `call path: reason`. */
export class SysError extends Error {
  override readonly name = 'SysError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly path: string | undefined;

  constructor(syscall: string, errno: number, reason: string, path?: string) {
    super(`${syscall}${path === undefined ? '' : ` ${path}`}: ${reason}`);
    this.code = errnoName(errno);
    this.errno = errno;
    this.syscall = syscall;
    this.path = path;
  }
}

/** Whether this is an error (ours or Node's) with that code, e.g. `hasErrno(e, 'ENOENT', 'ENOTDIR')`. */
export function hasErrno(reason: unknown, ...codes: string[]): reason is Error & { code: string } {
  return reason instanceof Error && codes.includes(String((reason as { code?: unknown }).code));
}
