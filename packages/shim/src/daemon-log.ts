import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import path from 'node:path';
import { hasErrno } from '@gantry/sys';

/** How many bundles are looked at for a reader before a line is not told. */
const triesMax = 4;

/**
 * The log as other daemons read it: from the FIFO `log` that they make in the bundle of each shim they start. One that is shared by many
 * containers writes to whichever of theirs is read. A daemon that does not read holds nothing up: what does not fit is in the log file only.
 */
export class DaemonLog {
  readonly #bundles: () => Iterable<string>;
  #fd: number | undefined;

  /** @param bundles of the containers that there are now */
  constructor(bundles: () => Iterable<string>) {
    this.#bundles = bundles;
  }

  write(line: string): void {
    if (this.#fd !== undefined && this.#send(this.#fd, line)) return;
    this.close();
    let tries = 0;
    for (const bundle of this.#bundles()) {
      if (tries++ === triesMax) return;
      const fd = openFifo(path.join(bundle, 'log'));
      if (fd === undefined) continue;
      this.#fd = fd;
      if (this.#send(fd, line)) return;
      this.close();
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** @returns false if nobody reads there any more */
  #send(fd: number, line: string): boolean {
    try {
      writeSync(fd, line);
      return true;
    } catch (error) {
      return hasErrno(error, 'EAGAIN');
    }
  }
}

/** undefined if there is none, or nobody reads it. */
function openFifo(file: string): number | undefined {
  try {
    const fd = openSync(file, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    if (fstatSync(fd).isFIFO()) return fd;
    closeSync(fd);
  } catch {
    // None: a daemon of ours reads the log file.
  }
  return undefined;
}
