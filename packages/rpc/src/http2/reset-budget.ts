import { ConnectionFailure, ErrorCode } from './frame.ts';

/** Clients may cancel many calls at once, as when they end; but not start and cancel without end. */
const burst = 10_000;
const perSecond = 1000;

/** How many streams a peer may reset. */
export class ResetBudget {
  #left = burst;
  #since = performance.now();

  /** @throws ConnectionFailure if there were too many */
  spend(): void {
    if (this.#left < 1) {
      const now = performance.now();
      this.#left = Math.min(burst, ((now - this.#since) / 1000) * perSecond);
      this.#since = now;
      if (this.#left < 1) throw new ConnectionFailure(ErrorCode.enhanceYourCalm, 'too many streams were reset');
    }
    this.#left--;
  }
}
