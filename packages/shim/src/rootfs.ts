import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { StatusError } from '@gantry/api';
import type { Mount as MountMessage } from '@gantry/api/gen/types/mount_pb.js';
import { mountAll, unmountAll, unmountRecursive } from '@gantry/mount/perform.ts';
import { hasErrno, MNT, umount } from '@gantry/sys';

/** Mounts what a create request names as the rootfs onto the bundle's `rootfs` directory. */
export async function mountRootfs(bundle: string, mounts: readonly MountMessage[]): Promise<void> {
  if (mounts.length === 0) return;
  const target = rootfsOf(bundle);
  mkdirSync(target, { recursive: true, mode: 0o711 });
  try {
    await mountAll(
      mounts.map(({ type, source, target, options }) => ({ type, source, target, options })),
      target,
    );
  } catch (error) {
    throw StatusError.wrap(error, `failed to mount rootfs component`);
  }
}

/** Unmounts a bundle's rootfs and what was mounted beneath it. One that is not mounted, or not there, is well. */
export async function unmountRootfs(bundle: string): Promise<void> {
  const rootfs = rootfsOf(bundle);
  try {
    try {
      await umount(rootfs, MNT.UMOUNT_NOFOLLOW);
      return await unmountAll(rootfs);
    } catch (error) {
      // Only when something is mounted beneath it, the list of all mounts has to be read.
      if (!hasErrno(error, 'EBUSY')) throw error;
    }
    await unmountRecursive(rootfs);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT', 'EINVAL')) throw StatusError.wrap(error, 'failed to unmount rootfs');
  }
}

function rootfsOf(bundle: string): string {
  return path.join(bundle, 'rootfs');
}
