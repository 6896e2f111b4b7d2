import { fchownSync } from 'node:fs';
import type { IoContext } from './process-io.ts';

/** One output stream of a process: what the process gets, and how it is brought to its end. */
export interface Output {
  /** The process's end, until `begin`. */
  readonly fd: number;
  /** Inode number of the anonymous pipe that it goes through, if it does. */
  readonly pipe?: string;
  /** The process has its end. */
  begin(): void;
  /** The process has ended. */
  exited(): void;
  /** What would be lost with this shim: the reading end of a pipe and where it goes, or what holds a FIFO that nobody reads. */
  kept(): { from?: number; to?: number };
  drain(): Promise<void>;
  close(): void;
}

/** Gives a pipe to the owner that the options name. */
export function own(fd: number, context: Pick<IoContext, 'uid' | 'gid'>): void {
  if (context.uid !== 0 || context.gid !== 0) fchownSync(fd, context.uid, context.gid);
}
