// containerd's records as this daemon's metadata hold them.
import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import type { Time } from '@gantry/api';
import type { ContainerRecord } from '@gantry/daemon/core/containers/metadata-containers.ts';
import type { BlobRecord } from '@gantry/daemon/core/content/content-records.ts';
import type { ImageRecord } from '@gantry/daemon/core/images/metadata-images.ts';
import type { LeaseRecord } from '@gantry/daemon/core/leases/metadata-leases.ts';
import { type AnyRecord, toAnyRecord } from '@gantry/daemon/core/metadata/any-record.ts';
import type { Key, MetadataStore, ReadTransaction, Value } from '@gantry/daemon/core/metadata/metadata-store.ts';
import { keys } from '@gantry/daemon/core/metadata/schema.ts';
import type { NamespaceRecord } from '@gantry/daemon/core/namespaces/metadata-namespaces.ts';
import type { SandboxRecord } from '@gantry/daemon/core/sandboxes/metadata-sandboxes.ts';
import type { SnapshotRecord } from '@gantry/daemon/core/snapshots/snapshot-record.ts';
import type * as theirs from '../containerd/records.ts';

export type Entry = readonly [Key, Value];

/** The keys that came from containerd, so that another takeover, or an undoing, knows them. */
const takenPrefix = 'taken';

/** Go's zero time, which containerd answers where it never set one. */
const never: Time = { seconds: -62135596800n, nanos: 0 };

const dates = ({ createdAt, updatedAt }: { createdAt: Time | undefined; updatedAt: Time | undefined }) => ({
  createdAt: createdAt ?? never,
  updatedAt: updatedAt ?? never,
});

const any = (value: Any | undefined): AnyRecord | undefined => value && toAnyRecord(create(AnySchema, value));

const runtime = ({ name, options }: theirs.RuntimeRecord) => ({ name, ...(options && { options: any(options)! }) });

const extensions = (from: Record<string, Any>): Record<string, AnyRecord> =>
  Object.fromEntries(Object.entries(from).map(([name, value]) => [name, any(value)!]));

/** A snapshot that was taken: its kind is known to the snapshotter only. */
export interface SnapshotEntry extends theirs.SnapshotRecord {
  kind: SnapshotRecord['kind'];
}

/** All records of a namespace but those of blobs and snapshots that were not taken. */
export function* namespaceEntries(
  namespace: theirs.NamespaceRecord,
  isSound: (digest: string) => boolean,
  snapshots: readonly SnapshotEntry[],
): Generator<Entry> {
  const { name: ns } = namespace;
  yield [keys.namespace(ns), { labels: namespace.labels } satisfies NamespaceRecord];
  for (const { name, labels, target, ...rest } of namespace.images) {
    const { annotations, size, ...descriptor } = target;
    const record: ImageRecord = {
      labels,
      target: {
        ...descriptor,
        size: Number(size),
        ...(Object.keys(annotations).length > 0 && { annotations }),
      },
      ...dates(rest),
    };
    yield [keys.image(ns, name), record];
  }
  for (const { id, labels, image, spec, snapshotter, snapshotKey, sandbox, ...rest } of namespace.containers) {
    const record: ContainerRecord = {
      labels,
      image,
      runtime: runtime(rest.runtime),
      ...(spec && { spec: any(spec)! }),
      snapshotter,
      snapshotKey,
      extensions: extensions(rest.extensions),
      sandboxId: sandbox,
      ...dates(rest),
    };
    yield [keys.container(ns, id), record];
  }
  for (const { digest, size, labels, ...rest } of namespace.content) {
    if (!isSound(digest)) continue;
    yield [keys.blob(ns, digest), { size: Number(size), labels, ...dates(rest) } satisfies BlobRecord];
  }
  for (const { snapshotter, key, backendName, parent, labels, kind, ...rest } of snapshots) {
    const record: SnapshotRecord = { backendKey: backendName, kind, parent, labels, ...dates(rest) };
    yield [keys.snapshot(ns, snapshotter, key), record];
    if (parent !== '') yield [keys.snapshotChild(ns, snapshotter, parent, key), {}];
  }
  for (const { id, createdAt, labels, resources } of leasesOf(namespace)) {
    yield [keys.lease(ns, id), { createdAt: createdAt ?? never, labels } satisfies LeaseRecord];
    for (const { type, id: resource } of resources) yield [keys.leaseResource(ns, id, type, resource), {}];
  }
  for (const { id, labels, spec, sandboxer, ...rest } of sandboxesOf(namespace)) {
    const record: SandboxRecord = {
      labels,
      runtime: runtime(rest.runtime),
      ...(spec && { spec: any(spec)! }),
      sandboxer,
      extensions: extensions(rest.extensions),
      ...dates(rest),
    };
    yield [keys.sandbox(ns, id), record];
  }
}

