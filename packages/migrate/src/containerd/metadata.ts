// containerd's metadata (`io.containerd.metadata.v1.bolt/meta.db` under its root): v1/<namespace>/<kind>/<key>/<field>.
import { failedPrecondition } from '@gantry/api';
import type { BoltFile } from '../bolt/bolt-file.ts';
import type { BoltBucket } from '../bolt/bucket.ts';
import type * as is from './records.ts';
import * as read from './values.ts';

/** Revisions of the schema that have been looked at: containerd 1.6 writes 3, containerd 2.3 writes 4. */
const newestVersion = 4n;

/**
 * Everything in a metadata file, in order of names.
 * @throws StatusError FailedPrecondition if the file is corrupt, none of containerd's, or newer than this reader
 */
export function readMetadata(file: BoltFile): is.ContainerdMetadata {
  const { root } = file;
  const top = root.bucket('v1');
  const version = top && read.readVarint({ name: file.path, bucket: top }, 'version');
  if (!top) throw failedPrecondition(`${file.path}: no metadata of containerd: it has no bucket "v1"`);
  if (version !== undefined && version > newestVersion)
    throw failedPrecondition(`${file.path}: its schema is version ${version}; up to ${newestVersion} is understood`);
  const namespaces = new Map<string, BoltBucket | undefined>();
  for (const { key, bucket } of read.records(top, 'namespace')) namespaces.set(key, bucket);
  // Earlier releases than 2.3 put sandboxes beside "v1" instead of into it, where a namespace may have nothing else.
  for (const { key, bucket } of read.records(root, 'namespace')) {
    if (key !== 'v1' && bucket.bucket('sandboxes') && !namespaces.has(key)) namespaces.set(key, undefined);
  }
  return {
    version: Number(version ?? 0n),
    namespaces: [...namespaces].map(([name, bucket]) => readNamespace(name, bucket, root.descend(name, 'sandboxes'))),
  };
}

function readNamespace(name: string, bucket: BoltBucket | undefined, beside?: BoltBucket): is.NamespaceRecord {
  const where = `namespace ${name}:`;
  const each = <T>(what: string, from: BoltBucket | undefined, make: (source: Row) => T): T[] =>
    Array.from(read.records(from, `${where} ${what}`), make);
  return {
    name,
    labels: bucket ? read.readTexts({ name: where, bucket }, 'labels') : {},
    images: each('image', bucket?.bucket('images'), readImage),
    containers: each('container', bucket?.bucket('containers'), readContainer),
    content: each('blob', bucket?.descend('content', 'blob'), readBlob),
    ingests: each('ingest', bucket?.descend('content', 'ingests'), readIngest),
    snapshots: each('snapshotter', bucket?.bucket('snapshots'), readSnapshotter).flat(),
    leases: each('lease', bucket?.bucket('leases'), readLease),
    sandboxes: [bucket?.bucket('sandboxes'), beside].flatMap((from) => each('sandbox', from, readSandbox)),
  };
}

type Row = read.Source & { readonly key: string };

function dates(source: read.Source) {
  return { createdAt: read.readTime(source, 'createdat'), updatedAt: read.readTime(source, 'updatedat') };
}

function readImage(source: Row): is.ImageRecord {
  const target = source.bucket.bucket('target');
  if (!target) throw failedPrecondition(`${source.name}: it has no target`);
  const from = { name: `${source.name}: target`, bucket: target };
  return {
    name: source.key,
    labels: read.readTexts(source, 'labels'),
    target: {
      mediaType: read.readText(from, 'mediatype'),
      digest: read.readText(from, 'digest'),
      size: read.readVarint(from, 'size') ?? 0n,
      // Of the target, though they stand beside it.
      annotations: read.readTexts(source, 'annotations'),
    },
    ...dates(source),
  };
}

function readRuntime(source: read.Source): is.RuntimeRecord {
  const bucket = source.bucket.bucket('runtime');
  if (!bucket) return { name: '', options: undefined };
  const from = { name: `${source.name}: runtime`, bucket };
  return { name: read.readText(from, 'name'), options: read.readAny(from, 'options') };
}

function readContainer(source: Row): is.ContainerRecord {
  return {
    id: source.key,
    labels: read.readTexts(source, 'labels'),
    image: read.readText(source, 'image'),
    runtime: readRuntime(source),
    spec: read.readAny(source, 'spec'),
    snapshotter: read.readText(source, 'snapshotter'),
    snapshotKey: read.readText(source, 'snapshotKey'),
    extensions: read.readAnys(source, 'extensions'),
    sandbox: read.readText(source, 'sandboxid'),
    ...dates(source),
  };
}

function readBlob(source: Row): is.BlobRecord {
  return {
    digest: source.key,
    size: read.readVarint(source, 'size') ?? 0n,
    labels: read.readTexts(source, 'labels'),
    ...dates(source),
  };
}

function readIngest(source: Row): is.IngestRecord {
  return {
    ref: source.key,
    backendRef: read.readText(source, 'ref'),
    expected: read.readText(source, 'expected'),
    expireAt: read.readTime(source, 'expireat'),
  };
}

function readSnapshotter(snapshotter: Row): is.SnapshotRecord[] {
  return Array.from(read.records(snapshotter.bucket, `${snapshotter.name}: snapshot`), (source) => ({
    snapshotter: snapshotter.key,
    key: source.key,
    backendName: read.readText(source, 'name'),
    parent: read.readText(source, 'parent'),
    children: keys(source.bucket.bucket('children'), source.name),
    labels: read.readTexts(source, 'labels'),
    ...dates(source),
  }));
}

function readLease(source: Row): is.LeaseRecord {
  const resources: { type: string; id: string }[] = [];
  for (const { key, bucket, name } of read.records(source.bucket, `${source.name}:`)) {
    if (key === 'labels') continue;
    if (key !== 'snapshots') {
      for (const id of keys(bucket, name)) resources.push({ type: key, id });
      continue;
    }
    for (const snapshotter of read.records(bucket, name))
      for (const id of keys(snapshotter.bucket, name)) resources.push({ type: `snapshots/${snapshotter.key}`, id });
  }
  return {
    id: source.key,
    createdAt: read.readTime(source, 'createdat'),
    labels: read.readTexts(source, 'labels'),
    resources,
  };
}

function readSandbox(source: Row): is.SandboxRecord {
  return {
    id: source.key,
    labels: read.readTexts(source, 'labels'),
    runtime: readRuntime(source),
    spec: read.readAny(source, 'spec'),
    sandboxer: read.readText(source, 'sandboxer'),
    extensions: read.readAnys(source, 'extensions'),
    ...dates(source),
  };
}

function keys(bucket: BoltBucket | undefined, name: string): string[] {
  return Array.from(bucket?.entries() ?? [], (entry) => read.keyOf(entry, name));
}
