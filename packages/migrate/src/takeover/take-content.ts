// Blobs: shared with containerd where the filesystem allows it, and copied where it does not.
import { constants } from 'node:fs';
import { chmod, copyFile, link, lstat, mkdir, rename, rm, utimes } from 'node:fs/promises';
import path from 'node:path';
import { blobFile } from '../survey.ts';

/** How many blobs came in which way; `there` were there already. */
export interface TakenContent {
  cloned: number;
  linked: number;
  copied: number;
  there: number;
}

type Way = 'cloned' | 'linked' | 'copied';

/**
 * Brings blobs into the content store at `to`. A clone (reflink) shares the bytes; where there are no clones a hard link shares the file:
 * neither daemon writes to a blob that has its name, each only takes its own name away. Between filesystems it is a copy. Whole or not
 * there at all, whenever it ends; can be done again.
 */
export async function takeContent(digests: Iterable<string>, from: string, to: string): Promise<TakenContent> {
  const count: TakenContent = { cloned: 0, linked: 0, copied: 0, there: 0 };
  const temporary = path.join(to, 'takeover.new');
  let ways: Way[] = ['cloned', 'linked', 'copied'];
  await rm(temporary, { force: true });
  for (const digest of digests) {
    const source = blobFile(from, digest)!;
    const target = blobFile(to, digest)!;
    const stat = await lstat(source);
    const present = await lstat(target).catch(() => undefined);
    if (present?.isFile() && present.size === stat.size) {
      count.there++;
      continue;
    }
    await mkdir(path.dirname(target), { recursive: true, mode: 0o755 });
    for (const way of ways) {
      try {
        await bring(way, source, temporary);
      } catch (error) {
        await rm(temporary, { force: true });
        if (way === 'copied' || !cannot(error)) throw error;
        // What two directories cannot do for one file they cannot do for the next.
        ways = ways.filter((one) => one !== way);
        continue;
      }
      if (way !== 'linked') {
        await utimes(temporary, stat.atimeMs / 1000, stat.mtimeMs / 1000);
        await chmod(temporary, 0o444);
      }
      await rename(temporary, target);
      count[way]++;
      break;
    }
  }
  return count;
}

function bring(way: Way, from: string, to: string): Promise<void> {
  if (way === 'linked') return link(from, to);
  return copyFile(from, to, constants.COPYFILE_EXCL | (way === 'cloned' ? constants.COPYFILE_FICLONE_FORCE : 0));
}

function cannot(error: unknown): boolean {
  const codes = ['ENOTSUP', 'EOPNOTSUPP', 'EXDEV', 'EINVAL', 'ENOTTY', 'EPERM', 'EMLINK', 'ENOSYS'];
  return codes.includes((error as NodeJS.ErrnoException).code ?? '');
}
