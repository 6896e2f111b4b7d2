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

/**
 * The upper directory whose content is all that `upper` adds to `lower`, or undefined if the two have to be compared: `upper` is
 * an overlay, and `lower` shows exactly its lower directories.
 */
export function directUpper(lower: Mount[], upper: Mount[]): string | undefined {
  const [mount] = upper;
  if (upper.length !== 1 || mount?.type !== 'overlay' || mount.target) return undefined;
  const target = overlayTarget(mount.options);
  // Under an id mapping, what is on disk is not what the mount shows.
  if (mount.options.some((option) => /^[ug]idmap=/.test(option))) return undefined;
  if (!target || lower.length !== 1 || lower[0]!.target) return undefined;
  return sameList(shownLayers(lower[0]!), target.parents ?? []) ? target.root : undefined;
}

/** Directories that a mount for reading shows, topmost first. */
function shownLayers(mount: Mount): string[] {
  if (mount.type === 'bind') return [mount.source];
  if (mount.type !== 'overlay') return [];
  const value = (name: string) => mount.options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const upper = value('upperdir');
  return [...(upper === undefined ? [] : [upper]), ...(value('lowerdir')?.split(':') ?? [])];
}

function sameList(a: string[], b: string[]): boolean {
  return a.length > 0 && a.length === b.length && a.every((item, i) => item === b[i]);
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
