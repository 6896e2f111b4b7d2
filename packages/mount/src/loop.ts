/** Loop devices: a file as a block device, which the kernel frees by itself once it is unmounted. */
import { AT_FDCWD, close, hasErrno, ioctl, ioctlAsync, O, openat } from '@gantry/sys';

const LOOP_CTL_GET_FREE = 0x4c82;
const LOOP_CONFIGURE = 0x4c0a;
const LOOP_SET_STATUS64 = 0x4c04;
const LOOP_GET_STATUS64 = 0x4c05;
/** sizeof(struct loop_info64), and where its flags are. */
const INFO_SIZE = 232;
const INFO_FLAGS = 52;
const READ_ONLY = 1;
const AUTOCLEAR = 4;

/** An attached device. It is gone when `fd` and every mount of it are. */
export interface LoopDevice {
  path: string;
  fd: number;
}

/** Attaches a file to a free loop device. Mount `path`, then close `fd`. */
export async function attachLoop(file: string, options: { readonly?: boolean } = {}): Promise<LoopDevice> {
  const mode = (options.readonly ? O.RDONLY : O.RDWR) | 0;
  const backing = openat(AT_FDCWD, file, mode);
  try {
    const control = openat(AT_FDCWD, '/dev/loop-control', O.RDWR);
    try {
      // Between asking for a free number and taking it somebody else may take it: ask again.
      for (let attempt = 0; ; attempt++) {
        const number = ioctl(control, LOOP_CTL_GET_FREE, 0);
        const path = `/dev/loop${number}`;
        const fd = openat(AT_FDCWD, path, mode);
        try {
          await ioctlAsync(fd, LOOP_CONFIGURE, loopConfig(backing, file, options.readonly ?? false));
          return { path, fd };
        } catch (error) {
          close(fd);
          if (!hasErrno(error, 'EBUSY') || attempt >= 100) throw error;
        }
      }
    } finally {
      close(control);
    }
  } finally {
    close(backing);
  }
}

// struct loop_config: the descriptor, a block size (0: as the file has), struct loop_info64, 64 bytes for later.
function loopConfig(backing: number, file: string, readonly: boolean): Buffer {
  const config = Buffer.alloc(304);
  config.writeUInt32LE(backing, 0);
  config.writeUInt32LE(AUTOCLEAR | (readonly ? READ_ONLY : 0), 8 + 52);
  config.write(file, 8 + 56, 63);
  return config;
}

/** Whether a file is behind the device. */
export async function isLoopAttached(fd: number): Promise<boolean> {
  try {
    await ioctlAsync(fd, LOOP_GET_STATUS64, Buffer.alloc(INFO_SIZE));
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENXIO')) return false;
    throw error;
  }
}

/** Whether the kernel frees the device once nobody has it open or mounted. */
export async function setLoopAutoclear(fd: number, on: boolean): Promise<void> {
  const info = Buffer.alloc(INFO_SIZE);
  await ioctlAsync(fd, LOOP_GET_STATUS64, info);
  const flags = info.readUInt32LE(INFO_FLAGS);
  info.writeUInt32LE(on ? flags | AUTOCLEAR : flags & ~AUTOCLEAR, INFO_FLAGS);
  await ioctlAsync(fd, LOOP_SET_STATUS64, info);
}
