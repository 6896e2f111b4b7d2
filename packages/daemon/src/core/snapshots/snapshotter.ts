import type { Time } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { RequestContext } from '../request-context.ts';

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
  /** The layer that was unpacked into it. In a step, it then need not be on disk yet: it is made again from the layer if it is lost. */
  layer?: SnapshotLayer;
}

/** Descriptor of a layer in the content store. */
export interface SnapshotLayer {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/**
 * A snapshotter without namespaces: keys are unique across it. Implementations run the contract suite in
 * `snapshotter-contract.ts`. Labels are kept by the metadata layer; those that start with `containerd.io/snapshot` are
 * also handed down here.
 *
 * `ctx` says for whom it is called, if for somebody: those that speak to another process pass it on, others need not look.
 *
 * Errors: NotFound for a missing key or parent, AlreadyExists for a taken key or name, InvalidArgument for a parent
 * that is not committed, FailedPrecondition for removing a snapshot that has children or committing one that is not active.
 */
export interface Snapshotter {
  /** Runs in another process: it may be away for a while, and it may keep namespaces apart, so `list` is asked for each. */
  readonly remote?: boolean;
  stat(key: string, ctx?: RequestContext): Promise<SnapshotInfo>;
  update(
    info: { name: string; labels: Record<string, string> },
    paths: string[],
    ctx?: RequestContext,
  ): Promise<SnapshotInfo>;
  usage(key: string, ctx?: RequestContext): Promise<SnapshotUsage>;
  mounts(key: string, ctx?: RequestContext): Promise<Mount[]>;
  prepare(key: string, parent: string, options?: SnapshotOptions, ctx?: RequestContext): Promise<Mount[]>;
  view(key: string, parent: string, options?: SnapshotOptions, ctx?: RequestContext): Promise<Mount[]>;
  /** Nothing will be written to that active snapshot any more: what its commit has to count may be counted from now on. */
  measure?(key: string): void;
  commit(name: string, key: string, options?: CommitSnapshotOptions, ctx?: RequestContext): Promise<void>;
  remove(key: string, ctx?: RequestContext): Promise<void>;
  list(ctx?: RequestContext): AsyncIterable<SnapshotInfo>;
  /** Frees what removed snapshots and broken operations left on disk. */
  cleanup?(ctx?: RequestContext): Promise<void>;
  /** Settles when what was answered to a `step` is on disk; absent where every answer means that. */
  flush?(): Promise<void>;
  /** Settles when the files of what was committed with a `layer` are on disk too; absent where every commit means that. */
  settle?(): Promise<void>;
  /** What was committed with a `layer` and not settled when the machine stopped; parents first. Nobody can use it before `remake`. */
  suspects?(): string[];
  /** Empties one of them and has it filled again; `settle` must follow. */
  remake?(name: string, fill: (mounts: Mount[]) => Promise<void>): Promise<void>;
  close(): Promise<void>;
}
