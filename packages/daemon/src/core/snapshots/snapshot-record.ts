import type { Time } from '@gantry/api';
import type { SnapshotKind, SnapshotLayer } from './snapshotter.ts';

/** A snapshot as a namespace has it. */
export interface SnapshotRecord {
  /** Its key or name in the snapshotter below. */
  backendKey: string;
  kind: SnapshotKind;
  parent: string;
  labels: Record<string, string>;
  createdAt: Time;
  updatedAt: Time;
  /** What it can be made of again, as long as its files are not known to be on disk. */
  layer?: SnapshotLayer;
}
