import { readSync } from 'node:fs';
import { Epoll, hasErrno, POLL } from '@gantry/sys';

/** Something that is waited for, until it is closed. */
export interface Waiting {
  /** Harmless twice. */
  close(): void;
}

interface Watched {
  readonly fd: number;
  /** Returns whether that was a lot, so that others should come first the next time. */
  readonly call: () => boolean;
  /** It was a lot the last time. */
  busy: boolean;
  /** When it had its last turn, as a number that grows. */
  last: number;
}

/**
 * The event loop of a thread that does nothing but wait for descriptors, and for messages that another one announces through an eventfd.
 * Node's own would do, but watching any descriptor with it takes callbacks from C, which end the process when the thread ends under them.
 */
export class WaitLoop {
  readonly #epoll = new Epoll();
  readonly #watched = new Map<number, Watched>();
  readonly #timers = new Map<object, { at: number; call: () => void }>();
  readonly #bell: number;
  readonly #count = Buffer.alloc(8);
  #turns = 0;

  /** @param bell a non-blocking eventfd that is written to when there are messages */
  constructor(bell: number) {
    this.#bell = bell;
    this.#epoll.add(bell, POLL.IN);
  }

  /**
   * Calls back for as long as a descriptor can be read, or has no writer.
   * @param onReady returns whether it had a lot to do: of those that had, one has its turn before all others are looked at again
   */
  watch(fd: number, onReady: () => boolean): Waiting {
    const watched: Watched = { fd, call: onReady, busy: false, last: 0 };
    this.#epoll.add(fd, POLL.IN);
    this.#watched.set(fd, watched);
    return {
      close: () => {
        if (this.#watched.get(fd) !== watched) return;
        this.#watched.delete(fd);
        this.#epoll.remove(fd);
      },
    };
  }

  /** Calls back once. */
  after(ms: number, call: () => void): Waiting {
    const key = {};
    this.#timers.set(key, { at: performance.now() + ms, call });
    return { close: () => void this.#timers.delete(key) };
  }

  /** Waits until there is something to do, and does it. @param onMessages called when the bell has rung */
  turn(onMessages: () => void): void {
    let next: Watched | undefined;
    for (const fd of this.#epoll.wait(this.#patience())) {
      if (fd === this.#bell) {
        this.#silence();
        onMessages();
        continue;
      }
      const watched = this.#watched.get(fd);
      if (!watched?.busy) this.#call(watched);
      else if (!next || watched.last < next.last) next = watched;
    }
    this.#call(next);
    const now = performance.now();
    for (const [key, { at, call }] of this.#timers) {
      if (at > now) continue;
      this.#timers.delete(key);
      call();
    }
  }

  #call(watched: Watched | undefined): void {
    // Another one's turn may have ended it.
    if (!watched || this.#watched.get(watched.fd) !== watched) return;
    watched.last = ++this.#turns;
    watched.busy = watched.call();
  }

  #patience(): number {
    let soonest = Number.POSITIVE_INFINITY;
    for (const { at } of this.#timers.values()) soonest = Math.min(soonest, at);
    return soonest === Number.POSITIVE_INFINITY ? -1 : Math.max(0, Math.ceil(soonest - performance.now()));
  }

  #silence(): void {
    try {
      readSync(this.#bell, this.#count);
    } catch (error) {
      if (!hasErrno(error, 'EAGAIN')) throw error;
    }
  }

  close(): void {
    this.#epoll.close();
  }
}
