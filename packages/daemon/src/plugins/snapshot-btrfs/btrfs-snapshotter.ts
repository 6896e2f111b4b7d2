import { chmod, mkdir, readdir } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import { hasErrno } from '@gantry/sys';
import type { MetadataStore } from '../../core/metadata/metadata-store.ts';
import { SnapshotStorage, type StoredSnapshot } from '../../core/snapshots/snapshot-storage.ts';
import type {
  CommitSnapshotOptions,
  SnapshotInfo,
  SnapshotKind,
  SnapshotOptions,
  Snapshotter,
  SnapshotUsage,
} from '../../core/snapshots/snapshotter.ts';
import { TreeJobs } from '../../core/snapshots/tree-jobs.ts';
import { FileSystemSync } from '../../core/sync/filesystem-sync.ts';
import { createSubvolume, deleteSubvolume, snapshotSubvolume, subvolumeId } from './subvolumes.ts';

/** The directories of the subvolumes, as containerd names them. */
const folders: Record<SnapshotKind, string> = { active: 'active', view: 'view', committed: 'snapshots' };
const kinds = Object.keys(folders) as SnapshotKind[];

/**
 * Snapshots as subvolumes of a btrfs filesystem: `active/<id>` is a snapshot of its parent's `snapshots/<id>`, which is read-only.
 * Subvolumes are made before their record and deleted after it; those that a killed daemon left are found by `cleanup`.
 */
export class BtrfsSnapshotter implements Snapshotter {
  readonly #root: string;
  readonly #device: string;
  readonly #storage: SnapshotStorage;
  readonly #disk: FileSystemSync;
  readonly #trees = new TreeJobs();
  /** Ids that a call under way is working on. */
  readonly #busy = new Set<number>();

  private constructor(root: string, device: string, storage: SnapshotStorage, disk: FileSystemSync) {
    this.#disk = disk;
    this.#root = root;
    this.#device = device;
    this.#storage = storage;
  }

  /**
   * Opens the snapshotter at a directory of a btrfs filesystem; the store is its own from now on.
   * @param device what the filesystem is mounted from
   */
  static async open(root: string, device: string, store: MetadataStore): Promise<BtrfsSnapshotter> {
    let highest = 0;
    for (const kind of kinds) {
      await mkdir(path.join(root, folders[kind]), { recursive: true, mode: 0o700 });
      for (const id of await numbers(path.join(root, folders[kind]))) highest = Math.max(highest, id);
    }
    const storage = new SnapshotStorage(store, highest);
    return new BtrfsSnapshotter(root, device, storage, await FileSystemSync.open(root));
  }

  async stat(key: string): Promise<SnapshotInfo> {
    return this.#storage.get(key).info;
  }

  update(info: { name: string; labels: Record<string, string> }, paths: string[]): Promise<SnapshotInfo> {
    return this.#storage.update(info, paths);
  }

  async usage(key: string): Promise<SnapshotUsage> {
    const snapshot = this.#storage.get(key);
    return snapshot.info.kind === 'active' ? this.#measure(snapshot) : snapshot.usage;
  }

