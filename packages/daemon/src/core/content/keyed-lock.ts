/** Mutual exclusion by name, first come first served: at most one holder for each key. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  /** Waits until nobody holds the key, then holds it; call the result to let go. */
  async acquire(key: string): Promise<() => void> {
    const before = this.#tails.get(key);
    let release!: () => void;
    const mine = new Promise<void>((resolve) => {
      release = resolve;
    });
    const tail = before ? before.then(() => mine) : mine;
    this.#tails.set(key, tail);
    await before;
    return () => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      release();
    };
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
