import { create } from '@bufbuild/protobuf';
import { type Timestamp, TimestampSchema } from '@bufbuild/protobuf/wkt';

/** A moment: seconds since 1970 and nanoseconds within the second. Date would lose the nanoseconds. */
export interface Time {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** To the microsecond: Date.now() would make every time up to a millisecond too early. */
const startWall = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
const startMonotonic = process.hrtime.bigint();
let drift = 0n;

/** Now, with nanoseconds: the wall clock at start carried on by the monotonic clock, corrected when they part by a second. */
export function now(): Time {
  const wall = BigInt(Date.now()) * 1_000_000n;
  let nanos = startWall + (process.hrtime.bigint() - startMonotonic) + drift;
  const apart = wall - nanos;
  if (apart > 1_000_000_000n || apart < -1_000_000_000n) {
    drift += apart;
    nanos = wall;
  }
  return { seconds: nanos / 1_000_000_000n, nanos: Number(nanos % 1_000_000_000n) };
}

export function toTimestamp(time: Time): Timestamp {
  return create(TimestampSchema, { seconds: time.seconds, nanos: time.nanos });
}

export function fromTimestamp(timestamp: Timestamp | undefined): Time | undefined {
  return timestamp && { seconds: timestamp.seconds, nanos: timestamp.nanos };
}

/** Milliseconds since 1970, as Date counts. */
export function toMillis(time: Time): number {
  return Number(time.seconds) * 1000 + time.nanos / 1e6;
}

export function fromMillis(millis: number): Time {
  const seconds = Math.floor(millis / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((millis - seconds * 1000) * 1e6) };
}

/** RFC 3339 with up to nine digits of fraction, trailing zeros dropped, as Go's RFC3339Nano prints it. */
export function formatTime(time: Time): string {
  const base = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19);
  const fraction = time.nanos === 0 ? '' : `.${String(time.nanos).padStart(9, '0').replace(/0+$/, '')}`;
  return `${base}${fraction}Z`;
}

/** Reads RFC 3339; undefined if it is not that. */
export function parseTime(text: string): Time | undefined {
  const match = /^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)$/.exec(text);
  if (!match) return undefined;
  const millis = Date.parse(`${match[1]!.replace(' ', 'T').toUpperCase()}${match[3]!.toUpperCase()}`);
  if (Number.isNaN(millis)) return undefined;
  return { seconds: BigInt(Math.floor(millis / 1000)), nanos: Number((match[2] ?? '').padEnd(9, '0').slice(0, 9)) };
}

export function compareTime(a: Time, b: Time): number {
  return a.seconds === b.seconds ? a.nanos - b.nanos : a.seconds < b.seconds ? -1 : 1;
}
