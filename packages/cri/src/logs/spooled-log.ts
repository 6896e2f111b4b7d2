import type { LineFormat } from './line-format.ts';
import { countPiece, newLogCounts } from './log-counts.ts';
import { decodeRecord, encodeRecord, type FileIdentity, type LogStep, recordBytes } from './log-journal.ts';
import type { LogKernel } from './log-kernel.ts';

/** A log opened for appending. */
export interface LogFile {
  fd: number;
  identity: FileIdentity;
}

/** Buffers that all logs of a thread share. */
export class LogBuffers {
  input = Buffer.allocUnsafeSlow(256 << 10);
  output = Buffer.allocUnsafeSlow(1 << 20);
  readonly counts: BigInt64Array;

  constructor(counts: BigInt64Array = newLogCounts()) {
    this.counts = counts;
  }

  /** For a line that is longer than any before. */
  grow(most: number): void {
    const size = Math.min(most, this.input.length * 2);
    this.input = Buffer.allocUnsafeSlow(size);
    if (this.output.length < size + 1024) this.output = Buffer.allocUnsafeSlow(size + 1024);
  }
}

/** The log cannot be written now, or what leads there: nothing is lost, and it is to be tried again. */
export class LogBlocked extends Error {
  override readonly name = 'LogBlocked';
}

/** No line is longer than this, whatever the configuration says: it has to be held somewhere until its end comes. */
export const longestLine = 16 << 20;
/** What may wait in a spool beside an unfinished line. */
const roomBytes = 256 << 10;
/** A spool that is in the log gives its memory back from this size on. */
const resetBytes = 16 << 10;
/** A spool whose first so many bytes are in the log is moved to its front. */
const moveBytes = 64 << 10;

/**
 * Writes the output of one container to its log so that it can be killed between and in any of its steps, and another that begins with the
 * same files goes on where it was: each line is in the log once and whole.
 *
 * What is taken from a pipe goes into a file, the stream's *spool*, in one system call, so that it is always in exactly one of the two.
 * Lines go from spool to log in pieces, and before each the *journal* says where in the log the piece is going to be, and up to where the
 * spool is used with it. After a kill the size of the log tells whether the piece is there; what is there of one that is not whole is cut
 * off, and it is written again.
 */
export class SpooledLog {
  readonly #kernel: LogKernel;
  readonly #journal: number;
  readonly #spools: readonly [number, number];
  readonly #formats: readonly [LineFormat, LineFormat];
  readonly #max: number;
  readonly #buffers: LogBuffers;
  readonly #resetBytes: number;
  readonly #moveBytes: number;
  readonly #record = Buffer.alloc(recordBytes);
  /** Up to where a spool is in the log; how much is in it; up to where no end of a line is. */
  readonly #heads: [number, number] = [0, 0];
  readonly #sizes: [number, number] = [0, 0];
  readonly #scanned: [number, number] = [0, 0];
  #log: LogFile | undefined;
  /** What memory knows and the journal does not yet. */
  #unnoted = false;
  /** The log has something torn at its end, from here on. */
  #torn: number | undefined;
  /**
   * Lines of this stream may have been cut off where they were torn. They come before those of the other one, and as they were but for their times:
   * who has read a part of them already goes on in the middle of the same line.
   */
  #cut: 0 | 1 | undefined;
  /** How much more than usual the spools take: all that is in a pipe nobody will write to any more. */
  extraRoom = 0;

  /** @param maxLineSize bytes of text after which a line goes on in a further, partial one; 0 or less: `longestLine` */
  constructor(options: {
    kernel: LogKernel;
    journal: number;
    spools: readonly [number, number];
    formats: readonly [LineFormat, LineFormat];
    maxLineSize: number;
    buffers: LogBuffers;
    /** From which sizes on a spool is emptied, and moved to its front. */
    tidyAt?: { reset: number; move: number };
  }) {
    this.#kernel = options.kernel;
    this.#journal = options.journal;
    this.#spools = options.spools;
    this.#formats = options.formats;
    this.#max = options.maxLineSize > 0 ? Math.min(options.maxLineSize, longestLine) : longestLine;
    this.#buffers = options.buffers;
    this.#resetBytes = options.tidyAt?.reset ?? resetBytes;
    this.#moveBytes = options.tidyAt?.move ?? moveBytes;
  }