  #measure({ id, parents }: StoredSnapshot): Promise<SnapshotUsage> {
    const own = this.#pathOf('active', id);
    const [parent] = parents;
    return parent === undefined
      ? this.#trees.usage(own)
      : this.#trees.changedUsage(own, this.#pathOf('committed', parent));
  }

  async mounts(key: string): Promise<Mount[]> {
    return this.#mounts(this.#storage.get(key));
  }

  async prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    const [nearest] = this.#storage.parentChain(parent);
    return this.#make('active', key, parent, nearest, options);
  }

  /** A view shows its parent's own subvolume, which nobody can write to; only a view of nothing has one. */
  async view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    if (!parent) return this.#make('view', key, parent, undefined, options);
    return this.#mounts(await this.#storage.create(this.#storage.nextId(), 'view', key, parent, options?.labels));
  }

  async #make(
    kind: 'active' | 'view',
    key: string,
    parent: string,
    nearest: number | undefined,
    options?: SnapshotOptions,
  ): Promise<Mount[]> {
    const id = this.#storage.nextId();
    const directory = path.join(this.#root, folders[kind]);
    this.#busy.add(id);
    try {
      if (nearest === undefined) {
        await createSubvolume(directory, String(id));
        await chmod(this.#pathOf(kind, id), 0o755);
        // A new subvolume waits for the next transaction; a snapshot is one by itself.
        await this.#disk.sync();
      } else await snapshotSubvolume(this.#pathOf('committed', nearest), directory, String(id), false);
      return await this.#mounts(await this.#storage.create(id, kind, key, parent, options?.labels));
    } catch (error) {
      await this.#delete(kind, id);
      throw error;
    } finally {
      this.#busy.delete(id);
    }
  }

  async commit(name: string, key: string, options: CommitSnapshotOptions = {}): Promise<void> {
    const snapshot = this.#storage.getActive(key);
    const { id, info } = snapshot;
    if (options.parent && options.parent !== info.parent) {
      throw invalidArgument(
        `cannot commit ${key} onto ${options.parent}, a btrfs snapshot holds all of its parent: invalid argument`,
      );
    }
    const usage = await this.#measure(snapshot);
    if (this.#busy.has(id)) throw invalidArgument(`snapshot ${key} is being committed: invalid argument`);
    this.#busy.add(id);
    try {
      // A commit that a killed daemon did not record has left one.
      await this.#delete('committed', id);
      // What is still mounted may go on writing to the active one; the committed one is apart from it.
      await snapshotSubvolume(this.#pathOf('active', id), path.join(this.#root, folders.committed), String(id), true);
      try {
        await this.#storage.commit(name, key, usage, options);
      } catch (error) {
        await this.#delete('committed', id);
        throw error;
      }
      await this.#delete('active', id);
    } finally {
      this.#busy.delete(id);
    }
  }

  async remove(key: string): Promise<void> {
    const { kind } = this.#storage.get(key).info;
    await this.#delete(kind, await this.#storage.remove(key));
  }

  async *list(): AsyncIterable<SnapshotInfo> {
    yield* this.#storage.list();
  }

  /** Deletes every subvolume that no record owns. */
  async cleanup(): Promise<void> {
    const found: { kind: SnapshotKind; id: number }[] = [];
    for (const kind of kinds) {
      for (const id of await numbers(path.join(this.#root, folders[kind]))) found.push({ kind, id });
    }
    // One look at records and calls under way, after the listing: a subvolume is in one of them unless it is garbage.
    const owned = this.#storage.kinds();
    for (const { kind, id } of found) {
      if (owned.get(id) !== kind && !this.#busy.has(id)) await this.#delete(kind, id);
    }
  }

  async close(): Promise<void> {
    await this.#trees.close();
    await this.#disk.close();
    await this.#storage.close();
  }

  async #delete(kind: SnapshotKind, id: number): Promise<void> {
    try {
      await deleteSubvolume(path.join(this.#root, folders[kind]), String(id));
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return;
      // A container may have made subvolumes inside: an emptied one goes by rmdir.
      if (!hasErrno(error, 'ENOTEMPTY')) throw error;
      await this.#trees.remove(this.#pathOf(kind, id));
    }
  }

  #pathOf(kind: SnapshotKind, id: number): string {
    return path.join(this.#root, folders[kind], String(id));
  }

  async #mounts({ id, info, parents }: StoredSnapshot): Promise<Mount[]> {
    const [parent] = parents;
    const shown =
      info.kind === 'view' && parent !== undefined ? this.#pathOf('committed', parent) : this.#pathOf(info.kind, id);
    const options = [`subvolid=${await subvolumeId(shown)}`];
    if (info.kind !== 'active') options.push('ro');
    return [{ type: 'btrfs', source: this.#device, target: '', options }];
  }
}

async function numbers(directory: string): Promise<number[]> {
  return (await readdir(directory)).filter((name) => /^[1-9]\d*$/.test(name)).map(Number);
}
