import { closeSync, constants, openSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import type { Writable } from 'node:stream';
import { hasErrno, mkfifo } from '@gantry/sys';

/** The FIFO `log` of a bundle: shims open it at start and write their log to it. What comes is passed on as it is. */
export class ShimLog {
  readonly #reader: net.Socket;

  private constructor(reader: net.Socket) {
    this.#reader = reader;
  }

  /** Makes the FIFO unless it is there (from before the daemon was started again) and reads it until it is closed. */
  static open(bundle: string, to: Writable): ShimLog {
    const file = path.join(bundle, 'log');
    try {
      mkfifo(file, 0o700);
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
    }
    // Open for writing too: then opening does not wait for the shim, and the end of one writer is not the end.
    const fd = openSync(file, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    try {
      const reader = new net.Socket({ fd, readable: true, writable: false });
      reader.on('error', () => undefined);
      reader.on('data', (chunk: Buffer) => {
        // A shim that writes faster than its log is read waits.
        if (to.write(chunk)) return;
        reader.pause();
        to.once('drain', () => reader.resume());
      });
      reader.unref();
      return new ShimLog(reader);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  close(): void {
    this.#reader.destroy();
  }
}
