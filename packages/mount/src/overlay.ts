/**
 * Overlay mounts with more layers than fit into mount(2)'s one page of options: the newer calls take the layers one by one (Linux
 * 6.5); before that every directory is named by a short path through its descriptor.
 */
import {
  AT_FDCWD,
  close,
  fsconfig,
  fsconfigCreate,
  fsmount,
  fsopen,
  hasErrno,
  MOUNT_ATTR,
  MOVE_MOUNT,
  MS,
  mount as mountCall,
  moveMount,
  O,
  openat,
} from '@gantry/sys';

/** mount(2) copies one page, and the kernel adds some of its own. */
export const optionLimit = 4096 - 512;

/** Splits `lowerdir=`'s value at colons that are not escaped; `data` marks those after `::` (data-only layers). */
export function splitLowerdir(value: string): { path: string; data: boolean }[] {
  const layers: { path: string; data: boolean }[] = [];
  let path = '';
  let data = false;
  let only = false;
  const end = () => {
    if (path !== '') layers.push({ path, data: only });
    only = data;
    data = false;
    path = '';
  };
  for (let at = 0; at < value.length; at++) {
    if (value[at] === '\\' && at + 1 < value.length) path += value[++at];
    else if (value[at] === ':') {
      if (value[at + 1] === ':') {
        at++;
        data = true;
      }
      end();
    } else path += value[at];
  }
  end();
  return layers;
}

// A value of fsconfig holds 255 bytes; a longer path is named by its descriptor instead.
function short(path: string, opened: number[], limit = 255): string {
  if (Buffer.byteLength(path) <= limit) return path;
  const fd = openat(AT_FDCWD, path, O.PATH | O.DIRECTORY);
  opened.push(fd);
  return `/proc/self/fd/${fd}`;
}

const pathOptions = ['upperdir=', 'workdir='];

/** Mounts by fsopen and its kin. EINVAL at the first `lowerdir+` where the kernel does not know that. */
async function mountByContext(target: string, flags: number, data: readonly string[]): Promise<void> {
  const opened: number[] = [];
  try {
    const context = fsopen('overlay');
    opened.push(context);
    fsconfig(context, 'source', 'overlay');
    if (flags & MS.RDONLY) fsconfig(context, 'ro');
    for (const option of data) {
      const equals = option.indexOf('=');
      const key = equals < 0 ? option : option.slice(0, equals);
      const value = equals < 0 ? undefined : option.slice(equals + 1);
      if (key === 'lowerdir') {
        for (const layer of splitLowerdir(value ?? '')) {
          fsconfig(context, layer.data ? 'datadir+' : 'lowerdir+', short(layer.path, opened));
        }
      } else if (value !== undefined && pathOptions.includes(`${key}=`)) fsconfig(context, key, short(value, opened));
      else fsconfig(context, key, value);
    }
    await fsconfigCreate(context);
    const mounted = fsmount(context, mountAttributes(flags));
    opened.push(mounted);
    moveMount(mounted, '', AT_FDCWD, target, MOVE_MOUNT.F_EMPTY_PATH | MOVE_MOUNT.T_SYMLINKS);
  } finally {
    for (const fd of opened) close(fd);
  }
}

/** The part of mount(2)'s flags that belongs to the mount and not to the filesystem, as MOUNT_ATTR. */
export function mountAttributes(flags: number): number {
  let attributes = 0;
  if (flags & MS.RDONLY) attributes |= MOUNT_ATTR.RDONLY;
  if (flags & MS.NOSUID) attributes |= MOUNT_ATTR.NOSUID;
  if (flags & MS.NODEV) attributes |= MOUNT_ATTR.NODEV;
  if (flags & MS.NOEXEC) attributes |= MOUNT_ATTR.NOEXEC;
  if (flags & MS.NOATIME) attributes |= MOUNT_ATTR.NOATIME;
  else if (flags & MS.STRICTATIME) attributes |= MOUNT_ATTR.STRICTATIME;
  if (flags & MS.NODIRATIME) attributes |= MOUNT_ATTR.NODIRATIME;
  if (flags & MS.NOSYMFOLLOW) attributes |= MOUNT_ATTR.NOSYMFOLLOW;
  return attributes;
}

/** Mounts by mount(2) with every directory shortened to /proc/self/fd/N: some 200 layers fit. */
async function mountByDescriptors(target: string, flags: number, data: readonly string[]): Promise<void> {
  const opened: number[] = [];
  try {
    const options = data.map((option) => {
      for (const prefix of pathOptions) {
        if (option.startsWith(prefix)) return prefix + short(option.slice(prefix.length), opened, 24);
      }
      if (!option.startsWith('lowerdir=')) return option;
      const layers = splitLowerdir(option.slice(9));
      return `lowerdir=${layers.map(({ path, data }, index) => (index ? (data ? '::' : ':') : '') + short(path, opened, 0)).join('')}`;
    });
    await mountCall('overlay', target, 'overlay', flags, options.join(','));
  } finally {
    for (const fd of opened) close(fd);
  }
}

/** Mounts an overlay whose options are too long for one page. `way` forces one of the two for tests. */
export async function mountLongOverlay(
  target: string,
  flags: number,
  data: readonly string[],
  way?: 'context' | 'descriptors',
): Promise<void> {
  if (way === 'descriptors') return mountByDescriptors(target, flags, data);
  try {
    await mountByContext(target, flags, data);
  } catch (error) {
    if (way || !hasErrno(error, 'ENOSYS', 'EINVAL', 'EPERM')) throw error;
    await mountByDescriptors(target, flags, data);
  }
}
