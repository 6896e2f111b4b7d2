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
  /** The bundle's directory, absolute. */
  readonly bundle: string;
  /** How its shim is reached, in whichever form its release writes it; undefined if it never got so far. */
  readonly bootstrap: string | undefined;
  /** The shim's program as the bundle names it; undefined where it does not. */
  readonly shimBinary: string | undefined;
}

/** A sandbox's bundle, where the controller `shim` runs it. */
export type FoundSandbox = Omit<FoundTask, 'pid'>;

export interface Survey {
  readonly root: string;
  readonly state: string;
  readonly metadata: ContainerdMetadata;
  /** By snapshotter, for those that keep what they have in the same way as containerd's own. */
  readonly stored: ReadonlyMap<string, ReadonlyMap<string, StoredSnapshot>>;
  readonly tasks: readonly FoundTask[];
  readonly sandboxes: readonly FoundSandbox[];
  /** Blobs and snapshots that cannot be taken, as `unsoundKey` names them. */
  readonly unsound: ReadonlySet<string>;
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
  /** Directories of snapshotters and of the content store that the configuration puts elsewhere than under `root`. */
  snapshotterRoots?: ReadonlyMap<string, string>;
  contentRoot?: string | undefined;
}

export type Unsound =
  | { kind: 'blob'; namespace: string; digest: string }
  | { kind: 'snapshot'; namespace: string; snapshotter: string; key: string };

export const unsoundKey = (one: Unsound): string => JSON.stringify(Object.values(one));

/** Where containerd keeps its metadata. */
export const metadataFileIn = (root: string): string => path.join(root, 'io.containerd.metadata.v1.bolt/meta.db');

/**
 * Looks, and writes nothing. containerd cannot start while it does.
 * @throws StatusError NotFound if there is no metadata file, FailedPrecondition if containerd runs or a file is corrupt
 */
export function survey(options: SurveyOptions): Survey {
  using file = new BoltFile(metadataFileIn(options.root));
  return surveyOf(file, options);
}

/** The same with the metadata file open already: containerd cannot start until it is closed. */
export function surveyOf(file: BoltFile, options: SurveyOptions): Survey {
  const { root, state, snapshotters } = options;
  const metadata = readMetadata(file);
  const stored = readSnapshotters(options, metadata);
  const problems: string[] = [];
  const unsound = new Set<string>();
  for (const namespace of metadata.namespaces) {
    const report = (what: string, lost?: Unsound) => {
      problems.push(`namespace ${namespace.name}: ${what}`);
      if (lost) unsound.add(unsoundKey(lost));
    };
    checkContent(namespace, contentRootOf(options), report);
    for (const { snapshotter, key, ...rest } of namespace.snapshots) {
      const problem = snapshotProblem({ snapshotter, ...rest }, options, stored);
      const lost: Unsound = { kind: 'snapshot', namespace: namespace.name, snapshotter, key };
      if (problem) report(`snapshot ${key} of ${snapshotter}: ${problem}`, lost);
    }
    checkReferences(namespace, report);
  }
  const used = new Set(metadata.namespaces.flatMap((one) => one.snapshots.map(({ snapshotter }) => snapshotter)));
  for (const name of used)
    if (!snapshotters.includes(name)) problems.push(`snapshotter ${name}: there is none of that name here`);
  for (const { namespace, id } of bundlesIn(path.join(state, 'io.containerd.runtime.v1.linux')))
    problems.push(
      `namespace ${namespace}: task ${id}: of runtime v1, which containerd 2 has removed too: end it there`,
    );
  return { root, state, metadata, stored, ...findBundles(state, metadata), unsound, problems };
}

type Report = (what: string, lost?: Unsound) => void;

/** A name that is one component of a path, as containerd's identifiers are. */
export const isPlain = (name: string): boolean => /^[A-Za-z0-9][\w.-]*$/.test(name);

function readSnapshotters(
  options: SurveyOptions,
  metadata: ContainerdMetadata,
): Map<string, ReadonlyMap<string, StoredSnapshot>> {
  const found = new Map<string, ReadonlyMap<string, StoredSnapshot>>();
  for (const { snapshots } of metadata.namespaces) {
    for (const { snapshotter } of snapshots) {
      if (found.has(snapshotter) || !isPlain(snapshotter)) continue;
      const file = path.join(snapshotterRootOf(options, snapshotter), 'metadata.db');
      if (!existsSync(file)) continue;
      using open = new BoltFile(file);
      found.set(snapshotter, readSnapshotterMetadata(open));
    }
  }
  return found;
}

/** Where containerd's snapshotter of a name keeps its things. */
export function snapshotterRootOf({ root, snapshotterRoots }: SurveyOptions, name: string): string {
  return snapshotterRoots?.get(name) ?? path.join(root, `io.containerd.snapshotter.v1.${name}`);
}

/** Where containerd's blobs are. */
export function contentRootOf({ root, contentRoot }: SurveyOptions): string {
  return contentRoot ?? path.join(root, 'io.containerd.content.v1.content');
}

function checkContent(namespace: NamespaceRecord, contentRoot: string, report: Report): void {
  for (const { digest, size } of namespace.content) {
    const lost: Unsound = { kind: 'blob', namespace: namespace.name, digest };
    const file = blobFile(contentRoot, digest);
    if (file === undefined) {
      report(`blob ${digest}: not a digest`, lost);
      continue;
    }
    const stat = lstatSync(file, { bigint: true, throwIfNoEntry: false });
    if (!stat?.isFile()) report(`blob ${digest}: its file is missing`, lost);
    else if (stat.size !== size) report(`blob ${digest}: its file has ${stat.size} bytes, not ${size}`, lost);
  }
}

