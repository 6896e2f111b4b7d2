import { fstatSync, readSync, writeSync } from 'node:fs';
import {
  AT_FDCWD,
  close,
  dupFd,
  type FdWatch,
  fcntlSetPipeSize,
  hasErrno,
  O,
  openat,
  POLL,
  poll,
  reopen,
  SPLICE,
  setNonblocking,
  splice,
  watchFd,
} from '@gantry/sys';
import { available, hasReader, whenRead } from './when-read.ts';

/** How much one turn of the event loop moves for one stream before the others have theirs. */
const turnBytes = 1 << 20;
const chunkBytes = 1 << 16;
/** Pieces below this are put together where the reader is behind. A pipe takes up to 4096 bytes whole. */
const smallBytes = 512;
/** What a terminal gives at once; the kernel makes room for all that is asked for. */
const pieceBytes = 4096;
/** After so many bytes a stream is one of those that write a lot, and its pipes get this size: fewer turns for the same bytes. */
const wideAfterBytes = 1 << 20;
const widePipeBytes = 1 << 20;
/** How long the rest of an ended stream is kept for a reader that may yet come; and for one that is there but takes nothing. */
const absentMs = 10_000;
const stalledMs = 600_000;

/** One buffer for every stream that cannot be spliced: what could not be written at once is kept in a copy. */
const shared = Buffer.alloc(chunkBytes);

/**
 * Moves bytes from one descriptor to another without ever waiting: spliced inside the kernel when one side is a pipe and both
 * can, else read and written. Owns both descriptors and closes them at the end. The descriptors must be open file descriptions of
 * our own, because they are made non-blocking.
 */
export class Pump {
  /** Resolves when everything was moved, or the pump was stopped, and both descriptors are closed. Never rejects. */
  readonly done: Promise<void>;
  readonly #from: number;
  #to: number;
  readonly #toFile: boolean;
  readonly #onEnd: () => void;
  #spliced: boolean;
  #pending: Buffer | undefined;
  #watch: FdWatch | undefined;
  #waiting: 'input' | 'output' = 'input';
  #ended = false;
  #holding = false;
  /** Held until the reader that is there has read all: it has the bytes itself, should this process be killed. */
  #letting: (() => void) | undefined;
  #moved = 0;
  #wide = false;
  readonly #smallPieces: boolean;

  /**
   * @param options `smallPieces`: input that comes in single bytes, such as a terminal's. Each piece that is spliced takes one of a
   * pipe's 16 places, so where a reader is behind such pieces are written, which fills a place with many.
   */
  constructor(from: number, to: number, options: { splice: boolean; smallPieces?: boolean }) {
    this.#from = from;
    this.#to = to;
    const target = fstatSync(to);
    this.#toFile = target.isFile();
    for (const fd of [from, to]) setNonblocking(fd, true);
    this.#spliced = options.splice && !this.#toFile;
    this.#smallPieces = options.smallPieces === true && target.isFIFO();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#onEnd = resolve;
    this.#turn();
  }

  /** Whether it moves nothing any more. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Where its bytes go: a descriptor for as long as it is open, and it is open while there is something for a reader to come. */
  get target(): number | undefined {
    return this.#ended && (!this.#holding || this.#letting) ? undefined : this.#to;
  }

