import { ioctl, POLL, poll } from '@gantry/sys';

const firstWaitMs = 1;
const longestWaitMs = 50;

/** FIONREAD: how many bytes could be read from a pipe or a terminal. */
export function available(fd: number): number {
  const count = Buffer.alloc(4);
  ioctl(fd, 0x541b, count);
  return count.readInt32LE();
}

/** Whether somebody has the other end of a FIFO. @param fd opened for writing only */
export function hasReader(fd: number): boolean {
  return ((poll([{ fd, events: POLL.OUT }])[0] ?? 0) & POLL.ERR) === 0;
}

/**
 * Waits until what is in a FIFO has been read, or nobody is there to read it: a FIFO is emptied when the last who has it leaves, and that
 * may be a reader who is killed. The kernel tells nobody that a pipe is empty, so it is looked at, after a millisecond, two, four, …
 * @param fd opened for writing only; stays open
 * @param onRead called at once if it is empty already. Is not called when the reader leaves: `onAbandoned` is then
 * @returns how to stop it
 */
export function whenRead(fd: number, onRead: () => void, onAbandoned: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  let waitMs = firstWaitMs;
  const look = (): void => {
    if (!hasReader(fd)) onAbandoned();
    else if (available(fd) === 0) onRead();
    else {
      timer = setTimeout(look, waitMs).unref();
      waitMs = Math.min(waitMs * 2, longestWaitMs);
    }
  };
  look();
  return () => clearTimeout(timer);
}
