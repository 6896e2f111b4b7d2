import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync } from 'node:fs';
import type { SnapshotUsage } from './snapshotter.ts';

/**
 * Disk use of a directory tree: every inode once, its blocks as allocated. Walks by open directories, so that a container
 * that swaps a directory for a symbolic link meanwhile cannot lead it elsewhere. Synchronous: for workers.
 */
export function diskUsage(root: string): SnapshotUsage {
  const seen = new Set<string>();
  const usage: SnapshotUsage = { inodes: 0, size: 0 };

  const count = (stat: { dev: bigint; ino: bigint; nlink: bigint; blocks: bigint; isDirectory(): boolean }) => {
    if (!stat.isDirectory() && stat.nlink > 1n) {
      const identity = `${stat.dev}:${stat.ino}`;
      if (seen.has(identity)) return;
      seen.add(identity);
    }
    usage.inodes++;
    usage.size += Number(stat.blocks) * 512;
  };

  const walk = (directory: string | Buffer) => {
    let fd: number;
    try {
      fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    } catch (reason) {
      if (isGone(reason)) return;
      throw reason;
    }
    try {
      count(fstatSync(fd, { bigint: true }));
      const prefix = Buffer.from(`/proc/self/fd/${fd}/`);
      for (const entry of readdirSync(prefix, { encoding: 'buffer', withFileTypes: true })) {
        const path = Buffer.concat([prefix, entry.name]);
        if (entry.isDirectory()) {
          walk(path);
          continue;
        }
        const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
        if (stat && !stat.isDirectory()) count(stat);
      }
    } finally {
      closeSync(fd);
    }
  };

  walk(root);
  return usage;
}

/** Removed, or replaced by something else, while we walked: a running container may do that. */
function isGone(reason: unknown): boolean {
  const { code } = reason as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP';
}
