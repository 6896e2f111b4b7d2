/** Performs mounts and undoes them. */
import { readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { invalidArgument } from '@gantry/api';
import {
  AT_FDCWD,
  close,
  hasErrno,
  MNT,
  MS,
  mount as mountCall,
  O,
  openat,
  openInRoot,
  readMountInfoAsync,
  umount,
} from '@gantry/sys';
import { mountIdmapped, withIdmappedLayers } from './idmap.ts';
import { attachLoop } from './loop.ts';
import type { Mount } from './mount.ts';
import { mountByHelper, mountHelper } from './mount-helper.ts';
import { type ParsedOptions, parseMountOptions } from './options.ts';
import { mountLongOverlay, optionLimit } from './overlay.ts';

/** What a bind mount takes only when mounted again. */
const bindAttributes =
  MS.RDONLY | MS.NOSUID | MS.NODEV | MS.NOEXEC | MS.NOATIME | MS.NODIRATIME | MS.STRICTATIME | MS.NOSYMFOLLOW;

/**
 * Performs mounts in order on `target`. A mount's own `target` is a path below it, resolved as if `target` were the root, so that
 * links inside cannot lead out. With `root`, `target` itself is resolved that way inside `root`. If one fails, those before it are
 * unmounted again and the error is thrown.
 */
export async function mountAll(mounts: readonly Mount[], target: string, root?: string): Promise<void> {
  const done: string[] = [];
  try {
    for (const mount of mounts) {
      const inside = [...(root === undefined ? [] : [target]), ...(mount.target ? [mount.target] : [])];
      done.push(...(await mountBeneath(mount, root ?? target, inside)));
    }
  } catch (error) {
    const failures: unknown[] = [];
    for (const path of done.reverse()) {
      await umount(path, MNT.DETACH | MNT.UMOUNT_NOFOLLOW).catch((failure) => failures.push(failure));
    }
    if (failures.length > 0 && error instanceof Error) {
      error.message += ` (and undoing: ${failures.map((failure) => (failure as Error).message).join('; ')})`;
    }
    throw error;
  }
}

// Opens the directory step by step, each inside of the one before, mounts on its descriptor, and tells where that is.
async function mountBeneath(mount: Mount, base: string, inside: readonly string[]): Promise<string[]> {
  let fd = openat(AT_FDCWD, base, O.PATH);
  try {
    for (const path of inside) {
      const next = openInRoot(fd, path, O.PATH);
      close(fd);
      fd = next;
    }
    const place = await readlink(`/proc/self/fd/${fd}`);
    return await performMount(mount, inside.length > 0 ? `/proc/self/fd/${fd}` : base, place);
  } finally {
    close(fd);
  }
}

/** Performs one mount on exactly `target` (its own `target` is not looked at). Returns the points to unmount to undo it. */
async function performMount(mount: Mount, target: string, place: string): Promise<string[]> {
  const helper = mountHelper(mount.type);
  if (helper) {
    await mountByHelper(helper, mount, place);
    return [place];
  }
  const parsed = parseMountOptions(mount.options);
  const remount = (parsed.flags & MS.REMOUNT) !== 0;
  if (!remount && !mount.type && !(parsed.flags & MS.BIND) && !parsed.propagation) {
    throw invalidArgument(`mount of ${mount.source} has neither a type nor bind`);
  }
  await attach(mount, target, parsed);
  const undo = remount || onlyPropagation(mount, parsed) ? [] : [place];
  try {
    // What was just mounted covers the descriptor's directory: from here on by the path.
    if (parsed.flags & MS.BIND && parsed.flags & bindAttributes && !remount) {
      const flags = parsed.flags & (bindAttributes | MS.BIND);
      await mountCall('', place, '', MS.REMOUNT | flags);
    }
    if (parsed.propagation) await mountCall('', place, '', parsed.propagation);
    return undo;
  } catch (error) {
    if (undo.length > 0) await umount(place, MNT.DETACH | MNT.UMOUNT_NOFOLLOW);
    throw error;
  }
}

const onlyPropagation = (mount: Mount, parsed: ParsedOptions) =>
  parsed.propagation !== 0 && !mount.type && parsed.flags === 0 && parsed.data.length === 0;

async function attach(mount: Mount, target: string, parsed: ParsedOptions): Promise<void> {
  const { flags, data, idmap } = parsed;
  if (onlyPropagation(mount, parsed)) return;
  if (flags & MS.BIND && !(flags & MS.REMOUNT)) {
    if (idmap) return mountIdmapped(mount.source, target, idmap, (flags & MS.REC) !== 0);
    return mountCall(mount.source, target, '', flags & (MS.BIND | MS.REC));
  }
  const type = flags & MS.BIND ? '' : mount.type;
  if (type === 'overlay') {
    const overlay = (options: readonly string[]) =>
      Buffer.byteLength(options.join(',')) < optionLimit
        ? mountCall(mount.source || 'overlay', target, type, flags, options.join(','))
        : mountLongOverlay(target, flags, options);
    return idmap ? withIdmappedLayers(data, idmap, overlay) : overlay(data);
  }
  const text = data.join(',') || undefined;
  if (Buffer.byteLength(text ?? '') > 4095) throw invalidArgument(`mount options of ${mount.source} exceed a page`);
  if (parsed.losetup) {
    const device = await attachLoop(mount.source, { readonly: (flags & MS.RDONLY) !== 0 });
    try {
      await mountCall(device.path, target, type, flags, text);
    } finally {
      close(device.fd);
    }
  } else await mountCall(mount.source, target, type, flags, text);
  if (idmap) {
    // The mount made just now is replaced by its mapped copy: a mount cannot be given a mapping where it is attached.
    try {
      await mountIdmapped(target, target, idmap, false);
    } catch (error) {
      await umount(target, MNT.DETACH);
      throw error;
    }
  }
}

// A mount that is busy for a moment (a scanner, a process that is just ending) is tried again for two and a half seconds.
async function umountPatiently(path: string, flags: number): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await umount(path, flags);
    } catch (error) {
      if (!hasErrno(error, 'EBUSY') || attempt >= 50) throw error;
      await sleep(50);
    }
  }
}

/** Unmounts all that is mounted on a path, until nothing is. A path that is no mount, or is not there, is well. */
export async function unmountAll(target: string, flags = 0): Promise<void> {
  for (;;) {
    try {
      await umountPatiently(target, flags | MNT.UMOUNT_NOFOLLOW);
    } catch (error) {
      if (hasErrno(error, 'EINVAL', 'ENOENT')) return;
      throw error;
    }
  }
}

/** Unmounts everything on and beneath a path, the deepest first. What cannot be unmounted is told after all was tried. */
export async function unmountRecursive(target: string, flags = 0): Promise<void> {
  const prefix = target.endsWith('/') ? target : `${target}/`;
  const points = new Set<string>();
  for (const { mountPoint } of await readMountInfoAsync()) {
    if (mountPoint === target || mountPoint.startsWith(prefix)) points.add(mountPoint);
  }
  const failures: unknown[] = [];
  for (const point of [...points].sort((a, b) => b.length - a.length)) {
    await unmountAll(point, flags).catch((error) => failures.push(error));
  }
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) throw new AggregateError(failures, `unmounting beneath ${target}: ${failures.join('; ')}`);
}
