// The directory for temporary mounts: what a daemon that was killed left there is unmounted and removed at the next start.
import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { MNT, readMountInfo, umount } from '@gantry/sys';
import type { Logger } from '../core/log/logger.ts';

/** The mounts under a directory, the innermost and latest first. */
function mountsBelow(dir: string): string[] {
  return readMountInfo()
    .map((mount) => mount.mountPoint)
    .filter((point) => point.startsWith(`${dir}/`))
    .reverse();
}

/** Makes the directory, or empties it. An entry that cannot be unmounted stays, with a warning: its content is not ours. */
export async function prepareTemp(dir: string, log: Logger): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o711 });
  for (const point of mountsBelow(dir)) {
    try {
      await umount(point, MNT.DETACH);
    } catch (error) {
      log.warn('failed to unmount a temporary mount', { path: point, error });
    }
  }
  const busy = mountsBelow(dir);
  for (const name of await readdir(dir)) {
    const entry = path.join(dir, name);
    if (busy.some((point) => point === entry || point.startsWith(`${entry}/`))) continue;
    await rm(entry, { recursive: true, force: true });
  }
}
