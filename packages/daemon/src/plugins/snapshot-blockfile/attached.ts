import { readdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno } from '@gantry/sys';

/** Whether a file is behind a loop device, and so mounted: perhaps where nobody here sees it, in another mount namespace. */
export async function isAttached(file: string): Promise<boolean> {
  const real = await realpath(file);
  for (const device of await readdir('/sys/block')) {
    if (!device.startsWith('loop')) continue;
    try {
      if ((await readFile(path.join('/sys/block', device, 'loop/backing_file'), 'utf8')).trimEnd() === real)
        return true;
    } catch (error) {
      // Attached to nothing, or gone.
      if (!hasErrno(error, 'ENOENT', 'ENXIO', 'ENODEV')) throw error;
    }
  }
  return false;
}

/** Waits a moment for it to be let go: a container that is just being made or ending keeps copies of all mounts. */
export async function isAttachedFor(file: string, patienceMs: number): Promise<boolean> {
  for (const end = performance.now() + patienceMs; await isAttached(file); await sleep(20)) {
    if (performance.now() > end) return true;
  }
  return false;
}
