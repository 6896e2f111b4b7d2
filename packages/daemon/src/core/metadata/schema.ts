import type { Key } from './metadata-store.ts';

/**
 * Where each kind of record is. The first component is the kind, the second the namespace (but for namespaces
 * themselves), so that one prefix lists one kind in one namespace.
 */
export const keys = {
  namespaces: (): Key => ['namespace'],
  namespace: (name: string): Key => ['namespace', name],
  images: (namespace: string): Key => ['image', namespace],
  image: (namespace: string, name: string): Key => ['image', namespace, name],
  containers: (namespace: string): Key => ['container', namespace],
  container: (namespace: string, id: string): Key => ['container', namespace, id],
  sandboxes: (namespace: string): Key => ['sandbox', namespace],
  sandbox: (namespace: string, id: string): Key => ['sandbox', namespace, id],
  leases: (namespace: string): Key => ['lease', namespace],
  lease: (namespace: string, id: string): Key => ['lease', namespace, id],
  leaseResources: (namespace: string, id: string): Key => ['lease-resource', namespace, id],
  leaseResource: (namespace: string, id: string, type: string, resource: string): Key => [
    'lease-resource',
    namespace,
    id,
    type,
    resource,
  ],
  blobs: (namespace: string): Key => ['blob', namespace],
  blob: (namespace: string, digest: string): Key => ['blob', namespace, digest],
  ingests: (namespace: string): Key => ['ingest', namespace],
  ingest: (namespace: string, ref: string): Key => ['ingest', namespace, ref],
  snapshotsOf: (namespace: string): Key => ['snapshot', namespace],
  snapshots: (namespace: string, snapshotter: string): Key => ['snapshot', namespace, snapshotter],
  snapshot: (namespace: string, snapshotter: string, key: string): Key => ['snapshot', namespace, snapshotter, key],
  snapshotChildren: (namespace: string, snapshotter: string, parent: string): Key => [
    'snapshot-child',
    namespace,
    snapshotter,
    parent,
  ],
  snapshotChild: (namespace: string, snapshotter: string, parent: string, key: string): Key => [
    'snapshot-child',
    namespace,
    snapshotter,
    parent,
    key,
  ],
  mounts: (namespace: string): Key => ['mount', namespace],
  mount: (namespace: string, name: string): Key => ['mount', namespace, name],
  /** Next number of a named sequence. */
  sequence: (name: string): Key => ['sequence', name],
} as const;
