import { beforeAbort } from '../before-abort.ts';

/** Mutual exclusion by name, first come first served: at most one holder for each key. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  /** Waits until nobody holds the key, then holds it; call the result to let go. @throws the signal's reason if it comes first */
  async acquire(key: string, signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted();
    const before = this.#tails.get(key);
    let release!: () => void;
    const mine = new Promise<void>((resolve) => {
      release = resolve;
    });
    const tail = before ? before.then(() => mine) : mine;
    this.#tails.set(key, tail);
    const letGo = (): void => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      release();
    };
    try {
      if (before) await beforeAbort(before, signal);
    } catch (error) {
      // Those who wait behind still have to wait for those before.
      void before?.then(letGo);
      throw error;
    }
    return letGo;
  }

  async run<T>(key: string, fn: () => Promise<T>): Promise<T> {
    const release = await this.acquire(key);
    try {
      return await fn();
    } finally {
      release();
    }
  }
}
