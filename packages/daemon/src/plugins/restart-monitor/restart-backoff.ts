/**
 * Longer and longer waits between restarts of a container that keeps failing: the first comes at once, then one interval,
 * doubled each time up to a maximum. A container that ran for longer than that maximum starts anew.
 */
export class RestartBackoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  readonly #entries = new Map<string, { waitMs: number; lastStart: number }>();

  /** `maxMs` 0: no wait at all. */
  constructor(firstMs: number, maxMs: number) {
    this.#firstMs = Math.min(firstMs, maxMs);
    this.#maxMs = maxMs;
  }

  /** Whether the container may be started at `now` (milliseconds of a steady clock). */
  ready(key: string, now: number): boolean {
    const entry = this.#entries.get(key);
    return entry === undefined || now - entry.lastStart >= entry.waitMs;
  }

  /** Notes that it is started now. */
  started(key: string, now: number): void {
    if (this.#maxMs <= 0) return;
    const entry = this.#entries.get(key);
    const steady = entry === undefined || now - entry.lastStart > entry.waitMs + this.#maxMs;
    const waitMs = steady ? this.#firstMs : Math.min(entry.waitMs * 2, this.#maxMs);
    this.#entries.set(key, { waitMs, lastStart: now });
  }

  /** Forgets all containers but these. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of this.#entries.keys()) if (!keys.has(key)) this.#entries.delete(key);
  }
}
