// What containerd's own snapshotters note beside their directories: `metadata.db`, v1/snapshots/<name>/<field>.
import { failedPrecondition } from '@gantry/api';
import type { BoltFile } from '../bolt/bolt-file.ts';
import * as read from './values.ts';

const kinds = ['unknown', 'view', 'active', 'committed'] as const;

export interface StoredSnapshot {
  /** `<namespace>/<number>/<key>`, as containerd's metadata refer to it. */
  readonly name: string;
  /** Its directory under `snapshots/`. */
  readonly id: bigint;
  readonly kind: (typeof kinds)[number];
  /** A name; empty if it has none. */
  readonly parent: string;
  /** Disk use of its own, in bytes; known once it is committed. */
  readonly size: bigint;
  readonly inodes: bigint;
}

/** The snapshots of one snapshotter by name. @throws StatusError FailedPrecondition if the file is not as containerd writes it */
export function readSnapshotterMetadata(file: BoltFile): ReadonlyMap<string, StoredSnapshot> {
  const found = new Map<string, StoredSnapshot>();
  for (const source of read.records(file.root.descend('v1', 'snapshots'), 'snapshot')) {
    const id = read.readUnsigned(source, 'id');
    const kind = kinds[source.bucket.value('kind')?.[0] ?? 0];
    if (id === undefined || kind === undefined)
      throw failedPrecondition(`${file.path}: ${source.name}: its id or kind cannot be read`);
    found.set(source.key, {
      name: source.key,
      id,
      kind,
      parent: read.readText(source, 'parent'),
      size: read.readVarint(source, 'size') ?? 0n,
      inodes: read.readVarint(source, 'inodes') ?? 0n,
    });
  }
  return found;
}
