/** Descriptors watched by the event loop itself (libuv's poll through koffi): pidfds, eventfds, inotify. No thread, no polling. */
import koffi from 'koffi';
import { sysError } from './libc.ts';

/** A watch to be closed by whoever began it. */
export interface FdWatch {
  /** Ends the watch; the descriptor stays open. Harmless twice. */
  close(): void;
  /** Whether the watch keeps the process alive (it does at first). */
  ref(): void;
  unref(): void;
}

/**
 * Calls back whenever a descriptor can be read (`hangup`: only when the other side is gone). The watch is level-triggered: read
 * the descriptor dry or close the watch. One watch per descriptor at a time; regular files cannot be watched.
 */
export function watchFd(
  fd: number,
  onReady: (error: Error | undefined) => void,
  options: { hangup?: boolean; writable?: boolean } = {},
): FdWatch {
  let open = true;
  const interest = options.hangup ? { disconnect: true } : options.writable ? { writable: true } : { readable: true };
  let pending = false;
  // koffi calls back as libuv does, with (status, events), and outside of Node's callback scope: promises settled there would rest
  // until something else runs. setImmediate, which comes right after the loop's poll phase, is inside of one.
  const callback = (status: unknown) => {
    if (!open || pending) return;
    pending = true;
    setImmediate(() => {
      pending = false;
      if (open) onReady(Number(status) < 0 ? sysError('poll', -Number(status)) : undefined);
    });
  };
  const handle = koffi.node.poll(fd, interest, callback);
  return {
    close() {
      if (!open) return;
      open = false;
      handle.stop();
      handle.close();
    },
    ref: () => handle.ref(),
    unref: () => handle.unref(),
  };
}

/** Resolves when the descriptor can be read once. */
export function readable(
  fd: number,
  options: { hangup?: boolean; unref?: boolean; signal?: AbortSignal } = {},
): Promise<void> {
  return new Promise((resolve, reject) => {
    options.signal?.throwIfAborted();
    const stop = () => {
      watch.close();
      reject(options.signal!.reason);
    };
    const watch = watchFd(
      fd,
      (error) => {
        watch.close();
        options.signal?.removeEventListener('abort', stop);
        if (error) reject(error);
        else resolve();
      },
      options.hangup ? { hangup: true } : {},
    );
    if (options.unref) watch.unref();
    options.signal?.addEventListener('abort', stop, { once: true });
  });
}
