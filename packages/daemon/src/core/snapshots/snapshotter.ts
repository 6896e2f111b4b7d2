import type { Time } from '@gantry/api';
import type { Mount } from '@gantry/mount';

export type SnapshotKind = 'view' | 'active' | 'committed';

export interface SnapshotInfo {
  kind: SnapshotKind;
  /** The key of a view or active snapshot, the name of a committed one. */
  name: string;
  /** Name of the committed parent, '' for none. */
  parent: string;
  labels: Record<string, string>;
  createdAt: Time;
  updatedAt: Time;
}

/** Disk use of one snapshot without its parents. */
export interface SnapshotUsage {
  inodes: number;
  /** Bytes. */
  size: number;
}

export interface SnapshotOptions {
  labels?: Record<string, string>;
}

export interface CommitSnapshotOptions extends SnapshotOptions {
  /**
   * Commits a snapshot prepared without a parent on top of this one (`rebase`), so that layers can be unpacked in any order.
   * Only snapshotters with the capability `rebase` take another parent than the one prepared on.
   */
  parent?: string;
}

/**
 * A snapshotter without namespaces: keys are unique across it. Implementations run the contract suite in
 * `snapshotter-contract.ts`. Labels are kept by the metadata layer; those that start with `containerd.io/snapshot` are
 * also handed down here.
 *
 * Errors: NotFound for a missing key or parent, AlreadyExists for a taken key or name, InvalidArgument for a parent
 * that is not committed, FailedPrecondition for removing a snapshot that has children or committing one that is not active.
 */
export interface Snapshotter {
  stat(key: string): Promise<SnapshotInfo>;
  update(info: { name: string; labels: Record<string, string> }, paths: string[]): Promise<SnapshotInfo>;
  usage(key: string): Promise<SnapshotUsage>;
  mounts(key: string): Promise<Mount[]>;
  prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  commit(name: string, key: string, options?: CommitSnapshotOptions): Promise<void>;
  remove(key: string): Promise<void>;
  list(): AsyncIterable<SnapshotInfo>;
  /** Frees what removed snapshots and broken operations left on disk. */
  cleanup?(): Promise<void>;
  close(): Promise<void>;
}
