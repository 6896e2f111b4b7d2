import { formatTime, now, type Time, unavailable } from '@gantry/api';

interface Lock {
  since: Time;
  started: number;
  released: Promise<void>;
}

/** How long a second writer waits for the first to let go: a client that reconnects finds its old call just ending. */
const patienceMs = 500;

/** Which refs are being written. */
export class RefLocks {
  readonly #locks = new Map<string, Lock>();

  /** Takes the lock, waiting a moment for another holder. @throws Unavailable. The result lets go; it may be called twice. */
  async acquire(ref: string): Promise<() => void> {
    const deadline = performance.now() + patienceMs;
    for (let held = this.#locks.get(ref); held; held = this.#locks.get(ref)) {
      const left = deadline - performance.now();
      if (left <= 0) {
        const seconds = ((performance.now() - held.started) / 1000).toFixed(3);
        throw unavailable(`ref ${ref} locked for ${seconds}s (since ${formatTime(held.since)}): unavailable`);
      }
      await within(left, held.released);
    }
    let release!: () => void;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const lock: Lock = { since: now(), started: performance.now(), released };
    this.#locks.set(ref, lock);
    return () => {
      if (this.#locks.get(ref) === lock) this.#locks.delete(ref);
      release();
    };
  }
}

function within(ms: number, promise: Promise<void>): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    void promise.then(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