/** Where the CRI plugin looks for a pod's metadata; in containerd's sandbox records they have another name than in its containers. */
const podMetadata = 'io.cri-containerd.sandbox.metadata';

/** Sandboxes, with those that releases without a sandbox store (1.6) have as records of their pause containers only. */
function sandboxesOf({ containers, sandboxes }: theirs.NamespaceRecord): theirs.SandboxRecord[] {
  const known = new Set(sandboxes.map(({ id }) => id));
  const more = containers
    .filter(({ id, labels }) => labels['io.cri-containerd.kind'] === 'sandbox' && !known.has(id))
    .flatMap(({ id, labels, spec, createdAt, updatedAt, ...rest }) => {
      const metadata = rest.extensions[podMetadata];
      if (!metadata) return [];
      const extensions = { metadata };
      return [{ id, labels, runtime: rest.runtime, spec, sandboxer: 'podsandbox', extensions, createdAt, updatedAt }];
    });
  return [...sandboxes, ...more].map((one) => {
    const { metadata } = one.extensions;
    if (one.sandboxer !== 'podsandbox' || !metadata || podMetadata in one.extensions) return one;
    return { ...one, extensions: { ...one.extensions, [podMetadata]: metadata } };
  });
}

/** Leases, with those that pods have here and had not in early releases. */
function leasesOf(namespace: theirs.NamespaceRecord): theirs.LeaseRecord[] {
  const known = new Set(namespace.leases.map(({ id }) => id));
  const pods = sandboxesOf(namespace).filter(({ id, sandboxer }) => sandboxer === 'podsandbox' && !known.has(id));
  const labels = { 'io.gantry.cri.sandbox': 'true' };
  return [...namespace.leases, ...pods.map(({ id, createdAt }) => ({ id, createdAt, labels, resources: [] }))];
}

/** Has these records of containerd's and no others, in one transaction. Those of this daemon's own stay, unless they have the same key. */
export function putTaken(store: MetadataStore, entries: Iterable<Entry>): Promise<void> {
  return store.update((tx) => {
    for (const key of [...takenKeys(tx)]) {
      tx.remove(key);
      tx.remove([takenPrefix, ...key]);
    }
    for (const [key, value] of entries) {
      tx.put(key, value);
      tx.put([takenPrefix, ...key], {});
    }
  });
}

/** Of records that came from containerd, whether they are still there or not. */
export function* takenKeys(tx: ReadTransaction): Generator<Key> {
  for (const { key } of tx.list([takenPrefix])) yield key.slice(1);
}

/** Containers and sandboxes of ours that containerd has too, and that did not come from there. */
export function conflicts(tx: ReadTransaction, { namespaces }: theirs.ContainerdMetadata): string[] {
  const found: string[] = [];
  for (const { name: ns, containers, sandboxes } of namespaces) {
    const check = (kind: string, id: string, key: Key) => {
      if (tx.has(key) && !tx.has([takenPrefix, ...key])) found.push(`${kind} ${ns}/${id}`);
    };
    for (const { id } of containers) check('container', id, keys.container(ns, id));
    for (const { id } of sandboxes) check('sandbox', id, keys.sandbox(ns, id));
  }
  return found;
}
