import { lchown, mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Mount } from '@gantry/mount';
import type { MetadataStore } from '../../core/metadata/metadata-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { SnapshotDirectories } from '../../core/snapshots/snapshot-directories.ts';
import { idMappingOf, SnapshotLabel } from '../../core/snapshots/snapshot-labels.ts';
import { SnapshotStorage, type StoredSnapshot } from '../../core/snapshots/snapshot-storage.ts';
import type {
  CommitSnapshotOptions,
  SnapshotInfo,
  SnapshotOptions,
  Snapshotter,
  SnapshotUsage,
} from '../../core/snapshots/snapshotter.ts';
import { TreeJobs } from '../../core/snapshots/tree-jobs.ts';

export interface OverlayOptions {
  /** Further overlay options of every mount, such as `index=off`. */
  mountOptions?: readonly string[];
  /** Show where a snapshot's own files are in the label `containerd.io/snapshot/overlay.upperdir`. */
  upperdirLabel?: boolean;
  /** Delete a snapshot's files before Remove answers, not at the next cleanup. */
  syncRemove?: boolean;
  /** The kernel can map ids of lower layers, so mappings in labels become mount options. */
  remapIds?: boolean;
}

/**
 * Snapshots as layers of overlayfs, in containerd's layout: `snapshots/<id>/fs` holds what a snapshot adds, `work` is
 * the kernel's scratch space of an active one. The tree itself is in a database of the snapshotter's own.
 */
export class OverlaySnapshotter implements Snapshotter {
  readonly #storage: SnapshotStorage;
  readonly #directories: SnapshotDirectories;
  readonly #options: OverlayOptions;
  readonly #trees: TreeJobs;

  private constructor(
    storage: SnapshotStorage,
    directories: SnapshotDirectories,
    trees: TreeJobs,
    options: OverlayOptions,
  ) {
    this.#trees = trees;
    this.#storage = storage;
    this.#directories = directories;
    this.#options = options;
  }

  /** Opens the snapshotter at a directory; the store is its own from now on and is closed with it. */
  static async open(root: string, store: MetadataStore, options: OverlayOptions = {}): Promise<OverlaySnapshotter> {
    const trees = new TreeJobs();
    const directories = await SnapshotDirectories.open(root, trees);
    const storage = new SnapshotStorage(store, await directories.highestId());
    directories.useForeign(storage.foreign());
    return new OverlaySnapshotter(storage, directories, trees, options);
  }

  async stat(key: string): Promise<SnapshotInfo> {
    const snapshot = this.#storage.get(key);
    return this.#labelled(snapshot.info, snapshot.id);
  }

  async update(info: { name: string; labels: Record<string, string> }, paths: string[]): Promise<SnapshotInfo> {
    const updated = await this.#storage.update(info, paths);
    return this.#options.upperdirLabel ? this.#labelled(updated, this.#storage.get(info.name).id) : updated;
  }

  async usage(key: string): Promise<SnapshotUsage> {
    const { id, info, usage } = this.#storage.get(key);
    return info.kind === 'active' ? this.#trees.usage(this.#upper(id)) : usage;
  }

  async mounts(key: string): Promise<Mount[]> {
    return this.#mounts(this.#storage.get(key));
  }

  prepare(key: string, parent: string, options?: SnapshotOptions, ctx?: RequestContext): Promise<Mount[]> {
    return this.#create('active', key, parent, options?.labels ?? {}, ctx?.step);
  }

  view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create('view', key, parent, options?.labels ?? {});
  }

  async commit(name: string, key: string, options: CommitSnapshotOptions = {}, ctx?: RequestContext): Promise<void> {
    const { id } = this.#storage.getActive(key);
    const usage = await this.#trees.usage(this.#upper(id));
    await this.#storage.commit(name, key, usage, options, ctx?.step);
  }

  flush(): Promise<void> {
    return this.#storage.flush();
  }

  async remove(key: string): Promise<void> {
    const id = await this.#storage.remove(key);
    if (this.#options.syncRemove) await this.#directories.remove(id);
  }

  async *list(): AsyncIterable<SnapshotInfo> {
    for (const info of this.#storage.list()) {
      yield this.#options.upperdirLabel ? this.#labelled(info, this.#storage.get(info.name).id) : info;
    }
  }

  cleanup(): Promise<void> {
    return this.#directories.collect(this.#storage);
  }

  async close(): Promise<void> {
    await this.#trees.close();
    await this.#storage.close();
  }

  async #create(
    kind: 'active' | 'view',
    key: string,
    parent: string,
    labels: Record<string, string>,
    step?: boolean,
  ): Promise<Mount[]> {
    const mapping = idMappingOf(labels);
    const [nearest] = this.#storage.parentChain(parent);
    const id = this.#storage.nextId();
    const snapshot = await this.#directories.make(
      id,
      async () => {
        const upper = this.#upper(id);
        await mkdir(upper, { mode: 0o755 });
        if (kind === 'active') await mkdir(this.#work(id), { mode: 0o711 });
        // The root directory of a snapshot belongs to whom its parent's does, or to the mapped root.
        if (mapping) {
          await lchown(upper, mapping.rootUid, mapping.rootGid);
        } else if (nearest !== undefined) {
          const { uid, gid } = await stat(this.#upper(nearest));
          if (uid !== 0 || gid !== 0) await lchown(upper, uid, gid);
        }
      },
      () => this.#storage.create(id, kind, key, parent, labels, step),
    );
    return this.#mounts(snapshot);
  }

  #mounts({ id, info, parents }: StoredSnapshot): Mount[] {
    const options: string[] = [];
    if (this.#options.remapIds) {
      const mapping = idMappingOf(info.labels);
      if (mapping) options.push(`uidmap=${mapping.uidmap}`, `gidmap=${mapping.gidmap}`);
    }
    const [nearest] = parents;
    if (nearest === undefined) {
      const access = info.kind === 'active' ? 'rw' : 'ro';
      return [{ type: 'bind', source: this.#upper(id), target: '', options: [...options, access, 'rbind'] }];
    }
    if (info.kind === 'active') {
      options.push(`workdir=${this.#work(id)}`, `upperdir=${this.#upper(id)}`);
    } else if (parents.length === 1) {
      return [{ type: 'bind', source: this.#upper(nearest), target: '', options: [...options, 'ro', 'rbind'] }];
    }
    options.push(`lowerdir=${parents.map((parent) => this.#upper(parent)).join(':')}`);
    options.push(...(this.#options.mountOptions ?? []));
    return [{ type: 'overlay', source: 'overlay', target: '', options }];
  }

  #labelled(info: SnapshotInfo, id: number): SnapshotInfo {
    if (!this.#options.upperdirLabel) return info;
    return { ...info, labels: { ...info.labels, [SnapshotLabel.upperDir]: this.#upper(id) } };
  }

  #upper(id: number): string {
    return path.join(this.#directories.of(id), 'fs');
  }

  #work(id: number): string {
    return path.join(this.#directories.of(id), 'work');
  }
}
