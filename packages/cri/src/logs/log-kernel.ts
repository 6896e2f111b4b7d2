import { fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import { SPLICE, spliceToFile } from '@gantry/sys';

/**
 * The system calls that the writing of logs is made of, so that tests can stop it between any two of them, and in the middle of those that
 * move bytes.
 */
export interface LogKernel {
  /**
   * Moves what a pipe holds into a file at `offset`: what has left the pipe is in the file.
   * @returns how many bytes; 0 when no writer is left, -1 if there is nothing now
   */
  take(pipe: number, file: number, offset: number, length: number): number;
  /** Reads at `offset` until the buffer is full; returns how much there was. */
  read(file: number, buffer: Buffer, offset: number): number;
  /** Writes at `offset`, all of it. Within one page it is done or not done. */
  write(file: number, bytes: Buffer, offset: number): void;
  /** Writes at the end of a file opened for appending; may write only a part, 1 byte at least. */
  append(file: number, bytes: Buffer): number;
  size(file: number): number;
  truncate(file: number, size: number): void;
}

export const linuxKernel: LogKernel = {
  take: (pipe, file, offset, length) => spliceToFile(pipe, file, offset, length, SPLICE.NONBLOCK | SPLICE.MOVE),
  read(file, buffer, offset) {
    let got = 0;
    while (got < buffer.length) {
      const count = readSync(file, buffer, got, buffer.length - got, offset + got);
      if (count === 0) break;
      got += count;
    }
    return got;
  },
  write(file, bytes, offset) {
    for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done, offset + done);
  },
  append: (file, bytes) => writeSync(file, bytes),
  size: (file) => fstatSync(file).size,
  truncate: (file, size) => ftruncateSync(file, size),
};
