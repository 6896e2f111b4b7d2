import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { fromTimestamp, type Time } from '@gantry/api';

/** Seconds of 1 January of the year 1, which Go's daemons send for a moment that never was. */
const never = -62135596800n;

/** A moment from a daemon, undefined if there was none. */
export function momentFromWire(wire: Timestamp | undefined): Time | undefined {
  return wire?.seconds === never ? undefined : fromTimestamp(wire);
}
