/** The same mounts, for reading only. */
import type { Mount } from './mount.ts';

/** `fuse-overlayfs` takes the same options as the kernel's overlay. */
const overlayTypes = new Set(['overlay', 'fuse3.fuse-overlayfs', 'fuse.fuse-overlayfs']);

/** An overlay loses its work directory and its upper layer becomes the topmost lower one; every other mount becomes `ro`. */
export function readonlyMounts(mounts: readonly Mount[]): Mount[] {
  return mounts.map((mount) => ({ ...mount, options: overlayTypes.has(mount.type) ? overlay(mount) : others(mount) }));
}

function others(mount: Mount): string[] {
  return [...mount.options.filter((option) => option !== 'rw' && option !== 'ro'), 'ro'];
}

function overlay(mount: Mount): string[] {
  const upper = mount.options.find((option) => option.startsWith('upperdir='))?.slice(9);
  return mount.options
    .filter((option) => !option.startsWith('workdir=') && !option.startsWith('upperdir='))
    .map((option) =>
      upper && option.startsWith('lowerdir=') ? `lowerdir=${upper}:${option.slice('lowerdir='.length)}` : option,
    );
}
