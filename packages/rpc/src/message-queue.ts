// The waiting room of a stream: messages arrive whenever the peer sends them and leave when the reader asks.

/**
 * A queue with one reader, read as an async iterable. The writer may learn of its fill (`size`, `onTake`) to stop and go on.
 * Leaving a `for await` early calls `onReturn`, once, if the stream had not ended by itself.
 */
export class MessageQueue<T> implements AsyncIterableIterator<T> {
  /** Called after each message that was taken. */
  onTake: ((message: T) => void) | undefined;
  /** Called when the reader leaves before the end. */
  onReturn: (() => void) | undefined;
  #items: T[] = [];
  #head = 0;
  #waiting: { resolve(result: IteratorResult<T>): void; reject(reason: unknown): void }[] = [];
  #ended = false;
  #error: unknown;
  #failed = false;

  /** Messages that were pushed and not yet taken. */
  get size(): number {
    return this.#items.length - this.#head;
  }

  get ended(): boolean {
    return this.#ended;
  }

  push(message: T): void {
    if (this.#ended) return;
    const reader = this.#waiting.shift();
    if (!reader) {
      this.#items.push(message);
      return;
    }
    reader.resolve({ done: false, value: message });
    this.onTake?.(message);
  }

  /** No more messages: the reader gets those that wait, then the end. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const reader of this.#waiting.splice(0)) reader.resolve({ done: true, value: undefined });
  }

  /** The stream broke: the reader gets the messages that wait, then this error. */
  fail(reason: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    const reader = this.#waiting.shift();
    if (reader) {
      reader.reject(reason);
      for (const other of this.#waiting.splice(0)) other.resolve({ done: true, value: undefined });
      return;
    }
    this.#failed = true;
    this.#error = reason;
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#head < this.#items.length) {
      const message = this.#items[this.#head] as T;
      this.#head++;
      if (this.#head === this.#items.length) {
        this.#items = [];
        this.#head = 0;
      } else if (this.#head > 1024) {
        this.#items = this.#items.slice(this.#head);
        this.#head = 0;
      }
      this.onTake?.(message);
      return Promise.resolve({ done: false, value: message });
    }
    if (this.#failed) {
      this.#failed = false;
      return Promise.reject(this.#error);
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T>> {
    const early = !this.#ended;
    this.end();
    this.#items = [];
    this.#head = 0;
    this.#failed = false;
    if (early) this.onReturn?.();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
