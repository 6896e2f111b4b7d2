/** What overlay and idmapped mounts can do here, found out by trying. */
import { mkdir, mkdtemp, readdir, readFile, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { close, createUserNamespace, hasErrno, MNT } from '@gantry/sys';
import { idmappedTree } from './idmap.ts';
import { mountAll, unmountAll, unmountRecursive } from './perform.ts';
import { removeAllBeneath } from './remove-all.ts';

const prefix = 'gantry-probe-';

async function scratch<T>(root: string, fn: (dir: string) => Promise<T>): Promise<T> {
  await mkdir(root, { recursive: true });
  const dir = await mkdtemp(join(root, prefix));
  try {
    return await fn(dir);
  } finally {
    await removeAllBeneath(dir);
  }
}

/** Removes what a process left in `root` that was killed while it probed. Call it at start, before anybody probes there. */
export async function sweepProbes(root: string): Promise<void> {
  const names = await readdir(root).catch((error) => {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  });
  for (const name of names) {
    if (!name.startsWith(prefix)) continue;
    // The kernel tells mount points by their real paths.
    const dir = join(await realpath(root), name);
    // Taken out of sight even if somebody looks into it: nothing of a probe is worth keeping.
    await unmountRecursive(dir, MNT.DETACH);
    await removeAllBeneath(dir);
  }
}

async function tryOverlay(root: string, extra: string[]): Promise<Error | undefined> {
  return scratch(root, async (dir) => {
    const path = (name: string) => join(dir, name);
    for (const name of ['lower1', 'lower2', 'upper', 'work', 'merged']) await mkdir(path(name));
    const options = [
      `lowerdir=${path('lower2')}:${path('lower1')}`,
      `upperdir=${path('upper')}`,
      `workdir=${path('work')}`,
    ];
    try {
      await mountAll([{ type: 'overlay', source: 'overlay', options: [...options, ...extra] }], path('merged'));
    } catch (error) {
      return error as Error;
    }
    await unmountAll(path('merged'));
    return undefined;
  });
}

/** Whether overlays can have their directories in `root`; if not, `reason` says why. On a disk that is too full to try, they can. */
export async function supportsOverlay(root: string): Promise<{ supported: boolean; reason?: string }> {
  const failure = await unlessFull(
    async () => tryOverlay(root, (await needsUserxattr(root)) ? ['userxattr'] : []),
    () => undefined,
  );
  return failure ? { supported: false, reason: failure.message } : { supported: true };
}

/** What was found by trying; where there is no room to try, what `otherwise` says: the daemon starts on a full disk, so that it can be emptied. */
async function unlessFull<T>(attempt: () => Promise<T>, otherwise: () => T): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    if (hasErrno(error, 'ENOSPC', 'EDQUOT')) return otherwise();
    throw error;
  }
}

/**
 * Whether overlays in `root` must be mounted with `userxattr`: in a user namespace other than the first, on Linux 5.11 and later,
 * where it works.
 */
export async function needsUserxattr(root: string): Promise<boolean> {
  if (!(await inUserNamespace())) return false;
  const failure = await unlessFull(
    () => tryOverlay(root, ['userxattr']),
    () => undefined,
  );
  return failure === undefined;
}

/** Whether this process's user namespace maps anything but all ids to themselves. */
export async function inUserNamespace(proc = '/proc'): Promise<boolean> {
  const map = (await readFile(join(proc, 'self/uid_map'), 'utf8')).trim().split(/\s+/).join(' ');
  return map !== '0 0 4294967295';
}

/** Whether the kernel's overlay knows `index`, which several mounts of one upper directory (containerd does that) need turned off. */
export async function supportsIndex(sys = '/sys'): Promise<boolean> {
  try {
    await stat(join(sys, 'module/overlay/parameters/index'));
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** Whether directories in `root` can be idmapped. */
export async function supportsIdmappedMounts(root: string): Promise<boolean> {
  return unlessFull(
    () => scratch(root, async (dir) => canIdmap(dir)),
    // A copy of the mount that nobody sees.
    () => canIdmap(root),
  );
}

function canIdmap(dir: string): boolean {
  try {
    const map = [{ container: 0, host: 100_000, size: 65_536 }];
    const userns = createUserNamespace(map, map);
    try {
      close(idmappedTree(dir, userns, false));
      return true;
    } finally {
      close(userns);
    }
  } catch {
    // Whatever the reason, the answer is no.
    return false;
  }
}
