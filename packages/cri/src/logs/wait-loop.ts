import { readSync } from 'node:fs';
import { Epoll, hasErrno, POLL } from '@gantry/sys';

/** Something that is waited for, until it is closed. */
export interface Waiting {
  /** Harmless twice. */
  close(): void;
}

/**
 * The event loop of a thread that does nothing but wait for descriptors, and for messages that another one announces through an eventfd.
 * Node's own would do, but watching any descriptor with it takes callbacks from C, which end the process when the thread ends under them.
 */
export class WaitLoop {
  readonly #epoll = new Epoll();
  readonly #ready = new Map<number, () => void>();
  readonly #timers = new Map<object, { at: number; call: () => void }>();
  readonly #bell: number;
  readonly #count = Buffer.alloc(8);

  /** @param bell a non-blocking eventfd that is written to when there are messages */
  constructor(bell: number) {
    this.#bell = bell;
    this.#epoll.add(bell, POLL.IN);
  }

  /** Calls back for as long as a descriptor can be read, or has no writer. */
  watch(fd: number, onReady: () => void): Waiting {
    this.#epoll.add(fd, POLL.IN);
    this.#ready.set(fd, onReady);
    return {
      close: () => {
        if (this.#ready.get(fd) !== onReady) return;
        this.#ready.delete(fd);
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
    for (const fd of this.#epoll.wait(this.#patience())) {
      if (fd === this.#bell) {
        this.#silence();
        onMessages();
      } else this.#ready.get(fd)?.();
    }
    const now = performance.now();
    for (const [key, { at, call }] of this.#timers) {
      if (at > now) continue;
      this.#timers.delete(key);
      call();
    }
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
