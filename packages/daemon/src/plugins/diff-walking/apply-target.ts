/**
 * Where a layer can be unpacked without mounting anything: into the source of a bind mount, or into the upper directory of an
 * overlay, as containerd does.
 */
import type { ApplyTarget } from '@gantry/archive';
import type { Mount } from '@gantry/mount';

/** The directory behind `mounts`, or undefined if they have to be mounted first. */
export function directTarget(mounts: Mount[]): ApplyTarget | undefined {
  const [mount] = mounts;
  if (mounts.length !== 1 || !mount || mount.target) return undefined;
  if (mount.type === 'bind' && !mount.options.includes('ro')) return { root: mount.source, kind: 'merged' };
  if (mount.type === 'overlay') return overlayTarget(mount.options);
  return undefined;
}

function overlayTarget(options: string[]): ApplyTarget | undefined {
  let upper: string | undefined;
  let lowers: string[] = [];
  for (const option of options) {
    if (option.startsWith('upperdir=')) upper = option.slice('upperdir='.length);
    else if (option.startsWith('lowerdir=')) lowers = option.slice('lowerdir='.length).split(':');
    // Data-only and appended layers are read differently from a plain list.
    else if (option.startsWith('lowerdir+=') || option.startsWith('datadir+=')) return undefined;
  }
  // A backslash escapes a colon: rare enough to leave to the kernel. A layer that cannot be written is mounted, and says so.
  if (!upper || upper.includes('\\') || lowers.some((lower) => lower === '' || lower.includes('\\'))) return undefined;
  if (!upper.startsWith('/') || lowers.some((lower) => !lower.startsWith('/'))) return undefined;
  return {
    root: upper,
    kind: 'overlay',
    parents: lowers,
    ...(options.includes('userxattr') && { userXattr: true }),
  };
}
