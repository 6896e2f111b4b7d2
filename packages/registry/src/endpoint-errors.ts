import { Code, StatusError } from '@gantry/api';

/** What several endpoints said to the same wish. That of the one which got furthest says most; the others are told after it. */
export class EndpointErrors {
  readonly #entries: { host: string; rank: number; error: StatusError }[] = [];

  add(host: string, rank: number, error: unknown): void {
    this.#entries.push({ host, rank, error: StatusError.from(error) });
  }

  /** Of the furthest; 0 if there is none. */
  get rank(): number {
    return Math.max(0, ...this.#entries.map(({ rank }) => rank));
  }

  /** undefined if there is none. Of equals the first counts. */
  get error(): StatusError | undefined {
    const { rank } = this;
    const best = this.#entries.find((entry) => entry.rank === rank);
    if (!best) return undefined;
    const others = new Map<string, string>();
    for (const { host, error } of this.#entries) {
      // That an endpoint does not have it is no news.
      if (host === best.host || error.code === Code.NotFound || others.has(host)) continue;
      others.set(host, `${host}: ${error.message}`);
    }
    if (others.size === 0) return best.error;
    const { code, message, details } = best.error;
    return new StatusError(code, `${message}; also tried ${[...others.values()].join('; ')}`, {
      cause: best.error,
      details,
    });
  }
}
