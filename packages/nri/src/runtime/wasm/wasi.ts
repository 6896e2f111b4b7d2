import { randomFillSync } from 'node:crypto';
import type { HostFunction } from './web-assembly.ts';

/** The module of imports that this is for. */
export const wasiModule = 'wasi_snapshot_preview1';

const errno = { success: 0, badDescriptor: 8, notSupported: 52, notSeekable: 70 } as const;
const characterDevice = 2;
const subscription = { length: 48, tag: 8, clock: 16, timeout: 24, flags: 40 } as const;
const eventLength = 32;
const clockTag = 0;
const absoluteTime = 1;

/** The module wants its process to end. */
export class Exit extends Error {
  constructor(code: number) {
    super(`it has ended with exit code ${code}`);
    this.name = 'Exit';
  }
}

/**
 * WASI with clocks, random numbers and an output for complaints, and nothing else: no files, no environment, no arguments, no sockets.
 * Node's own has those too, and its sleep cannot be broken off.
 * @param output gets what is written to standard output and error
 */
export function wasi(memory: () => ArrayBuffer, output: (bytes: Uint8Array) => void): Record<string, HostFunction> {
  const view = (): DataView => new DataView(memory());
  const standard = (fd: number): boolean => fd >= 0 && fd <= 2;
  const none = (count: number, size: number): number => {
    view().setUint32(count, 0, true);
    view().setUint32(size, 0, true);
    return errno.success;
  };
  const bySuccess = (): number => errno.success;
  return {
    args_sizes_get: none,
    args_get: bySuccess,
    environ_sizes_get: none,
    environ_get: bySuccess,
    sched_yield: bySuccess,
    clock_res_get(_clock: number, result: number): number {
      view().setBigUint64(result, 1_000_000n, true);
      return errno.success;
    },
    clock_time_get(clock: number, _precision: bigint, result: number): number {
      view().setBigUint64(result, timeOf(clock), true);
      return errno.success;
    },
    random_get(at: number, length: number): number {
      randomFillSync(new Uint8Array(memory(), at >>> 0, length >>> 0));
      return errno.success;
    },
    proc_exit(code: number): never {
      throw new Exit(code);
    },
    fd_write(fd: number, vectors: number, count: number, written: number): number {
      if (fd !== 1 && fd !== 2) return errno.badDescriptor;
      let total = 0;
      for (let index = 0; index < count; index++) {
        const at = view().getUint32(vectors + 8 * index, true);
        const length = view().getUint32(vectors + 8 * index + 4, true);
        output(new Uint8Array(memory(), at, length));
        total += length;
      }
      view().setUint32(written, total, true);
      return errno.success;
    },
    fd_read(fd: number, _vectors: number, _count: number, read: number): number {
      if (fd !== 0) return errno.badDescriptor;
      view().setUint32(read, 0, true);
      return errno.success;
    },
    fd_fdstat_get(fd: number, result: number): number {
      if (!standard(fd)) return errno.badDescriptor;
      new Uint8Array(memory(), result >>> 0, 24).fill(0);
      view().setUint8(result, characterDevice);
      view().setBigUint64(result + 8, 0xffff_ffffn, true);
      return errno.success;
    },
    fd_fdstat_set_flags: (fd: number): number => (standard(fd) ? errno.success : errno.badDescriptor),
    fd_close: (fd: number): number => (standard(fd) ? errno.success : errno.badDescriptor),
    fd_seek: (fd: number): number => (standard(fd) ? errno.notSeekable : errno.badDescriptor),
    poll_oneoff(from: number, to: number, count: number, happened: number): number {
      const asked = Array.from({ length: count }, (_, index) =>
        readSubscription(view(), from + subscription.length * index),
      );
      const [first = 0n] = asked.map(({ left }) => left).sort((one, other) => (one < other ? -1 : 1));
      pause(first);
      const due = asked.filter(({ left }) => left <= first);
      due.forEach(({ user, tag }, index) => {
        const event = to + eventLength * index;
        new Uint8Array(memory(), event, eventLength).fill(0);
        view().setBigUint64(event, user, true);
        view().setUint8(event + 10, tag);
      });
      view().setUint32(happened, due.length, true);
      return errno.success;
    },
  };
}

/** What answers a function of WASI that is not here. */
export function refusal(name: string): HostFunction {
  return () => (/^(?:fd|path|sock)_/.test(name) ? errno.badDescriptor : errno.notSupported);
}

/** Nanoseconds: of the day by clock 0, of some time by others. */
function timeOf(clock: number): bigint {
  return clock === 0 ? BigInt(Date.now()) * 1_000_000n : process.hrtime.bigint();
}

/** What is waited for, and how many nanoseconds are left until then: none for what is no clock. */
function readSubscription(view: DataView, at: number): { user: bigint; tag: number; left: bigint } {
  const user = view.getBigUint64(at, true);
  const tag = view.getUint8(at + subscription.tag);
  if (tag !== clockTag) return { user, tag, left: 0n };
  const timeout = view.getBigUint64(at + subscription.timeout, true);
  const absolute = (view.getUint16(at + subscription.flags, true) & absoluteTime) !== 0;
  const left = absolute ? timeout - timeOf(view.getUint32(at + subscription.clock, true)) : timeout;
  return { user, tag, left: left < 0n ? 0n : left };
}

const bell = new Int32Array(new SharedArrayBuffer(4));

/** Ends at once when the thread is ended. */
function pause(nanoseconds: bigint): void {
  if (nanoseconds > 0n) Atomics.wait(bell, 0, 0, Number(nanoseconds) / 1e6);
}
