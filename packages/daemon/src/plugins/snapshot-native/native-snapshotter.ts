import { chmod } from 'node:fs/promises';
import { invalidArgument } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { MetadataStore } from '../../core/metadata/metadata-store.ts';
import { SnapshotDirectories } from '../../core/snapshots/snapshot-directories.ts';
import { SnapshotStorage, type StoredSnapshot } from '../../core/snapshots/snapshot-storage.ts';
import type {
  CommitSnapshotOptions,
  SnapshotInfo,
  SnapshotOptions,
  Snapshotter,
  SnapshotUsage,
} from '../../core/snapshots/snapshotter.ts';
import { TreeJobs } from '../../core/snapshots/tree-jobs.ts';
import { FileSystemSync } from '../../core/sync/filesystem-sync.ts';

/**
 * Snapshots as plain copies: each active one starts as a copy of its parent's directory `snapshots/<id>`. Works on every
 * filesystem; costs the space of the whole tree each time, unless the filesystem can share data (reflink).
 */
export class NativeSnapshotter implements Snapshotter {
  readonly #storage: SnapshotStorage;
  readonly #directories: SnapshotDirectories;
  readonly #trees: TreeJobs;
  readonly #disk: FileSystemSync;

  private constructor(
    storage: SnapshotStorage,
    directories: SnapshotDirectories,
    trees: TreeJobs,
    disk: FileSystemSync,
  ) {
    this.#disk = disk;
    this.#storage = storage;
    this.#directories = directories;
    this.#trees = trees;
  }

  /** Opens the snapshotter at a directory; the store is its own from now on and is closed with it. */
  static async open(root: string, store: MetadataStore): Promise<NativeSnapshotter> {
    const trees = new TreeJobs();
    const directories = await SnapshotDirectories.open(root, trees);
    const storage = new SnapshotStorage(store, await directories.highestId());
    directories.useForeign(storage.foreign());
    return new NativeSnapshotter(storage, directories, trees, await FileSystemSync.open(root));
  }

  async stat(key: string): Promise<SnapshotInfo> {
    return this.#storage.get(key).info;
  }

  update(info: { name: string; labels: Record<string, string> }, paths: string[]): Promise<SnapshotInfo> {
    return this.#storage.update(info, paths);
  }

  async usage(key: string): Promise<SnapshotUsage> {
    const { id, info, usage } = this.#storage.get(key);
    return info.kind === 'active' ? this.#trees.usage(this.#directories.of(id)) : usage;
  }

  async mounts(key: string): Promise<Mount[]> {
    return this.#mounts(this.#storage.get(key));
  }

  async prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    const [nearest] = this.#storage.parentChain(parent);
    const id = this.#storage.nextId();
    const fill = async (dir: string) => {
      if (nearest === undefined) await chmod(dir, 0o755);
      else await this.#trees.copy(this.#directories.of(nearest), dir);
    };
    return this.#make(id, fill, () => this.#storage.create(id, 'active', key, parent, options?.labels));
  }

  /** A view shows its parent's own directory; only a view of nothing has one. */
  async view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    const id = this.#storage.nextId();
    const record = () => this.#storage.create(id, 'view', key, parent, options?.labels);
    if (parent) return this.#mounts(await record());
    return this.#make(id, (dir) => chmod(dir, 0o755), record);
  }

  /** The copy is on disk before its record. */
  async #make(
    id: number,
    fill: (dir: string) => Promise<void>,
    record: () => Promise<StoredSnapshot>,
  ): Promise<Mount[]> {
    const filled = async (dir: string) => {
      await fill(dir);
      await this.#disk.sync();
    };
    return this.#mounts(await this.#directories.make(id, filled, record));
  }

  async commit(name: string, key: string, options: CommitSnapshotOptions = {}): Promise<void> {
    const { id, info } = this.#storage.getActive(key);
    if (options.parent && options.parent !== info.parent) {
      throw invalidArgument(
        `cannot commit ${key} onto ${options.parent}, a native snapshot holds all of its parent: invalid argument`,
      );
    }
    const usage = await this.#trees.usage(this.#directories.of(id));
    await this.#disk.sync();
    await this.#storage.commit(name, key, usage, options);
  }

  async remove(key: string): Promise<void> {
    await this.#directories.remove(await this.#storage.remove(key));
  }

  async *list(): AsyncIterable<SnapshotInfo> {
    yield* this.#storage.list();
  }

  cleanup(): Promise<void> {
    return this.#directories.collect(this.#storage);
  }

  async close(): Promise<void> {
    await this.#trees.close();
    await this.#disk.close();
    await this.#storage.close();
  }

  #mounts({ id, info, parents }: StoredSnapshot): Mount[] {
    const shown = info.kind === 'view' ? (parents[0] ?? id) : id;
    const access = info.kind === 'active' ? 'rw' : 'ro';
    return [{ type: 'bind', source: this.#directories.of(shown), target: '', options: [access, 'rbind'] }];
  }
}
