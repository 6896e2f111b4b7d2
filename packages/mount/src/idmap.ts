/** Idmapped mounts (mount_setattr(2), Linux 5.12): a tree shown with its owners shifted, without touching a file of it. */
import { mkdir, mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unimplemented } from '@gantry/api';
import {
  AT,
  AT_FDCWD,
  close,
  createUserNamespace,
  hasErrno,
  type IdMapping,
  MNT,
  MOUNT_ATTR,
  MOVE_MOUNT,
  mountSetattr,
  moveMount,
  OPEN_TREE,
  openTree,
  umount,
} from '@gantry/sys';
import { splitLowerdir } from './overlay.ts';

export interface IdMap {
  uid: IdMapping[];
  gid: IdMapping[];
}

/** A detached copy of a tree with its owners mapped by a user namespace. Unimplemented where its filesystem does not allow that. */
export function idmappedTree(path: string, userns: number, recursive: boolean): number {
  const deep = recursive ? AT.RECURSIVE : 0;
  const tree = openTree(AT_FDCWD, path, OPEN_TREE.CLONE | deep);
  try {
    mountSetattr(tree, '', AT.EMPTY_PATH | deep, { set: MOUNT_ATTR.IDMAP, userns });
    return tree;
  } catch (error) {
    close(tree);
    if (hasErrno(error, 'ENOSYS', 'EINVAL')) throw unimplemented(`idmapped mount of ${path}: ${error.message}`, error);
    throw error;
  }
}

/** Attaches an idmapped copy of `source` on `target`. */
export async function mountIdmapped(source: string, target: string, map: IdMap, recursive: boolean): Promise<void> {
  const userns = namespaceOf(map);
  try {
    const tree = idmappedTree(source, userns, recursive);
    try {
      moveMount(tree, '', AT_FDCWD, target, MOVE_MOUNT.F_EMPTY_PATH | MOVE_MOUNT.T_SYMLINKS);
    } finally {
      close(tree);
    }
  } finally {
    close(userns);
  }
}

function namespaceOf(map: IdMap): number {
  try {
    return createUserNamespace(map.uid, map.gid);
  } catch (error) {
    if (hasErrno(error, 'EPERM', 'ENOSPC', 'EINVAL', 'ENOSYS')) {
      throw unimplemented(`cannot create a user namespace: ${error.message}`, error);
    }
    throw error;
  }
}

/**
 * Runs `fn` with overlay options whose lower layers are idmapped copies, on a temporary directory that is gone afterwards: a
 * mounted overlay holds its layers by itself.
 */
export async function withIdmappedLayers(
  data: readonly string[],
  map: IdMap,
  fn: (data: string[]) => Promise<void>,
): Promise<void> {
  const userns = namespaceOf(map);
  const dir = await mkdtemp(join(tmpdir(), 'gantry-idmap-'));
  const points: string[] = [];
  try {
    const mapped: string[] = [];
    for (const option of data) {
      if (!option.startsWith('lowerdir=')) {
        mapped.push(option);
        continue;
      }
      const layers: string[] = [];
      for (const { path, data } of splitLowerdir(option.slice(9))) {
        const point = join(dir, String(points.length));
        await mkdir(point);
        points.push(point);
        const tree = idmappedTree(path, userns, false);
        try {
          moveMount(tree, '', AT_FDCWD, point, MOVE_MOUNT.F_EMPTY_PATH);
        } finally {
          close(tree);
        }
        layers.push((layers.length ? (data ? '::' : ':') : '') + point);
      }
      mapped.push(`lowerdir=${layers.join('')}`);
    }
    await fn(mapped);
  } finally {
    close(userns);
    for (const point of points) {
      await umount(point, MNT.DETACH | MNT.UMOUNT_NOFOLLOW).catch((error) => {
        // The last directory may have been made and not mounted.
        if (!hasErrno(error, 'EINVAL')) throw error;
      });
      await rmdir(point);
    }
    await rmdir(dir);
  }
}
