/** Mounts for the length of one function, on a directory nobody else knows. */
import { mkdir, mkdtemp, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, MNT } from '@gantry/sys';
import type { Mount } from './mount.ts';
import { mountAll, unmountRecursive } from './perform.ts';

const prefix = 'gantry-mount-';

/**
 * An overlay without what makes the kernel refuse its directories to the next mount: `volatile` leaves a mark there, so that a
 * snapshot of which it is an option can be mounted once.
 */
function durable(mount: Mount): Mount {
  const { type, options } = mount;
  if (!type.endsWith('overlay') || !options.includes('volatile')) return mount;
  return { ...mount, options: options.filter((option) => option !== 'volatile') };
}

/**
 * Performs mounts on a fresh directory in `tempDir` and calls `fn` with its path; afterwards always unmounts and removes it, by rmdir
 * only, so that a mount that stays is never emptied. With no mounts `fn` gets an empty directory.
 */
export async function withTempMount<T>(
  mounts: readonly Mount[],
  tempDir: string,
  fn: (root: string) => Promise<T>,
): Promise<T> {
  await mkdir(tempDir, { recursive: true });
  const root = await mkdtemp(join(tempDir, prefix));
  try {
    await mountAll(mounts.map(durable), root);
    return await fn(root);
  } finally {
    await release(root);
  }
}

async function release(root: string): Promise<void> {
  try {
    await unmountRecursive(root);
  } catch (error) {
    // Still busy after patience: taken out of sight, so that the last user ends it.
    if (!hasErrno(error, 'EBUSY')) throw error;
    await unmountRecursive(root, MNT.DETACH);
  }
  await rmdir(root);
}

/** Removes what a killed process left in `tempDir`. Call it at start, before anybody mounts there. */
export async function sweepTempMounts(tempDir: string): Promise<void> {
  const names = await readdir(tempDir).catch((error) => {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  });
  for (const name of names) if (name.startsWith(prefix)) await release(join(tempDir, name));
}
