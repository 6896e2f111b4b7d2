import { existsSync, readdirSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import path from 'node:path';

/** Removes the cgroup that a namespace's containers were under, in every hierarchy of this machine. @throws if it is in use */
export async function removeCgroup(namespace: string, top = '/sys/fs/cgroup'): Promise<void> {
  if (namespace === '' || namespace.includes('/') || namespace.startsWith('.'))
    throw new Error(`"${namespace}" is no name of a cgroup`);
  const hierarchies = existsSync(path.join(top, 'cgroup.controllers'))
    ? [top]
    : readdirSync(top).map((controller) => path.join(top, controller));
  for (const hierarchy of hierarchies) {
    try {
      await rmdir(path.join(hierarchy, namespace));
    } catch (reason) {
      const { code } = reason as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ENOTDIR') throw reason;
    }
  }
}
