import { deadlineExceeded } from '@gantry/api';

/** Gives up a pull that has brought nothing for a while. */
export class PullWatch implements Disposable {
  readonly #abort = new AbortController();
  readonly #patienceMs: number;
  readonly signal: AbortSignal;
  #timer: NodeJS.Timeout | undefined;

  /** @param patienceMs 0: for ever */
  constructor(patienceMs: number, signal: AbortSignal | undefined) {
    this.#patienceMs = patienceMs;
    this.signal = signal ? AbortSignal.any([signal, this.#abort.signal]) : this.#abort.signal;
    this.progressed();
  }

  progressed(): void {
    if (this.#patienceMs <= 0) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () =>
        this.#abort.abort(deadlineExceeded(`pull made no progress for ${this.#patienceMs / 1000}s: deadline exceeded`)),
      this.#patienceMs,
    );
    this.#timer.unref();
  }

  /** The result of the pull; the reason of giving it up, if that is why it failed. */
  async run<T>(pull: Promise<T>): Promise<T> {
    try {
      return await pull;
    } catch (error) {
      if (this.#abort.signal.aborted) throw this.#abort.signal.reason;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