  /**
   * Finds out what an earlier one has done. To be called first, also when there was none.
   * @param open opens the file that the earlier one wrote to wherever it is now, else the one at the log's path
   */
  begin(open: (earlier: FileIdentity | undefined) => LogFile): void {
    const kernel = this.#kernel;
    const bytes = Buffer.alloc(recordBytes);
    const record = decodeRecord(bytes.subarray(0, kernel.read(this.#journal, bytes, 0)));
    this.#log = open(record?.log);
    if (record) {
      const { heads, step } = record;
      if (step && this.#isThere(record.log, step)) heads[step.stream] = step.head;
      this.#heads[0] = heads[0];
      this.#heads[1] = heads[1];
    }
    for (const stream of [0, 1] as const) {
      this.#sizes[stream] = kernel.size(this.#spools[stream]);
      // It was made shorter: what was in the log is gone from it.
      if (this.#heads[stream] > this.#sizes[stream]) this.#heads[stream] = 0;
      this.#scanned[stream] = this.#heads[stream];
    }
    // What is going to be written again stays noted until it is.
    if (this.#cut === undefined) this.#note();
  }

  /** Whether what was being added to the log is there. A part of it is cut off. */
  #isThere(log: FileIdentity, { stream, offset, length }: LogStep): boolean {
    const { fd, identity } = this.#log!;
    // A log that is gone, and all that was in it.
    if (identity.ino !== log.ino || identity.dev !== log.dev) return false;
    const size = this.#kernel.size(fd);
    if (size >= offset + length) return true;
    if (size > offset) this.#kernel.truncate(fd, offset);
    this.#cut = stream;
    return false;
  }

  /** How many bytes are taken and not in the log. */
  waiting(stream: 0 | 1): number {
    return this.#sizes[stream] - this.#heads[stream];
  }

  /**
   * Takes what a pipe holds, up to `most` bytes.
   * @returns how many; 0 at the end of output, -1 if there is nothing now, 'full' while the log has to come first
   * @throws LogBlocked
   */
  take(stream: 0 | 1, pipe: number, most: number): number | 'full' {
    const room = this.#max + roomBytes + this.extraRoom - this.waiting(stream);
    if (room <= 0) return 'full';
    try {
      this.#settle();
      const count = this.#kernel.take(pipe, this.#spools[stream], this.#sizes[stream], Math.min(room, most));
      if (count > 0) this.#sizes[stream] += count;
      return count;
    } catch (error) {
      throw blocked(error);
    }
  }

  /** What was last taken, for those who listen. The bytes are good until the next call of anything here. */
  *taken(stream: 0 | 1, length: number): Iterable<Buffer> {
    let at = this.#sizes[stream] - length;
    while (at < this.#sizes[stream]) {
      const piece = this.#read(stream, at);
      yield piece;
      at += piece.length;
    }
  }

  /**
   * Writes all lines that are whole, or too long, to the log.
   * @param end the stream has ended: what is left is a line too
   * @throws LogBlocked
   */
  write(stream: 0 | 1, end: boolean): void {
    const cut = this.#cut;
    if (cut !== undefined && cut !== stream) this.write(cut, false);
    if (!end && this.#scanned[stream] > this.#heads[stream] && this.#unfinished(stream)) return;
    try {
      this.#settle();
      let failure: unknown;
      try {
        while (this.#writePiece(stream, end));
      } catch (error) {
        failure = error;
      }
      this.#tidy(stream);
      if (failure !== undefined) throw failure;
    } catch (error) {
      throw blocked(error);
    }
  }

  /** Goes on in another file. The one before is the caller's to close. @throws LogBlocked */
  change(log: LogFile): LogFile {
    const cut = this.#cut;
    try {
      if (cut !== undefined) this.write(cut, false);
    } catch (error) {
      // It is worth more to have room in a new one.
      if (!(error instanceof LogBlocked)) throw error;
    }
    this.#cut = undefined;
    try {
      this.#settle();
    } catch (error) {
      throw blocked(error);
    }
    const before = this.#log!;
    this.#log = log;
    this.#unnoted = true;
    try {
      this.#settle();
    } catch {
      // The log can be written, and before it is this is noted.
    }
    return before;
  }

  get file(): LogFile {
    return this.#log!;
  }

  /** Whether there is no end of a line among what came since there was none, and no line too long. */
  #unfinished(stream: 0 | 1): boolean {
    if (this.waiting(stream) > this.#max) return false;
    for (let at = this.#scanned[stream]; at < this.#sizes[stream]; ) {
      const piece = this.#read(stream, at);
      if (piece.includes(10)) return false;
      at += piece.length;
      this.#scanned[stream] = at;
    }
    return true;
  }

  #read(stream: 0 | 1, at: number): Buffer {
    const { input } = this.#buffers;
    const piece = input.subarray(0, Math.min(input.length, this.#sizes[stream] - at));
    const count = this.#kernel.read(this.#spools[stream], piece, at);
    if (count < piece.length) throw new Error('a spool of a container log is shorter than it was');
    return piece;
  }

  /** @returns whether there may be more to write */
  #writePiece(stream: 0 | 1, end: boolean): boolean {
    const head = this.#heads[stream];
    const left = this.#sizes[stream] - head;
    if (left === 0) return false;
    const format = this.#formats[stream];
    const input = this.#read(stream, head);
    const whole = input.length === left;
    format.format(input, this.#buffers.output, this.#max, end && whole);
    const { consumed, length, unfinished } = format;
    if (consumed === 0) {
      if (whole) {
        this.#scanned[stream] = this.#sizes[stream];
        return false;
      }
      this.#buffers.grow(this.#max + 1);
      return true;
    }
    this.#append(stream, head, input, format, length, end && whole);
    this.#cut = undefined;
    return !(whole && unfinished);
  }

  #append(stream: 0 | 1, head: number, input: Buffer, format: LineFormat, length: number, end: boolean): void {
    const kernel = this.#kernel;
    const { fd } = this.#log!;
    const { output } = this.#buffers;
    const offset = kernel.size(fd);
    this.#note({ stream, offset, length, head: head + format.consumed });
    let done = 0;
    try {
      while (done < length) done += kernel.append(fd, output.subarray(done, length));
    } catch (error) {
      // Whole lines stay, because somebody may have read them already.
      const whole = done === 0 ? 0 : output.lastIndexOf(10, done - 1) + 1;
      this.#torn = offset + whole;
      this.#cut = stream;
      if (whole > 0) {
        format.format(input, output.subarray(0, whole), this.#max, end);
        this.#heads[stream] = head + format.consumed;
        countPiece(this.#buffers.counts, format);
      }
      this.#unnoted = true;
      this.#settle();
      throw error;
    }
    this.#heads[stream] = head + format.consumed;
    this.#unnoted = true;
    countPiece(this.#buffers.counts, format);
  }

  /** Gives back what a spool holds that is in the log, and has the journal say how far that is. */
  #tidy(stream: 0 | 1): void {
    const head = this.#heads[stream];
    const rest = this.waiting(stream);
    this.#scanned[stream] = Math.max(this.#scanned[stream], head);
    if (rest === 0 && head >= this.#resetBytes) {
      this.#kernel.truncate(this.#spools[stream], 0);
      this.#restart(stream, 0);
    } else if (head >= this.#moveBytes && rest > 0 && rest < head) {
      this.#settle();
      this.#move(stream, head, rest);
      this.#restart(stream, rest);
    }
    this.#settle();
  }

  #restart(stream: 0 | 1, size: number): void {
    this.#scanned[stream] -= this.#heads[stream];
    this.#heads[stream] = 0;
    this.#sizes[stream] = size;
    this.#unnoted = true;
  }

  /**
   * Moves what is not in the log to the front. The two places do not overlap, so until the last step, which makes the spool shorter than
   * what the journal says is in the log of it, nothing has happened.
   */
  #move(stream: 0 | 1, from: number, length: number): void {
    const spool = this.#spools[stream];
    const bytes = this.#buffers.input.length >= length ? this.#buffers.input.subarray(0, length) : Buffer.alloc(length);
    this.#kernel.read(spool, bytes, from);
    this.#kernel.write(spool, bytes, 0);
    this.#kernel.truncate(spool, length);
  }

  /** Brings log and journal to where memory is. Nothing is taken or written before that. */
  #settle(): void {
    if (this.#torn !== undefined) this.#kernel.truncate(this.#log!.fd, this.#torn);
    this.#torn = undefined;
    if (this.#unnoted) this.#note();
  }

  #note(step?: LogStep): void {
    encodeRecord({ log: this.#log!.identity, heads: this.#heads, step }, this.#record);
    this.#kernel.write(this.#journal, this.#record, 0);
    this.#unnoted = false;
  }
}

/** What the system refuses may go better later. */
function blocked(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof LogBlocked || !('code' in error)) return error;
  return new LogBlocked(error.message, { cause: error });
}
