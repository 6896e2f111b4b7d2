import { AT_FDCWD, close, ioctl, ioctlAsync, O, openat } from '@gantry/sys';

// ioctl(2) requests of linux/btrfs.h; each takes a structure of 4096 bytes.
const SUBVOL_CREATE = 0x5000940e;
const SNAP_DESTROY = 0x5000940f;
const SNAP_CREATE_V2 = 0x50009417;
const INO_LOOKUP = 0xd0009412;
const readOnlyFlag = 1n << 1n;
/** The inode of a subvolume's own directory. */
const firstFreeObjectId = 256n;

async function within<T>(path: string, fn: (fd: number) => T | Promise<T>): Promise<T> {
  const fd = openat(AT_FDCWD, path, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    return await fn(fd);
  } finally {
    close(fd);
  }
}

/** struct btrfs_ioctl_vol_args_v2, of which btrfs_ioctl_vol_args differs by where the name is. */
function volumeArguments(name: string, nameAt: 8 | 56): Buffer {
  const bytes = Buffer.alloc(4096);
  if (name.length === 0 || name.includes('/') || Buffer.byteLength(name) > 255) throw new Error(`not a name: ${name}`);
  bytes.write(name, nameAt);
  return bytes;
}

/** Makes an empty subvolume `name` in a directory. */
export function createSubvolume(directory: string, name: string): Promise<void> {
  return within(directory, async (fd) => void (await ioctlAsync(fd, SUBVOL_CREATE, volumeArguments(name, 8))));
}

/** Makes `name` in a directory a snapshot of the subvolume at `source`. What was written to that is in it, flushed. */
export function snapshotSubvolume(source: string, directory: string, name: string, readOnly: boolean): Promise<void> {
  return within(source, (from) =>
    within(directory, async (fd) => {
      const bytes = volumeArguments(name, 56);
      bytes.writeBigInt64LE(BigInt(from), 0);
      bytes.writeBigUInt64LE(readOnly ? readOnlyFlag : 0n, 16);
      await ioctlAsync(fd, SNAP_CREATE_V2, bytes);
    }),
  );
}

/** Deletes the subvolume `name`; its bytes are freed by the kernel later. ENOTEMPTY: it has subvolumes inside. */
export function deleteSubvolume(directory: string, name: string): Promise<void> {
  return within(directory, async (fd) => void (await ioctlAsync(fd, SNAP_DESTROY, volumeArguments(name, 8))));
}

/** The number that the mount option `subvolid` takes. */
export function subvolumeId(path: string): Promise<bigint> {
  return within(path, (fd) => {
    const bytes = Buffer.alloc(4096);
    bytes.writeBigUInt64LE(firstFreeObjectId, 8);
    ioctl(fd, INO_LOOKUP, bytes);
    return bytes.readBigUInt64LE(0);
  });
}
