import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { chmod, chown, mkdir, readdir, readFile, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { alreadyExists } from '@gantry/api';
import { removeAllBeneath, unmountRecursive } from '@gantry/mount';

/**
 * The directory of one task: `<state>/<namespace>/<id>` with `config.json`, `rootfs`, and what daemon and shim leave
 * there for each other, and a work directory under the daemon's root that outlives a reboot.
 */
export interface Bundle {
  readonly id: string;
  readonly namespace: string;
  readonly path: string;
  readonly work: string;
  /** For a task that was taken over from containerd, whose shim knows another bundle. */
  readonly taken?: TakenBundle | undefined;
}

/** What a takeover notes in the bundle of a task, file `taken.json`. */
export interface TakenBundle {
  /** containerd's bundle, absolute. It is the shim's working directory, and stays containerd's. */
  bundle: string;
  /** The socket to which the shim sends its events. */
  ttrpcAddress: string;
}

/** The directory that the shim of a task has as its bundle. */
export function shimBundle(bundle: Bundle): string {
  return bundle.taken?.bundle ?? bundle.path;
}

export const takenFile = 'taken.json';

export interface BundleRoots {
  /** `<daemon state>/io.containerd.runtime.v2.task` */
  state: string;
  /** `<daemon root>/io.containerd.runtime.v2.task` */
  root: string;
}

export function bundleAt(roots: BundleRoots, namespace: string, id: string): Bundle {
  return { id, namespace, path: path.join(roots.state, namespace, id), work: path.join(roots.root, namespace, id) };
}

/**
 * Makes a bundle's directories and writes its spec, if it has one (a sandbox may not). Leaves nothing if it fails. The state is in memory, where a system call costs less
 * than a thread to wait for it; the work directory is on disk.
 */
export async function createBundle(
  roots: BundleRoots,
  namespace: string,
  id: string,
  spec: Uint8Array | undefined,
): Promise<Bundle> {
  const bundle = bundleAt(roots, namespace, id);
  makeBundleDirectory(bundle, id);
  try {
    await Promise.all([spec && openToUserNamespace(bundle, spec), makeWork(bundle)]);
    mkdirSync(path.join(bundle.path, 'rootfs'), { mode: 0o711 });
    if (spec) writeFileSync(path.join(bundle.path, 'config.json'), spec, { mode: 0o666 });
    return bundle;
  } catch (error) {
    await deleteBundle(bundle);
    throw error;
  }
}

function makeBundleDirectory(bundle: Bundle, id: string): void {
  for (let parent = false; ; parent = true) {
    try {
      mkdirSync(bundle.path, { mode: 0o700 });
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') throw alreadyExists(`task ${id}: already exists`, error);
      if (code !== 'ENOENT' || parent) throw error;
      mkdirSync(path.dirname(bundle.path), { recursive: true, mode: 0o711 });
    }
  }
}

/** The work directory may be left from before a reboot: it is replaced. */
async function makeWork(bundle: Bundle): Promise<void> {
  try {
    await mkdir(bundle.work, { mode: 0o711 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') await mkdir(path.dirname(bundle.work), { recursive: true, mode: 0o711 });
    else if (code === 'EEXIST') await removeAllBeneath(bundle.work);
    else throw error;
    await mkdir(bundle.work, { mode: 0o711 });
  }
  symlinkSync(bundle.work, path.join(bundle.path, 'work'));
}

/** Root inside a user namespace must be able to reach the root file system through the bundle. */
async function openToUserNamespace(bundle: Bundle, spec: Uint8Array): Promise<void> {
  const text = Buffer.from(spec.buffer, spec.byteOffset, spec.byteLength);
  if (!text.includes('"gidMappings"')) return;
  const mappings: { containerID: number; hostID: number }[] | undefined = JSON.parse(text.toString())?.linux
    ?.gidMappings;
  const root = mappings?.find((mapping) => mapping.containerID === 0)?.hostID;
  if (root === undefined || root === 0) return;
  await chown(bundle.path, 0, root);
  await chmod(bundle.path, 0o710);
}

/**
 * Unmounts and removes a bundle. It is renamed first, so that a crash half-way leaves a name that the next start sweeps.
 * If something stays mounted the directory stays too, and the error says so.
 */
export async function deleteBundle(bundle: Bundle): Promise<void> {
  const rootfs = path.join(bundle.path, 'rootfs');
  try {
    // What can be removed has nothing mounted on it: the list of mounts need not be read. It may wait all the same: the kernel takes
    // the mounts of mount namespaces that are about to end away with it, and that takes a grace period.
    await rmdir(rootfs);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      await unmountRecursive(rootfs);
      await rmdir(rootfs).catch(ignoreMissing);
    }
  }
  const aside = path.join(path.dirname(bundle.path), `.${bundle.id}`);
  try {
    renameSync(bundle.path, aside);
    await removeAllBeneath(aside);
  } catch (error) {
    ignoreMissing(error);
  }
  await removeWork(bundle);
}

async function removeWork(bundle: Bundle): Promise<void> {
  try {
    await rmdir(bundle.work);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') await removeAllBeneath(bundle.work).catch(ignoreMissing);
  }
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}

/** All bundles on disk, by namespace; finishes the removal of those that were being deleted. */
export async function listBundles(roots: BundleRoots): Promise<Bundle[]> {
  const bundles: Bundle[] = [];
  for (const namespace of await directories(roots.state)) {
    for (const id of await directories(path.join(roots.state, namespace))) {
      if (id.startsWith('.')) await removeAllBeneath(path.join(roots.state, namespace, id));
      else bundles.push(await withTaken(bundleAt(roots, namespace, id)));
    }
  }
  return bundles;
}

async function withTaken(bundle: Bundle): Promise<Bundle> {
  const text = await readBundleFile(bundle, takenFile);
  return text === undefined ? bundle : { ...bundle, taken: JSON.parse(text) as TakenBundle };
}

/** Removes work directories that have no bundle, as after a reboot. */
export async function sweepWork(roots: BundleRoots): Promise<void> {
  for (const namespace of await directories(roots.root)) {
    const kept = new Set(await directories(path.join(roots.state, namespace)));
    for (const id of await directories(path.join(roots.root, namespace))) {
      if (!kept.has(id)) await removeAllBeneath(path.join(roots.root, namespace, id));
    }
  }
}

async function directories(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    ignoreMissing(error);
    return [];
  }
}

/** A small file of the bundle, undefined if it is not there. */
export async function readBundleFile(bundle: Bundle, name: string): Promise<string | undefined> {
  try {
    return await readFile(path.join(bundle.path, name), 'utf8');
  } catch (error) {
    ignoreMissing(error);
    return undefined;
  }
}

/** Writes a small file of the bundle so that a reader sees all of it or none. */
export async function writeBundleFile(bundle: Bundle, name: string, text: string): Promise<void> {
  // In memory, and without a break: no other writer comes between.
  const temporary = path.join(bundle.path, `.${name}`);
  try {
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, path.join(bundle.path, name));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