/** Where a content store keeps a blob; undefined for what is no digest. */
export function blobFile(contentRoot: string, digest: string): string | undefined {
  const [, algorithm, hex] = /^(sha256|sha384|sha512):([0-9a-f]+)$/.exec(digest) ?? [];
  const digits = { sha256: 64, sha384: 96, sha512: 128 }[algorithm ?? ''];
  return hex?.length === digits && algorithm ? path.join(contentRoot, 'blobs', algorithm, hex!) : undefined;
}

/** What is wrong with a snapshot, if anything is. */
function snapshotProblem(
  { snapshotter, backendName }: Pick<SnapshotRecord, 'snapshotter' | 'backendName'>,
  options: SurveyOptions,
  stored: ReadonlyMap<string, ReadonlyMap<string, StoredSnapshot>>,
): string | undefined {
  const known = stored.get(snapshotter);
  if (!known) return 'what that snapshotter keeps cannot be read';
  const found = known.get(backendName);
  if (!found) return 'the snapshotter does not know it';
  // Others than these keep it elsewhere than in a directory.
  if (snapshotter !== 'overlayfs' && snapshotter !== 'native') return undefined;
  // A view in native shows its parent's.
  if (snapshotter === 'native' && found.kind === 'view' && found.parent !== '') return undefined;
  const folder = path.join(snapshotterRootOf(options, snapshotter), 'snapshots', String(found.id));
  const isThere = lstatSync(folder, { throwIfNoEntry: false })?.isDirectory() ?? false;
  return isThere ? undefined : 'its directory is missing';
}

function checkReferences(namespace: NamespaceRecord, report: Report): void {
  const digests = new Set(namespace.content.map(({ digest }) => digest));
  for (const { name, target } of namespace.images)
    if (!digests.has(target.digest)) report(`image ${name}: its target ${target.digest} is not there`);
  const snapshots = new Set(namespace.snapshots.map(({ snapshotter, key }) => `${snapshotter} ${key}`));
  for (const { id, snapshotter, snapshotKey } of namespace.containers)
    if (snapshotKey && !snapshots.has(`${snapshotter} ${snapshotKey}`))
      report(`container ${id}: its snapshot ${snapshotKey} of ${snapshotter} is not there`);
  for (const { ref } of namespace.ingests) report(`ingest ${ref}: a download that was not finished begins anew`);
}

/**
 * Bundles lie at `<state>/io.containerd.runtime.v2.task/<namespace>/<id>`, those of sandboxes beside them, in
 * `io.containerd.sandbox.controller.v1.shim` since containerd 2.3.
 */
function findBundles(state: string, { namespaces }: ContainerdMetadata): Pick<Survey, 'tasks' | 'sandboxes'> {
  const inTasks = bundlesIn(path.join(state, 'io.containerd.runtime.v2.task'));
  const containers = new Set(namespaces.flatMap((one) => one.containers.map(({ id }) => `${one.name}/${id}`)));
  const ofShims = new Set(
    namespaces.flatMap(({ name, sandboxes }) =>
      sandboxes.filter(({ sandboxer }) => sandboxer !== 'podsandbox').map(({ id }) => `${name}/${id}`),
    ),
  );
  const isSandbox = ({ namespace, id }: { namespace: string; id: string }) =>
    ofShims.has(`${namespace}/${id}`) && !containers.has(`${namespace}/${id}`);
  const beside = bundlesIn(path.join(state, sandboxController));
  return {
    tasks: inTasks
      .filter((one) => !isSandbox(one))
      .map((one) => ({ ...one, ...shimOf(one.bundle), pid: livePid(path.join(one.bundle, 'init.pid')) })),
    sandboxes: [...beside, ...inTasks.filter(isSandbox)].map((one) => ({ ...one, ...shimOf(one.bundle) })),
  };
}

export const sandboxController = 'io.containerd.sandbox.controller.v1.shim';

function shimOf(bundle: string): Pick<FoundTask, 'bootstrap' | 'shimBinary'> {
  const bootstrap = smallFile(path.join(bundle, 'bootstrap.json')) ?? smallFile(path.join(bundle, 'address'));
  return { bootstrap, shimBinary: smallFile(path.join(bundle, 'shim-binary-path')) || undefined };
}

/** The directories `<namespace>/<id>` in one. What was being deleted begins with a dot, and is left out. */
export function bundlesIn(folder: string): { namespace: string; id: string; bundle: string }[] {
  return directories(folder).flatMap((namespace) =>
    directories(path.join(folder, namespace))
      .filter((id) => !id.startsWith('.'))
      .map((id) => ({ namespace, id, bundle: path.join(folder, namespace, id) })),
  );
}

function directories(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return entries.map(({ name }) => name).sort();
}

/** Undefined if there is none, or something else in its place. */
function smallFile(file: string): string | undefined {
  const stat = lstatSync(file, { throwIfNoEntry: false });
  return stat?.isFile() && stat.size < 64 * 1024 ? readFileSync(file, 'utf8').trim() : undefined;
}

function livePid(file: string): number | undefined {
  const text = smallFile(file);
  return text !== undefined && /^[1-9][0-9]{0,9}$/.test(text) && existsSync(`/proc/${text}`) ? Number(text) : undefined;
}
