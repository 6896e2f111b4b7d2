/** Pipes and what moves bytes between them inside the kernel; FIFOs opened without ever waiting; eventfd and inotify. */
import { AT_FDCWD, O } from './constants.ts';
import { close, openat, reopen } from './files.ts';
import { check, cstring, lastErrno, native, type Path, sysError } from './libc.ts';

const pipe2Call = native('pipe2', ['ptr', 'int']);
const spliceCall = native('splice', ['int', 'ptr', 'int', 'ptr', 'size_t', 'uint'], 'long');
const teeCall = native('tee', ['int', 'int', 'size_t', 'uint'], 'long');
const fcntlCall = native('fcntl', ['int', 'int', 'long']);
const pollCall = native('poll', ['ptr', 'ulong', 'int']);
const eventfdCall = native('eventfd', ['uint', 'int']);
const inotifyInitCall = native('inotify_init1', ['int']);
const inotifyAddCall = native('inotify_add_watch', ['int', 'ptr', 'uint32_t']);

/** A pipe's reading and writing end, close-on-exec. `flags`: O.NONBLOCK, O.DIRECT. */
export function pipe2(flags = 0): [number, number] {
  const pair = Buffer.alloc(8);
  check('pipe2', pipe2Call(pair, flags | O.CLOEXEC));
  return [pair.readInt32LE(0), pair.readInt32LE(4)];
}

const offsetStruct = Buffer.alloc(8);

// -1 for "would block" is no error to those who move bytes in a loop, and throwing there is dear.
function moved(syscall: string, result: number): number {
  if (result >= 0) return result;
  const errno = lastErrno();
  if (errno === 11 || errno === 4) return -1;
  throw sysError(syscall, errno);
}

/** Moves bytes; one side must be a pipe. Returns how many, 0 at the end, -1 if it would block (SPLICE.NONBLOCK). */
export function splice(from: number, to: number, length: number, flags: number): number {
  return moved('splice', spliceCall(from, null, to, null, length, flags));
}

/**
 * Moves bytes from a pipe into a file at `offset`. Results as splice's. A signal, SIGKILL too, comes before or after it, or between bytes:
 * what has left the pipe is in the file.
 */
export function spliceToFile(pipe: number, file: number, offset: number, length: number, flags: number): number {
  offsetStruct.writeBigInt64LE(BigInt(offset));
  return moved('splice', spliceCall(pipe, null, file, offsetStruct, length, flags));
}

/** The same as splice off the main thread: it may wait. */
export async function spliceAsync(from: number, to: number, length: number, flags: number): Promise<number> {
  return spliceCall.wait('splice', undefined, from, null, to, null, length, flags);
}

/** Copies bytes from pipe to pipe without consuming them. Results as splice's. */
export function tee(from: number, to: number, length: number, flags: number): number {
  return moved('tee', teeCall(from, to, length, flags));
}

/** Sets a pipe's capacity in bytes and returns what it became. */
export function fcntlSetPipeSize(fd: number, size: number): number {
  return check('fcntl', fcntlCall(fd, 1031, size));
}

/** poll(2): the events seen of each descriptor (POLL), 0 for none. `timeout` in milliseconds, 0 by default: do not wait. */
export function poll(list: { fd: number; events: number }[], timeout = 0): number[] {
  const struct = pollStruct(list);
  if (pollCall(struct, list.length, timeout) < 0 && lastErrno() !== 4) throw sysError('poll', lastErrno());
  return list.map((_, index) => struct.readInt16LE(index * 8 + 6));
}

/** poll(2) in a thread of koffi's pool. */
export async function pollAsync(list: { fd: number; events: number }[], timeout: number): Promise<number[]> {
  const struct = pollStruct(list);
  await pollCall.wait('poll', undefined, struct, list.length, timeout);
  return list.map((_, index) => struct.readInt16LE(index * 8 + 6));
}

function pollStruct(list: { fd: number; events: number }[]): Buffer {
  const struct = Buffer.alloc(list.length * 8);
  list.forEach(({ fd, events }, index) => {
    struct.writeInt32LE(fd, index * 8);
    struct.writeInt16LE(events, index * 8 + 4);
  });
  return struct;
}

/** An event counter's descriptor, non-blocking. */
export function eventfd(initial = 0): number {
  return check('eventfd', eventfdCall(initial, O.CLOEXEC | O.NONBLOCK));
}

/** An inotify descriptor, non-blocking: add paths with inotifyAdd, wait with watchFd, read events with readSync. */
export function inotify(): number {
  return check('inotify_init1', inotifyInitCall(O.CLOEXEC | O.NONBLOCK));
}

/** Returns the watch descriptor that events carry. `mask` from IN. */
export function inotifyAdd(fd: number, path: Path, mask: number): number {
  return check('inotify_add_watch', inotifyAddCall(fd, cstring(path), mask), path);
}

// O_RDWR never waits on a FIFO (fifo(7)); opened again through /proc while that one is held, neither does any other mode.
function openFifo(path: Path, flags: number, keep: boolean): { fd: number; holder: number } {
  const holder = openat(AT_FDCWD, path, O.RDWR | O.NONBLOCK | O.NOCTTY);
  let fd: number;
  try {
    fd = reopen(holder, flags | O.NOCTTY);
  } catch (error) {
    close(holder);
    throw error;
  }
  if (keep) return { fd, holder };
  close(holder);
  return { fd, holder: -1 };
}

/**
 * Opens a FIFO for reading without waiting for a writer. `flags` may add O.NONBLOCK. With `hold` an O_RDWR descriptor is kept too
 * (`holder`, else -1), so that the reader sees no end while writers come and go; the caller closes it.
 */
export function openFifoReader(
  path: Path,
  options: { flags?: number; hold?: boolean } = {},
): { fd: number; holder: number } {
  return openFifo(path, O.RDONLY | (options.flags ?? 0), options.hold ?? false);
}

/** Opens a FIFO for writing without waiting for a reader; without `hold` a write before a reader comes is EPIPE. */
export function openFifoWriter(
  path: Path,
  options: { flags?: number; hold?: boolean } = {},
): { fd: number; holder: number } {
  return openFifo(path, O.WRONLY | (options.flags ?? 0), options.hold ?? false);
}