  /** Ends it now; what was not moved, or found no reader, is lost. */
  stop(): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#watch?.close();
      close(this.#from);
      close(this.#to);
      this.#onEnd();
    } else if (this.#holding) {
      this.#holding = false;
      this.#letting?.();
      close(this.#to);
    }
  }

  /**
   * The end of its input. What is in a FIFO would be gone if it were closed now and its reader, the only one to have it then, were killed:
   * that waits until all is read, and where there is no reader for the owner to be done.
   */
  #inputEnded(): void {
    if (this.#ended) return;
    if (!fstatSync(this.#to).isFIFO() || available(this.#to) === 0) {
      this.stop();
      return;
    }
    this.#onlyWrite();
    this.#ended = true;
    this.#holding = true;
    this.#watch?.close();
    close(this.#from);
    if (hasReader(this.#to))
      this.#letting = whenRead(
        this.#to,
        () => this.stop(),
        () => {
          this.#letting = undefined;
        },
      );
    this.#onEnd();
  }

  /**
   * The owner is done with it. When nobody writes any more, what a slow reader has still to take goes on in the background for as long
   * as there is a reader. While somebody still writes, the stream ends here, and what is written goes nowhere: who has a pipe O_RDWR
   * would else wait for ever once it is full.
   */
  finish(): void {
    if (this.#ended) {
      this.stop();
      return;
    }
    if (((poll([{ fd: this.#from, events: 0 }])[0] ?? 0) & POLL.HUP) === 0) {
      const rest = fstatSync(this.#from).isFIFO() ? dupFd(this.#from) : -1;
      this.stop();
      if (rest >= 0) new Pump(rest, openat(AT_FDCWD, '/dev/null', O.WRONLY), { splice: true });
      return;
    }
    this.#onlyWrite();
    this.#await();
    const begun = performance.now();
    let seen = this.#moved;
    let movedAt = begun;
    const timer = setInterval(() => {
      const now = performance.now();
      if (this.#moved !== seen) movedAt = now;
      seen = this.#moved;
      const absent = ((poll([{ fd: this.#to, events: 0 }])[0] ?? 0) & POLL.ERR) !== 0;
      if (now - movedAt > (absent ? absentMs : stalledMs)) this.stop();
    }, 1000);
    timer.unref();
    finishing.add(this);
    void this.done.then(() => {
      clearInterval(timer);
      finishing.remove(this);
    });
  }

  /** Its own reader no more, so that it is seen when the last other one leaves. */
  #onlyWrite(): void {
    if (!fstatSync(this.#to).isFIFO()) return;
    this.#watch?.close();
    this.#watch = undefined;
    const to = reopen(this.#to, O.WRONLY | O.NONBLOCK | O.NOCTTY);
    close(this.#to);
    this.#to = to;
  }

  #turn(): void {
    if (this.#ended) return;
    try {
      let count = 1;
      for (let budget = turnBytes; budget > 0 && count > 0; budget -= count) {
        count = this.#step();
        this.#moved += Math.max(0, count);
      }
      if (!this.#wide && this.#moved >= wideAfterBytes) this.#widen();
      if (count === 0) this.#inputEnded();
      else this.#await();
    } catch (error) {
      // A terminal hung up (EIO): the end of a stream, as a reader sees it. Or the other side is gone (EPIPE).
      if (hasErrno(error, 'EIO')) this.#inputEnded();
      else this.stop();
    }
  }

  #widen(): void {
    this.#wide = true;
    for (const fd of [this.#from, this.#to]) {
      try {
        fcntlSetPipeSize(fd, widePipeBytes);
      } catch {
        // A terminal or a file; or a user may not have larger pipes.
      }
    }
  }

  /** Moves something. @returns how much, 0 at the end, -1 if that would wait */
  #step(): number {
    if (this.#spliced && !this.#pending) {
      try {
        if (this.#smallPieces && available(this.#from) < smallBytes && available(this.#to) > 0)
          return this.#writeSmall();
        return splice(this.#from, this.#to, this.#smallPieces ? pieceBytes : turnBytes, SPLICE.NONBLOCK | SPLICE.MOVE);
      } catch (error) {
        if (!hasErrno(error, 'EINVAL')) throw error;
        this.#spliced = false;
      }
    }
    if (!this.#pending) {
      const count = attempt(() => readSync(this.#from, shared));
      if (count <= 0) return count;
      const written = this.#write(shared.subarray(0, count));
      if (written < count) this.#pending = Buffer.from(shared.subarray(written, count));
      return this.#pending && written === 0 ? -1 : count;
    }
    const written = this.#write(this.#pending);
    if (written === 0) return -1;
    this.#pending = written < this.#pending.length ? this.#pending.subarray(written) : undefined;
    return written;
  }

  /** A piece that a pipe takes whole or not at all, so that nothing is ever only here. */
  #writeSmall(): number {
    if (!ready(this.#to, POLL.OUT)) return -1;
    const count = attempt(() => readSync(this.#from, shared, 0, smallBytes, null));
    return count > 0 ? writeSync(this.#to, shared, 0, count) : count;
  }

  #write(data: Buffer): number {
    return Math.max(
      0,
      attempt(() => writeSync(this.#to, data)),
    );
  }

  /** Waits for whichever side holds it up. The watch on the input stays in place until the output is the one to wait for. */
  #await(): void {
    const blocked =
      this.#pending !== undefined || (this.#spliced && ready(this.#from, POLL.IN) && !ready(this.#to, POLL.OUT));
    const waiting = blocked ? 'output' : 'input';
    if (this.#watch && this.#waiting === waiting) return;
    this.#watch?.close();
    this.#waiting = waiting;
    this.#watch = watchFd(blocked ? this.#to : this.#from, () => this.#turn(), blocked ? { writable: true } : {});
    this.#watch.unref();
  }
}

/** Streams whose processes were deleted before their readers had taken everything: as long as there are any, this process is needed. */
class Finishing {
  onEmpty: () => void = () => {};
  readonly #pumps = new Set<Pump>();

  get size(): number {
    return this.#pumps.size;
  }

  add(pump: Pump): void {
    this.#pumps.add(pump);
  }

  remove(pump: Pump): void {
    this.#pumps.delete(pump);
    if (this.#pumps.size === 0) this.onEmpty();
  }
}

export const finishing = new Finishing();

function ready(fd: number, events: number): boolean {
  return poll([{ fd, events }])[0] !== 0;
}

function attempt(call: () => number): number {
  try {
    return call();
  } catch (error) {
    if (hasErrno(error, 'EAGAIN')) return -1;
    throw error;
  }
}
