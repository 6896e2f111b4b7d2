import { readFileSync, statSync } from 'node:fs';

/** The process that has a file to itself by flock(2), as /proc/locks tells; undefined if there is none or it cannot be seen from here. */
export function lockHolder(file: string): number | undefined {
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  if (!stat) return undefined;
  // The number of a device, as glibc takes it apart.
  const major = ((stat.dev >> 8n) & 0xfffn) | ((stat.dev >> 32n) & ~0xfffn);
  const minor = (stat.dev & 0xffn) | ((stat.dev >> 12n) & ~0xffn);
  const hex = (number: bigint) => number.toString(16).padStart(2, '0');
  const place = `${hex(major)}:${hex(minor)}:${stat.ino}`;
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    const [, kind, , access, pid, where] = line.trim().split(/\s+/);
    if (kind === 'FLOCK' && access === 'WRITE' && where === place && Number(pid) > 0) return Number(pid);
  }
  return undefined;
}
