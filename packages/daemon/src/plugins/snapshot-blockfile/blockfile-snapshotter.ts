import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument, StatusError } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import { syncAll } from '@gantry/sys';
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
import { syncPath } from '../../core/sync/filesystem-sync.ts';
import { isAttachedFor } from './attached.ts';

export interface BlockfileSettings {
  /** The filesystem inside the files. */
  fsType: string;
  /** Options of every mount besides `loop` and `ro` or `rw`. */
  mountOptions: readonly string[];
}

/** Files of commits under way, beside `snapshots`; those of a killed daemon are removed at start. */
const inCommit = 'commit-';
/** How long a commit waits for the file to be unmounted everywhere. */
const patienceMs = 500;

const scratchOf = (root: string) => path.join(root, 'scratch');

/**
 * Copies the empty filesystem `source` to where the snapshotter keeps it, if it is not there or `again`.
 * @throws StatusError with what cannot be read or written
 */
export async function prepareScratch(root: string, source: string, again: boolean): Promise<void> {
  const scratch = scratchOf(root);
  if (!source || (!again && existsSync(scratch))) return;
  await mkdir(root, { recursive: true, mode: 0o700 });
  const trees = new TreeJobs();
  // A daemon killed meanwhile leaves no half one under the name.
  const fresh = `${scratch}.new`;
  try {
    await rm(fresh, { force: true });
    await trees.copyBlocks(source, fresh);
    await rename(fresh, scratch);
  } catch (error) {
    throw StatusError.wrap(error, 'failed to generate scratch file');
  } finally {
    await trees.close();
  }
}

/**
 * Snapshots as files that hold a filesystem each: `snapshots/<id>` starts as a copy of its parent's, or of the empty `scratch`. The
 * copy shares blocks where the host's filesystem can, and keeps holes where not. Made for runtimes that give the file to a virtual
 * machine; here it is mounted by a loop device.
 */
export class BlockfileSnapshotter implements Snapshotter {
  readonly #root: string;
  readonly #settings: BlockfileSettings;
  readonly #storage: SnapshotStorage;
  readonly #files: SnapshotDirectories;
  readonly #trees: TreeJobs;

  private constructor(
    root: string,
    settings: BlockfileSettings,
    storage: SnapshotStorage,
    files: SnapshotDirectories,
    trees: TreeJobs,
  ) {
    this.#root = root;
    this.#settings = settings;
    this.#storage = storage;
    this.#files = files;
    this.#trees = trees;
  }

  /** Opens the snapshotter at a directory with a `scratch`; the store is its own from now on and is closed with it. */
  static async open(root: string, store: MetadataStore, settings: BlockfileSettings): Promise<BlockfileSnapshotter> {
    const trees = new TreeJobs();
    const files = await SnapshotDirectories.open(root, trees, 'file');
    for (const name of await readdir(root)) if (name.startsWith(inCommit)) await rm(path.join(root, name));
    const storage = new SnapshotStorage(store, await files.highestId());
    return new BlockfileSnapshotter(root, settings, storage, files, trees);
  }

  async stat(key: string): Promise<SnapshotInfo> {
    return this.#storage.get(key).info;
  }

  update(info: { name: string; labels: Record<string, string> }, paths: string[]): Promise<SnapshotInfo> {
    return this.#storage.update(info, paths);
  }

  /** Blocks that the file has more than the one it was copied from, whether or not they share them. */
  async usage(key: string): Promise<SnapshotUsage> {
    const snapshot = this.#storage.get(key);
    return snapshot.info.kind === 'active' ? this.#measure(snapshot) : snapshot.usage;
  }

  async #measure({ id, parents: [parent] }: StoredSnapshot): Promise<SnapshotUsage> {
    const base = await stat(this.#startOf(parent));
    const own = await stat(this.#files.of(id));
    return { inodes: 1, size: Math.max(0, own.blocks - base.blocks) * 512 };
  }

  async mounts(key: string): Promise<Mount[]> {
    return this.#mounts(this.#storage.get(key));
  }

  prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#copy('active', key, parent, options);
  }

  /** A view shows its parent's own file; only a view of nothing has one. */
  async view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    if (!parent) return this.#copy('view', key, parent, options);
    return this.#mounts(await this.#storage.create(this.#storage.nextId(), 'view', key, parent, options?.labels));
  }

  async #copy(kind: 'active' | 'view', key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    const [nearest] = this.#storage.parentChain(parent);
    const id = this.#storage.nextId();
    return this.#mounts(
      await this.#files.make(
        id,
        async (file) => {
          await this.#trees.copyBlocks(this.#startOf(nearest), file);
          await syncPath(path.dirname(file));
        },
        () => this.#storage.create(id, kind, key, parent, options?.labels),
      ),
    );
  }

  #startOf(parent: number | undefined): string {
    return parent === undefined ? scratchOf(this.#root) : this.#files.of(parent);
  }

  async commit(name: string, key: string, options: CommitSnapshotOptions = {}): Promise<void> {
    const snapshot = this.#storage.getActive(key);
    if (options.parent && options.parent !== snapshot.info.parent) {
      throw invalidArgument(
        `cannot commit ${key} onto ${options.parent}, a block file holds all of its parent: invalid argument`,
      );
    }
    const file = this.#files.of(snapshot.id);
    if (await isAttachedFor(file, patienceMs)) await this.#takeApart(file);
    else await syncPath(file);
    await this.#storage.commit(name, key, await this.#measure(snapshot), options);
  }

  /** What is still mounted goes on writing to the old file, which is nobody's from now on; the name gets a copy of what it held. */
  async #takeApart(file: string): Promise<void> {
    const copy = path.join(this.#root, `${inCommit}${path.basename(file)}`);
    await syncAll();
    await rm(copy, { force: true });
    await this.#trees.copyBlocks(file, copy);
    await rename(copy, file);
    await syncPath(path.dirname(file));
  }

  async remove(key: string): Promise<void> {
    await this.#files.remove(await this.#storage.remove(key));
  }

  async *list(): AsyncIterable<SnapshotInfo> {
    yield* this.#storage.list();
  }

  cleanup(): Promise<void> {
    return this.#files.collect(this.#storage);
  }

  async close(): Promise<void> {
    await this.#trees.close();
    await this.#storage.close();
  }

  #mounts({ id, info, parents }: StoredSnapshot): Mount[] {
    const shown = info.kind === 'view' ? (parents[0] ?? id) : id;
    const { fsType, mountOptions } = this.#settings;
    const options = [...mountOptions.filter((option) => option !== 'loop'), 'loop'];
    options.push(info.kind === 'view' ? 'ro' : 'rw');
    return [{ type: fsType, source: this.#files.of(shown), target: '', options }];
  }
}
