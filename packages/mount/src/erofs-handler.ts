/** Mounts of type `erofs`: the image file itself where the kernel can (Linux 6.12), else by loop devices. */
import { mkdir } from 'node:fs/promises';
import { now, unimplemented } from '@gantry/api';
import {
  AT_FDCWD,
  close,
  fsconfig,
  fsconfigCreate,
  fsmount,
  fsopen,
  hasErrno,
  MOVE_MOUNT,
  mount as mountCall,
  moveMount,
} from '@gantry/sys';
import { attachLoop } from './loop.ts';
import type { Mount } from './mount.ts';
import type { MountHandler } from './mount-handler.ts';
import { parseMountOptions } from './options.ts';
import { mountAttributes, optionLimit } from './overlay.ts';
import { unmountAll } from './perform.ts';

const verityOption = 'X-containerd.dmverity=';
const deviceOption = 'device=';

export const erofsHandler: MountHandler = {
  async mount(mount, mountPoint) {
    if (mount.type !== 'erofs') throw unimplemented(`erofs handler cannot mount ${mount.type}: not implemented`);
    if (mount.options.some((option) => option.startsWith(verityOption))) {
      throw unimplemented(
        `layer ${mount.source} requires dm-verity, which gantry does not set up yet: not implemented (dmverity_mode = "off" mounts it without)`,
      );
    }
    // `loop` is only the fallback's business.
    const plain: Mount = { ...mount, options: mount.options.filter((option) => option !== 'loop') };
    await mkdir(mountPoint, { recursive: true, mode: 0o700 });
    try {
      await mountErofs(plain, mountPoint);
      return { mount: plain, mountedAt: now(), mountPoint };
    } catch (error) {
      // Before Linux 6.12 only block devices can be mounted.
      if (!hasErrno(error, 'ENOTBLK')) throw error;
    }
    return { mount: await mountErofsByLoop(plain, mountPoint), mountedAt: now(), mountPoint };
  },

  unmount: (mountPoint) => unmountAll(mountPoint),
  isMounted: async (mountPoint, points) => points.has(mountPoint),
};

/** Attaches the image and every `device=` file, and mounts that; the kernel frees the devices with the mount. */
export async function mountErofsByLoop(mount: Mount, mountPoint: string): Promise<Mount> {
  const opened: number[] = [];
  const attach = async (file: string) => {
    const device = await attachLoop(file, { readonly: true });
    opened.push(device.fd);
    return device.path;
  };
  try {
    const source = await attach(mount.source);
    const options: string[] = [];
    for (const option of mount.options) {
      const file = option.startsWith(deviceOption) ? option.slice(deviceOption.length) : undefined;
      options.push(file === undefined ? option : deviceOption + (await attach(file)));
    }
    const onLoop = { ...mount, source, options };
    await mountErofs(onLoop, mountPoint);
    return onLoop;
  } finally {
    for (const fd of opened) close(fd);
  }
}

async function mountErofs({ source, options }: Mount, target: string): Promise<void> {
  const { flags, data } = parseMountOptions(options);
  const text = data.join(',');
  if (Buffer.byteLength(text) < optionLimit) return mountCall(source, target, 'erofs', flags, text || undefined);
  // Many devices: the newer calls take them one by one.
  const opened: number[] = [];
  try {
    const context = fsopen('erofs');
    opened.push(context);
    fsconfig(context, 'ro');
    fsconfig(context, 'source', source);
    for (const option of data) {
      const [, key = '', value] = /^([^=]*)(?:=(.*))?$/s.exec(option) ?? [];
      fsconfig(context, key, value);
    }
    await fsconfigCreate(context);
    const mounted = fsmount(context, mountAttributes(flags));
    opened.push(mounted);
    moveMount(mounted, '', AT_FDCWD, target, MOVE_MOUNT.F_EMPTY_PATH | MOVE_MOUNT.T_SYMLINKS);
  } finally {
    for (const fd of opened) close(fd);
  }
}
