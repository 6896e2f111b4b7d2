// Snapshots: used where containerd has them. What can still be written to and is not in use becomes a copy.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { LmdbStore } from '@gantry/daemon/core/metadata/lmdb-store.ts';
import { SnapshotDirectories } from '@gantry/daemon/core/snapshots/snapshot-directories.ts';
import { SnapshotStorage, type TakenSnapshot } from '@gantry/daemon/core/snapshots/snapshot-storage.ts';
import { TreeJobs } from '@gantry/daemon/core/snapshots/tree-jobs.ts';
import { readMountInfo } from '@gantry/sys';
import type { SnapshotRecord } from '../containerd/records.ts';
import type { StoredSnapshot } from '../containerd/snapshotter-metadata.ts';
import { isPlain, type Survey, type SurveyOptions, snapshotterRootOf, unsoundKey } from '../survey.ts';
import type { SnapshotEntry } from './records.ts';

/** Those that keep a snapshot in a directory of its own, as overlayfs does. */
export const takeable: readonly string[] = ['overlayfs', 'native'];

export interface PlannedSnapshot extends SnapshotEntry {
  namespace: string;
  /** Its directory at containerd's; '' if it has none. */
  directory: string;
  /** Not used by anybody, and can be written to: it is copied, so that containerd's is not written. */
  copied: boolean;
  stored: StoredSnapshot;
}

/** What to do with each snapshot that can be taken, by snapshotter. Their parents are among them. */
export function planSnapshots(found: Survey, options: SurveyOptions): Map<string, PlannedSnapshot[]> {
  const planned = new Map<string, PlannedSnapshot[]>();
  const inUse = directoriesInUse();
  for (const { name: namespace, snapshots, containers } of found.metadata.namespaces) {
    const running = new Set(found.tasks.filter((task) => task.namespace === namespace).map(({ id }) => id));
    const used = new Set(
      containers.filter(({ id }) => running.has(id)).map((one) => `${one.snapshotter} ${one.snapshotKey}`),
    );
    const byKey = new Map(snapshots.map((one) => [`${one.snapshotter} ${one.key}`, one]));
    for (const one of snapshots) {
      if (!canTake(one, byKey, found, namespace)) continue;
      const { snapshotter, key } = one;
      const stored = found.stored.get(snapshotter)!.get(one.backendName)!;
      const directory =
        snapshotter === 'native' && stored.kind === 'view' && stored.parent !== ''
          ? ''
          : path.join(snapshotterRootOf(options, snapshotter), 'snapshots', String(stored.id));
      const copied = stored.kind === 'active' && !used.has(`${snapshotter} ${key}`) && !inUse(directory);
      const list = planned.get(snapshotter) ?? [];
      list.push({ ...one, kind: stored.kind as SnapshotEntry['kind'], namespace, directory, copied, stored });
      planned.set(snapshotter, list);
    }
  }
  return planned;
}

/** Whether a snapshot is there with all that it builds on. */
function canTake(
  one: SnapshotRecord | undefined,
  byKey: ReadonlyMap<string, SnapshotRecord>,
  found: Survey,
  namespace: string,
): boolean {
  for (let left = byKey.size + 1; one && left > 0; left--) {
    const { snapshotter, key, parent, backendName } = one;
    if (!takeable.includes(snapshotter) || !isPlain(snapshotter)) return false;
    if (found.unsound.has(unsoundKey({ kind: 'snapshot', namespace, snapshotter, key }))) return false;
    if (found.stored.get(snapshotter)?.get(backendName)?.kind === 'unknown') return false;
    if (parent === '') return true;
    one = byKey.get(`${snapshotter} ${parent}`);
  }
  return false;
}

/** Tells whether something is mounted that writes to a directory, or shows it. */
function directoriesInUse(): (directory: string) => boolean {
  const used = new Set<string>();
  for (const { fsType, root, superOptions } of readMountInfo()) {
    used.add(root);
    if (fsType !== 'overlay') continue;
    for (const option of superOptions) {
      const upper = /^upperdir=(.+)\/fs$/.exec(option)?.[1];
      if (upper) used.add(upper);
    }
  }
  // The root of a bind mount is told as a path of its own filesystem, which may be mounted anywhere.
  return (directory) => used.has(directory) || [...used].some((one) => one.length > 1 && directory.endsWith(one));
}

/** Makes the snapshots of one snapshotter known to ours. Answers names of earlier ones that are gone but still built upon. */
export async function takeSnapshots(
  snapshotter: string,
  planned: readonly PlannedSnapshot[],
  root: string,
): Promise<string[]> {
  const trees = new TreeJobs();
  try {
    const directories = await SnapshotDirectories.open(root, trees);
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
    const storage = new SnapshotStorage(store, await directories.highestId());
    try {
      // What an earlier attempt copied, and did not come to note, is nobody's.
      directories.useForeign(storage.foreign());
      await directories.collect(storage);
      const taken: TakenSnapshot[] = [];
      for (const one of planned) taken.push(await take(snapshotter, one, storage, directories, trees));
      const kept = await storage.take(taken);
      directories.useForeign(storage.foreign());
      await directories.collect(storage);
      return kept;
    } finally {
      await storage.close();
    }
  } finally {
    await trees.close();
  }
}

const go = { seconds: -62135596800n, nanos: 0 };

async function take(
  snapshotter: string,
  { backendName, kind, directory, copied, stored, labels, createdAt, updatedAt }: PlannedSnapshot,
  storage: SnapshotStorage,
  directories: SnapshotDirectories,
  trees: TreeJobs,
): Promise<TakenSnapshot> {
  const snapshot: TakenSnapshot = {
    name: backendName,
    kind,
    parent: stored.parent,
    labels: Object.fromEntries(Object.entries(labels).filter(([name]) => name.startsWith('containerd.io/snapshot'))),
    createdAt: createdAt ?? go,
    updatedAt: updatedAt ?? go,
    inodes: Number(stored.inodes),
    size: Number(stored.size),
    at: directory,
  };
  if (!copied) return snapshot;
  const id = storage.nextId();
  const to = directories.of(id);
  if (snapshotter === 'overlayfs') {
    await mkdir(to, { mode: 0o700 });
    await mkdir(path.join(to, 'fs'), { mode: 0o755 });
    await mkdir(path.join(to, 'work'), { mode: 0o711 });
    await trees.copy(path.join(directory, 'fs'), path.join(to, 'fs'));
  } else {
    await mkdir(to, { mode: 0o755 });
    await trees.copy(directory, to);
  }
  return { ...snapshot, copy: id };
}
