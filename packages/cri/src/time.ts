import type { Time } from '@gantry/api';

/** Nanoseconds since 1970, as CRI tells times; 0 for none. */
export function nanosOf(time: Time | undefined): bigint {
  return time ? time.seconds * 1_000_000_000n + BigInt(time.nanos) : 0n;
}

export function timeOfNanos(nanos: bigint): Time {
  return { seconds: nanos / 1_000_000_000n, nanos: Number(nanos % 1_000_000_000n) };
}
