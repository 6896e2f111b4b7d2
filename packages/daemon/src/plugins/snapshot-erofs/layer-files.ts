/** What the erofs snapshotter and its differ share: the names of files in a snapshot's directory, containerd's own. */
import { access, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Mount } from '@gantry/mount';

/** Marks a directory as an active snapshot of this snapshotter, into which the differ may put an image. */
export const markerName = '.erofslayer';
export const imageName = 'layer.erofs';
/** Root hash and place of the hash tree, as JSON, for an image with dm-verity. */
export const verityName = `${imageName}.dmverity`;
export const upperName = 'fs';

/**
 * The snapshot directory that mounts of this snapshotter are of: told by the upper directory or bind source, or the topmost image,
 * and only if the marker is in it.
 */
export async function layerDirectory(mounts: readonly Mount[]): Promise<string | undefined> {
  const directory = candidate(mounts);
  if (directory === undefined || !path.isAbsolute(directory)) return undefined;
  return (await exists(path.join(directory, markerName))) ? directory : undefined;
}

function candidate(mounts: readonly Mount[]): string | undefined {
  const [first] = mounts;
  const last = mounts.at(-1);
  if (!first || !last) return undefined;
  // A writable file system of its own is in the snapshot's directory.
  if (first.type.startsWith('mkfs/')) return path.dirname(first.source);
  switch (last.type.slice(last.type.lastIndexOf('/') + 1)) {
    case 'bind':
    case 'erofs':
      return path.dirname(last.source);
    case 'overlay': {
      const value = (name: string) =>
        last.options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
      const upper = value('upperdir');
      if (upper !== undefined) return path.dirname(upper);
      return value('lowerdir') === undefined ? undefined : path.dirname(first.source);
    }
    default:
      return undefined;
  }
}

export async function exists(file: string): Promise<boolean> {
  try {
    await access(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** Whether the kernel knows the file system. */
export async function kernelHasErofs(): Promise<boolean> {
  return /^\s*erofs$/m.test(await readFile('/proc/filesystems', 'utf8'));
}
