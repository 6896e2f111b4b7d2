import type { Mount } from '@gantry/mount';
import type { RequestContext } from '../request-context.ts';
import type {
  CommitSnapshotOptions,
  SnapshotInfo,
  SnapshotLayer,
  SnapshotOptions,
  SnapshotUsage,
} from './snapshotter.ts';

/**
 * Snapshots of one snapshotter as namespaces see them: the metadata layer over a Snapshotter. Keys are the client's own;
 * the layer maps them to unique keys below, keeps labels, adds to leases, and publishes /snapshot/* events.
 */
export interface NamespacedSnapshotter {
  /** The plugin id: `overlayfs`, `native`, … */
  readonly name: string;
  stat(ctx: RequestContext, key: string): Promise<SnapshotInfo>;
  update(
    ctx: RequestContext,
    info: { name: string; labels: Record<string, string> },
    paths: string[],
  ): Promise<SnapshotInfo>;
  usage(ctx: RequestContext, key: string): Promise<SnapshotUsage>;
  mounts(ctx: RequestContext, key: string): Promise<Mount[]>;
  prepare(ctx: RequestContext, key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  view(ctx: RequestContext, key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]>;
  /** Nothing will be written to that active snapshot any more; its commit, which may have to wait for its parent's, is quicker then. */
  measure?(ctx: RequestContext, key: string): void;
  commit(ctx: RequestContext, name: string, key: string, options?: CommitSnapshotOptions): Promise<void>;
  remove(ctx: RequestContext, key: string): Promise<void>;
  list(ctx: RequestContext, filters?: string[]): AsyncIterable<SnapshotInfo>;
  cleanup(ctx: RequestContext): Promise<void>;
  /** For callers that took steps: brings to disk what the snapshotter itself keeps of them. Records follow with the next durable change. */
  flush(): Promise<void>;
  /** Whether there is such a snapshot; then the caller's lease keeps it from now on. */
  hold?(ctx: RequestContext, key: string): Promise<boolean>;
  /** See MetadataSnapshotter. */
  remake?(
    collect: () => Promise<unknown>,
    fill: (namespace: string, layer: SnapshotLayer, mounts: Mount[]) => Promise<void>,
  ): Promise<void>;
}

/** Finds a snapshotter by name. @throws InvalidArgument `snapshotter not loaded: x`. '' means the namespace's default, else overlayfs. */
export interface SnapshotterRegistry {
  get(ctx: RequestContext, name: string): NamespacedSnapshotter;
  names(): string[];
}
