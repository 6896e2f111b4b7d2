/** The times an entry gets, by containerd's rules. */
import type { TarHeader } from './tar-header.ts';

/** Seconds since 1970 and nanoseconds. */
export interface Times {
  atime: number;
  atimeNanos: number;
  mtime: number;
  mtimeNanos: number;
}

/** containerd's rule: times before 1970 are 1970, and the access time is the later of the two. */
export function boundTimes(header: TarHeader): Times {
  let { mtime, mtimeNanos } = header;
  if (mtime < 0 || mtime > MAX_TIME) [mtime, mtimeNanos] = [0, 0];
  const atime = header.atime ?? 0;
  const atimeNanos = header.atimeNanos ?? 0;
  const later = atime > mtime || (atime === mtime && atimeNanos > mtimeNanos);
  if (later && atime <= MAX_TIME) return { atime, atimeNanos, mtime, mtimeNanos };
  return { atime: mtime, atimeNanos: mtimeNanos, mtime, mtimeNanos };
}

/** The last second a 64-bit count of nanoseconds can express (the year 2262). */
const MAX_TIME = 9223372036;
