import { randomBytes } from 'node:crypto';
import { resourceExhausted } from '@gantry/api';

/** How long a client may take from the answer of a call to the connection, milliseconds. */
const lifetimeMs = 60_000;
const most = 1000;

/** What was asked for by a call and is fetched by whoever has the token: once, within a minute. */
export class RequestTokens<T> {
  readonly #requests = new Map<string, { request: T; until: number }>();

  /** @throws ResourceExhausted while too many were not fetched */
  add(request: T): string {
    this.#expire();
    if (this.#requests.size >= most) throw resourceExhausted('maximum number of in-flight requests exceeded');
    const token = randomBytes(24).toString('base64url');
    this.#requests.set(token, { request, until: performance.now() + lifetimeMs });
    return token;
  }

  take(token: string): T | undefined {
    this.#expire();
    const found = this.#requests.get(token);
    this.#requests.delete(token);
    return found?.request;
  }

  /** They are in the order in which they end. */
  #expire(): void {
    const now = performance.now();
    for (const [token, { until }] of this.#requests) {
      if (until > now) return;
      this.#requests.delete(token);
    }
  }
}
