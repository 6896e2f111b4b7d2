/** Mounts of type `loop`: a file as a block device; the "mount point" is a symbolic link to it. */
import { readlink, rm, symlink } from 'node:fs/promises';
import { now, unimplemented } from '@gantry/api';
import { AT_FDCWD, close, hasErrno, O, openat } from '@gantry/sys';
import { attachLoop, isLoopAttached, setLoopAutoclear } from './loop.ts';
import type { MountHandler } from './mount-handler.ts';

export const loopHandler: MountHandler = {
  async mount(mount, mountPoint) {
    if (mount.type !== 'loop') throw unimplemented(`loop handler cannot mount ${mount.type}: not implemented`);
    const device = await attachLoop(mount.source, { readonly: mount.options.includes('ro') });
    try {
      await symlink(device.path, mountPoint);
      // From here on the link owns it: the kernel must not free the device before somebody mounts it.
      await setLoopAutoclear(device.fd, false);
    } finally {
      close(device.fd);
    }
    return { mount, mountedAt: now(), mountPoint };
  },

  async unmount(mountPoint) {
    const path = await linkedDevice(mountPoint);
    if (path === undefined) return;
    const fd = openat(AT_FDCWD, path, O.RDONLY);
    try {
      // Freed when its last user has gone, which may be a mount made elsewhere.
      if (await isLoopAttached(fd)) await setLoopAutoclear(fd, true);
      await rm(mountPoint, { force: true });
    } finally {
      close(fd);
    }
  },

  async isMounted(mountPoint) {
    const path = await linkedDevice(mountPoint);
    if (path === undefined) return false;
    const fd = openat(AT_FDCWD, path, O.RDONLY);
    try {
      return await isLoopAttached(fd);
    } finally {
      close(fd);
    }
  },
};

async function linkedDevice(mountPoint: string): Promise<string | undefined> {
  try {
    const path = await readlink(mountPoint);
    return /^\/dev\/loop\d+$/.test(path) ? path : undefined;
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'EINVAL')) return undefined;
    throw error;
  }
}
