import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

/** A directory of a test's own, short enough for unix sockets, and how to remove it with whatever is still mounted beneath. */
export interface TempDir {
  readonly path: string;
  remove(): Promise<void>;
}

export function makeTempDir(name: string): TempDir {
  const directory = mkdtempSync(path.join(os.tmpdir(), `gantry-${name}-`));
  return {
    path: directory,
    async remove() {
      for (const mountPoint of mountsBeneath(directory).reverse()) execFileSync('umount', ['-l', mountPoint]);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Mount points at or under a directory, parents first. */
export function mountsBeneath(directory: string): string[] {
  const points: string[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const point = line.split(' ')[4]?.replaceAll('\\040', ' ');
    if (point !== undefined && (point === directory || point.startsWith(`${directory}/`))) points.push(point);
  }
  return points;
}
