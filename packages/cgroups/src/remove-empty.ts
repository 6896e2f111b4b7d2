import { readdir, rmdir } from 'node:fs/promises';
import path from 'node:path';

/**
 * Removes an empty group of that path (`/default`) from every hierarchy, v1 or v2. One that still has processes or groups
 * below stays, and one that is not there is fine: OCI runtimes make the parents of a container's group and never remove them.
 */
export async function removeEmptyCgroup(group: string, root = '/sys/fs/cgroup'): Promise<void> {
  const below = path.posix.normalize(`/${group}`);
  if (below === '/' || below.startsWith('/..')) return;
  let hierarchies: string[];
  try {
    hierarchies = (await readdir(root, { withFileTypes: true }))
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  for (const place of ['', ...hierarchies]) {
    try {
      await rmdir(path.join(root, place, below));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ENOTDIR' && code !== 'EBUSY' && code !== 'ENOTEMPTY') throw error;
    }
  }
}
