import { deadlineExceeded } from '@gantry/api';
import type { NetworkWatch } from '@gantry/daemon/core/transfer/transferrer.ts';

/** Gives up a pull that registries have sent nothing for a while, though they were asked. */
export class PullWatch implements NetworkWatch, Disposable {
  readonly #abort = new AbortController();
  readonly #patienceMs: number;
  readonly signal: AbortSignal;
  #timer: NodeJS.Timeout | undefined;
  /** Requests that are not answered to their end. */
  #open = 0;

  /** @param patienceMs 0: for ever */
  constructor(patienceMs: number, signal: AbortSignal | undefined) {
    this.#patienceMs = patienceMs;
    this.signal = signal ? AbortSignal.any([signal, this.#abort.signal]) : this.#abort.signal;
  }

  begin(): void {
    this.#open++;
    this.moved();
  }

  end(): void {
    this.#open--;
    this.moved();
  }

  moved(): void {
    clearTimeout(this.#timer);
    if (this.#patienceMs <= 0 || this.#open === 0) return;
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
