// What containerd left under its root and state directories, put together from its files and looked after on the disk.
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { BoltFile } from './bolt/bolt-file.ts';
import { readMetadata } from './containerd/metadata.ts';
import type { ContainerdMetadata, NamespaceRecord, SnapshotRecord } from './containerd/records.ts';
import { readSnapshotterMetadata, type StoredSnapshot } from './containerd/snapshotter-metadata.ts';

/** A container's bundle, and the process in it if there is one of its number. */
export interface FoundTask {
  readonly namespace: string;
  readonly id: string;
  /** Undefined if its process has ended, or was never started. */
  readonly pid: number | undefined;
}

export interface Survey {
  readonly root: string;
  readonly state: string;
  readonly metadata: ContainerdMetadata;
  /** By snapshotter, for those that keep what they have in the same way as containerd's own. */
  readonly stored: ReadonlyMap<string, ReadonlyMap<string, StoredSnapshot>>;
  readonly tasks: readonly FoundTask[];
  /** What cannot be taken as it is, each a sentence. */
  readonly problems: readonly string[];
}

export interface SurveyOptions {
  /** containerd's, as `/var/lib/containerd`. */
  root: string;
  /** containerd's, as `/run/containerd`. */
  state: string;
  /** Names of the snapshotters that there are here. */
  snapshotters: readonly string[];
}

/**
 * Looks, and writes nothing. containerd cannot start while it does.
 * @throws StatusError NotFound if there is no metadata file, FailedPrecondition if containerd runs or a file is corrupt
 */
export function survey({ root, state, snapshotters }: SurveyOptions): Survey {
  using file = new BoltFile(path.join(root, 'io.containerd.metadata.v1.bolt/meta.db'));
  const metadata = readMetadata(file);
  const stored = readSnapshotters(root, metadata);
  const problems: string[] = [];
  for (const namespace of metadata.namespaces) {
    const report = (what: string) => problems.push(`namespace ${namespace.name}: ${what}`);
    checkContent(namespace, root, report);
    for (const snapshot of namespace.snapshots) {
      const problem = snapshotProblem(snapshot, root, stored);
      if (problem) report(`snapshot ${snapshot.key} of ${snapshot.snapshotter}: ${problem}`);
    }
    checkReferences(namespace, report);
  }
  const used = new Set(metadata.namespaces.flatMap((one) => one.snapshots.map(({ snapshotter }) => snapshotter)));
  for (const name of used)
    if (!snapshotters.includes(name)) problems.push(`snapshotter ${name}: there is none of that name here`);
  return { root, state, metadata, stored, tasks: findTasks(state), problems };
}

/** A name that is one component of a path, as containerd's identifiers are. */
const isPlain = (name: string) => /^[A-Za-z0-9][\w.-]*$/.test(name);

function readSnapshotters(
  root: string,
  metadata: ContainerdMetadata,
): Map<string, ReadonlyMap<string, StoredSnapshot>> {
  const found = new Map<string, ReadonlyMap<string, StoredSnapshot>>();
  for (const { snapshots } of metadata.namespaces) {
    for (const { snapshotter } of snapshots) {
      if (found.has(snapshotter) || !isPlain(snapshotter)) continue;
      const file = path.join(snapshotterRoot(root, snapshotter), 'metadata.db');
      if (!existsSync(file)) continue;
      using open = new BoltFile(file);
      found.set(snapshotter, readSnapshotterMetadata(open));
    }
  }
  return found;
}

const snapshotterRoot = (root: string, name: string) => path.join(root, `io.containerd.snapshotter.v1.${name}`);

function checkContent(namespace: NamespaceRecord, root: string, report: (what: string) => void): void {
  for (const { digest, size } of namespace.content) {
    const [, algorithm, hex] = /^(sha256|sha384|sha512):([0-9a-f]+)$/.exec(digest) ?? [];
    if (!algorithm || !hex) {
      report(`blob ${digest}: not a digest`);
      continue;
    }
    const file = path.join(root, 'io.containerd.content.v1.content/blobs', algorithm, hex);
    const stat = lstatSync(file, { bigint: true, throwIfNoEntry: false });
    if (!stat?.isFile()) report(`blob ${digest}: its file is missing`);
    else if (stat.size !== size) report(`blob ${digest}: its file has ${stat.size} bytes, not ${size}`);
  }
}

/** What is wrong with a snapshot, if anything is. */
function snapshotProblem(
  { snapshotter, backendName }: SnapshotRecord,
  root: string,
  stored: ReadonlyMap<string, ReadonlyMap<string, StoredSnapshot>>,
): string | undefined {
  const known = stored.get(snapshotter);
  if (!known) return 'what that snapshotter keeps cannot be read';
  const found = known.get(backendName);
  if (!found) return 'the snapshotter does not know it';
  // Others than these keep it elsewhere than in a directory.
  if (snapshotter !== 'overlayfs' && snapshotter !== 'native') return undefined;
  const folder = path.join(snapshotterRoot(root, snapshotter), 'snapshots', String(found.id));
  const isThere = lstatSync(folder, { throwIfNoEntry: false })?.isDirectory() ?? false;
  return isThere ? undefined : 'its directory is missing';
}

function checkReferences(namespace: NamespaceRecord, report: (what: string) => void): void {
  const digests = new Set(namespace.content.map(({ digest }) => digest));
  for (const { name, target } of namespace.images)
    if (!digests.has(target.digest)) report(`image ${name}: its target ${target.digest} is not there`);
  const snapshots = new Set(namespace.snapshots.map(({ snapshotter, key }) => `${snapshotter} ${key}`));
  for (const { id, snapshotter, snapshotKey } of namespace.containers)
    if (snapshotKey && !snapshots.has(`${snapshotter} ${snapshotKey}`))
      report(`container ${id}: its snapshot ${snapshotKey} of ${snapshotter} is not there`);
  for (const { ref } of namespace.ingests) report(`ingest ${ref}: a download that was not finished begins anew`);
}

/** Bundles lie at `<state>/io.containerd.runtime.v2.task/<namespace>/<id>`. */
function findTasks(state: string): FoundTask[] {
  const folder = path.join(state, 'io.containerd.runtime.v2.task');
  const tasks: FoundTask[] = [];
  for (const namespace of directories(folder))
    for (const id of directories(path.join(folder, namespace)))
      tasks.push({ namespace, id, pid: livePid(path.join(folder, namespace, id, 'init.pid')) });
  return tasks;
}

function directories(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return entries.map(({ name }) => name).sort();
}

function livePid(file: string): number | undefined {
  if (!lstatSync(file, { throwIfNoEntry: false })?.isFile()) return undefined;
  const text = readFileSync(file, 'utf8').trim();
  return /^[1-9][0-9]{0,9}$/.test(text) && existsSync(`/proc/${text}`) ? Number(text) : undefined;
}
