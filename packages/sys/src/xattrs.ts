/** Extended attributes, names and values as Buffers: neither need be text. */
import { cstring, lastErrno, native, type Path, sysError } from './libc.ts';

const lgetCall = native('lgetxattr', ['ptr', 'ptr', 'ptr', 'size_t'], 'long');
const lsetCall = native('lsetxattr', ['ptr', 'ptr', 'ptr', 'size_t', 'int']);
const llistCall = native('llistxattr', ['ptr', 'ptr', 'size_t'], 'long');
const lremoveCall = native('lremovexattr', ['ptr', 'ptr']);
const getCall = native('getxattr', ['ptr', 'ptr', 'ptr', 'size_t'], 'long');
const setCall = native('setxattr', ['ptr', 'ptr', 'ptr', 'size_t', 'int']);
const fgetCall = native('fgetxattr', ['int', 'ptr', 'ptr', 'size_t'], 'long');
const fsetCall = native('fsetxattr', ['int', 'ptr', 'ptr', 'size_t', 'int']);
const flistCall = native('flistxattr', ['int', 'ptr', 'size_t'], 'long');
const fremoveCall = native('fremovexattr', ['int', 'ptr']);

// Tries with a buffer that fits nearly always, then with the size that the kernel names.
function grow(syscall: string, path: Path | undefined, call: (buffer: Buffer) => number): Buffer {
  for (let size = 1024; ; ) {
    const buffer = Buffer.alloc(size);
    const length = call(buffer);
    if (length >= 0) return buffer.subarray(0, length);
    const errno = lastErrno();
    if (errno !== 34 || size > 1 << 20) throw sysError(syscall, errno, path);
    size *= 8;
  }
}

function value(syscall: string, path: Path | undefined, call: (buffer: Buffer) => number): Buffer | undefined {
  try {
    return grow(syscall, path, call);
  } catch (error) {
    if ((error as { code?: string }).code === 'ENODATA') return undefined;
    throw error;
  }
}

function split(list: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let at = 0; at < list.length; ) {
    const end = list.indexOf(0, at);
    names.push(list.subarray(at, end));
    at = end + 1;
  }
  return names;
}

function done(syscall: string, result: number, path?: Path): void {
  if (result < 0) throw sysError(syscall, lastErrno(), path);
}

/** The value of an attribute of the name itself (a link is not followed); undefined if it has none. */
export function lgetxattr(path: Path, name: Path): Buffer | undefined {
  const [file, key] = [cstring(path), cstring(name)];
  return value('lgetxattr', path, (buffer) => lgetCall(file, key, buffer, buffer.length));
}

/** `flags`: 1 create only, 2 replace only. */
export function lsetxattr(path: Path, name: Path, data: Buffer, flags = 0): void {
  done('lsetxattr', lsetCall(cstring(path), cstring(name), data, data.length, flags), path);
}

export function llistxattr(path: Path): Buffer[] {
  const file = cstring(path);
  return split(grow('llistxattr', path, (buffer) => llistCall(file, buffer, buffer.length)));
}

export function lremovexattr(path: Path, name: Path): void {
  done('lremovexattr', lremoveCall(cstring(path), cstring(name)), path);
}

/** Like lgetxattr, but following links: what `/proc/self/fd/N` of an O_PATH descriptor needs. */
export function getxattr(path: Path, name: Path): Buffer | undefined {
  const [file, key] = [cstring(path), cstring(name)];
  return value('getxattr', path, (buffer) => getCall(file, key, buffer, buffer.length));
}

export function setxattr(path: Path, name: Path, data: Buffer, flags = 0): void {
  done('setxattr', setCall(cstring(path), cstring(name), data, data.length, flags), path);
}

export function fgetxattr(fd: number, name: Path): Buffer | undefined {
  const key = cstring(name);
  return value('fgetxattr', undefined, (buffer) => fgetCall(fd, key, buffer, buffer.length));
}

export function fsetxattr(fd: number, name: Path, data: Buffer, flags = 0): void {
  done('fsetxattr', fsetCall(fd, cstring(name), data, data.length, flags));
}

export function flistxattr(fd: number): Buffer[] {
  return split(grow('flistxattr', undefined, (buffer) => flistCall(fd, buffer, buffer.length)));
}

export function fremovexattr(fd: number, name: Path): void {
  done('fremovexattr', fremoveCall(fd, cstring(name)));
}
