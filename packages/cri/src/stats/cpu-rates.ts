/** How many nanoseconds of processor time a thing uses in a second, from one sample to the next. */

/** Samples closer together than this, nanoseconds, say little: the last rate stands. */
const shortest = 500_000_000n;

export class CpuRates {
  readonly #retention: bigint;
  /** What is forgotten elsewhere is forgotten here. */
  readonly #last = new WeakMap<object, { at: bigint; total: bigint; rate: bigint | undefined }>();

  /** @param retentionMs after which a sample says nothing of the rate now */
  constructor(retentionMs = 120_000) {
    this.#retention = BigInt(Math.round(retentionMs * 1e6));
  }

  /** The rate since the last sample; undefined at the first. @param thing whose time it is @param at nanoseconds of a clock */
  next(thing: object, at: bigint, total: bigint): bigint | undefined {
    const last = this.#last.get(thing);
    if (last && at - last.at < shortest) return last.rate;
    // A counter that went back is another one: the container was started again.
    const rate =
      last && at - last.at <= this.#retention && total >= last.total && at > last.at
        ? ((total - last.total) * 1_000_000_000n) / (at - last.at)
        : undefined;
    this.#last.set(thing, { at, total, rate });
    return rate;
  }
}
