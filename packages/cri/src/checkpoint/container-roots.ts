import { randomUUID } from 'node:crypto';
import { copyFile } from 'node:fs/promises';
import { unimplemented } from '@gantry/api';
import { archivePool } from '@gantry/archive';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import type { Differ } from '@gantry/daemon/core/diff/differ.ts';
import type { LeaseManager } from '@gantry/daemon/core/leases/lease-manager.ts';
import type { MountManager } from '@gantry/daemon/core/mounts/mount-manager.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { TreeJobs } from '@gantry/daemon/core/snapshots/tree-jobs.ts';
import type { Mount } from '@gantry/mount';
import { withImageRoot } from '../images/user-files.ts';

export interface ContainerRootsOptions {
  content: ContentStore;
  snapshotters: SnapshotterRegistry;
  leases: LeaseManager;
  differ: Differ | undefined;
  mounts: MountManager | undefined;
  /** For mounts that live as long as a call. */
  temp: string;
}

/** What containers have written to their roots, out of and into files; and archives in and out of directories. Workers do it all. */
export class ContainerRoots {
  readonly #options: ContainerRootsOptions;
  readonly #trees = new TreeJobs();

  constructor(options: ContainerRootsOptions) {
    this.#options = options;
  }

  #differ(): Differ {
    const { differ } = this.#options;
    if (!differ) throw unimplemented('no differ for the roots of containers');
    return differ;
  }

  /** Writes the changes of a snapshot into `file`, as a gzip'd layer. */
  async writeChanges(ctx: RequestContext, snapshotter: string, key: string, file: string): Promise<void> {
    const { content, snapshotters, leases } = this.#options;
    const snapshots = snapshotters.get(ctx, snapshotter);
    // What is made on the way goes with the lease.
    const lease = `checkpoint-${randomUUID()}`;
    const quiet = { ...ctx, signal: undefined };
    await leases.create(quiet, { id: lease, labels: {} });
    const leased = { ...ctx, lease };
    const view = `${lease}-parent`;
    try {
      const { parent } = await snapshots.stat(leased, key);
      const lower = await snapshots.view(leased, view, parent ?? '');
      try {
        const { digest } = await this.#differ().diff(leased, lower, await snapshots.mounts(leased, key));
        await using reader = await content.reader(leased, digest);
        if (reader.path === undefined) throw unimplemented('checkpoints need a content store of local files');
        await copyFile(reader.path, file);
      } finally {
        await snapshots.remove(quiet, view);
      }
    } finally {
      await leases.delete(quiet, lease);
    }
  }

  /** Lays what is in `file`, a layer, over mounts. */
  async applyChanges(ctx: RequestContext, file: string, mounts: Mount[]): Promise<void> {
    const differ = this.#differ();
    if (!differ.applyFile) throw unimplemented('the differ takes no layer out of a file');
    await differ.applyFile(ctx, file, mounts);
  }

  /** Packs a directory into a new tar, or one that is there anew. Only its owner may read it. */
  async pack(directory: string, file: string, signal: AbortSignal | undefined): Promise<void> {
    const params = { upper: directory, target: { kind: 'file', path: file }, compression: 'none' };
    await archivePool().run('diff-layer', params, { signal });
  }

  /** Unpacks a tar, compressed or not, into a directory that is there. Nothing of it gets out of that. */
  async unpack(file: string, size: number, directory: string, signal: AbortSignal | undefined): Promise<void> {
    const params = { source: { kind: 'file', path: file, length: size }, target: { root: directory, kind: 'merged' } };
    await archivePool().run('apply-layer', params, { signal });
  }

  /** Copies all that is in an image into a directory that is there. */
  async copyImage(ctx: RequestContext, snapshotter: string, chainId: string, directory: string): Promise<void> {
    const { snapshotters, temp, mounts } = this.#options;
    const snapshots = snapshotters.get(ctx, snapshotter);
    await withImageRoot(ctx, snapshots, chainId, temp, mounts, (root) => this.#trees.copy(root, directory));
  }

  close(): Promise<void> {
    return this.#trees.close();
  }
}
