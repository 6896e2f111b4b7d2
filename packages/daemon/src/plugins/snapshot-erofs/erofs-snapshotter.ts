import { lchown, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { alreadyExists } from '@gantry/api';
import type { WorkerPool } from '@gantry/archive';
import { type Mount, mountAll, unmountAll } from '@gantry/mount';
import { hasErrno } from '@gantry/sys';
import type { Logger } from '../../core/log/logger.ts';
import type { MetadataStore } from '../../core/metadata/metadata-store.ts';
import { SnapshotDirectories } from '../../core/snapshots/snapshot-directories.ts';
import { idMappingOf } from '../../core/snapshots/snapshot-labels.ts';
import { SnapshotStorage } from '../../core/snapshots/snapshot-storage.ts';
import type {
  CommitSnapshotOptions,
  SnapshotInfo,
  SnapshotKind,
  SnapshotOptions,
  Snapshotter,
  SnapshotUsage,
} from '../../core/snapshots/snapshotter.ts';
import { TreeJobs } from '../../core/snapshots/tree-jobs.ts';
import { syncPath } from '../../core/sync/filesystem-sync.ts';
import { type ErofsMountSettings, ErofsMounts, writableName } from './erofs-mounts.ts';
import { enableVerity, setImmutable } from './file-flags.ts';
import { exists, imageName, markerName, upperName, verityName } from './layer-files.ts';

export interface ErofsOptions extends Omit<ErofsMountSettings, 'directoryOf'> {
  /** Images of committed snapshots get the immutable attribute. */
  immutable: boolean;
  /** Makes images of what other differs unpacked. */
  pool: WorkerPool;
  log: Logger;
}

/** An image made by a commit is called so until the commit is noted. */
const pendingName = 'commit.erofs';

/**
 * Snapshots as EROFS images, in containerd's layout: `snapshots/<id>/layer.erofs` is a committed one, `fs` what an active one adds
 * over the images of its parents. The differ `erofs` writes images itself; what others unpacked becomes one at the commit.
 */
export class ErofsSnapshotter implements Snapshotter {
  readonly #storage: SnapshotStorage;
  readonly #directories: SnapshotDirectories;
  readonly #trees: TreeJobs;
  readonly #mounts: ErofsMounts;
  readonly #options: ErofsOptions;
  readonly #committing = new Set<number>();

  private constructor(
    storage: SnapshotStorage,
    directories: SnapshotDirectories,
    trees: TreeJobs,
    options: ErofsOptions,
  ) {
    this.#storage = storage;
    this.#directories = directories;
    this.#trees = trees;
    this.#options = options;
    this.#mounts = new ErofsMounts({ ...options, directoryOf: (id) => directories.of(id) });
  }

  /** Opens the snapshotter at a directory; the store is its own from now on and is closed with it. */
  static async open(root: string, store: MetadataStore, options: ErofsOptions): Promise<ErofsSnapshotter> {
    const trees = new TreeJobs();
    const directories = await SnapshotDirectories.open(root, { remove: (directory) => removeLayer(trees, directory) });
    const storage = new SnapshotStorage(store, await directories.highestId());
    const snapshotter = new ErofsSnapshotter(storage, directories, trees, options);
    await snapshotter.#finishCommits();
    await snapshotter.#restore();
    return snapshotter;
  }

  /** A daemon killed over a commit leaves its image under another name: it is put in its place if the commit was noted. */
  async #finishCommits(): Promise<void> {
    for (const { name, kind } of this.#storage.list()) {
      const { id } = this.#storage.get(name);
      if (kind !== 'view' && (await exists(this.#file(id, pendingName)))) {
        if (kind === 'committed') await this.#settle(id);
        else await rm(this.#file(id, pendingName));
      }
    }
  }

  /**
   * Makes again what a power cut has taken of the directories of snapshots that were answered: preparing one does not wait until
   * its empty directories are on disk.
   */
  async #restore(): Promise<void> {
    for (const { name, kind, labels } of this.#storage.list()) {
      if (kind === 'committed') continue;
      const { id, parents } = this.#storage.get(name);
      const last = this.#file(id, kind === 'active' ? markerName : upperName);
      if ((await exists(last)) && (await exists(this.#file(id, upperName)))) continue;
      await mkdir(this.#directories.of(id), { recursive: true, mode: 0o700 });
      await this.#lay(id, kind, labels, parents[0]);
    }
  }

  async stat(key: string): Promise<SnapshotInfo> {
    return this.#storage.get(key).info;
  }

  update(info: { name: string; labels: Record<string, string> }, paths: string[]): Promise<SnapshotInfo> {
    return this.#storage.update(info, paths);
  }

  async usage(key: string): Promise<SnapshotUsage> {
    const { id, info, usage } = this.#storage.get(key);
    if (info.kind !== 'active') return usage;
    const writable = this.#file(id, writableName);
    return (await exists(writable)) ? fileUsage(writable) : this.#trees.usage(this.#file(id, upperName));
  }

  async mounts(key: string): Promise<Mount[]> {
    return await this.#mounts.of(this.#storage.get(key));
  }

  prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create('active', key, parent, options?.labels ?? {});
  }

  view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create('view', key, parent, options?.labels ?? {});
  }

  async #create(
    kind: 'active' | 'view',
    key: string,
    parent: string,
    labels: Record<string, string>,
  ): Promise<Mount[]> {
    idMappingOf(labels);
    const [nearest] = this.#storage.parentChain(parent);
    const id = this.#storage.nextId();
    const snapshot = await this.#directories.make(
      id,
      () => this.#lay(id, kind, labels, nearest),
      () => this.#storage.create(id, kind, key, parent, labels),
    );
    return await this.#mounts.of(snapshot);
  }

  /** Makes what is not there of a snapshot's directory; the marker last. */
  async #lay(
    id: number,
    kind: SnapshotKind,
    labels: Record<string, string>,
    nearest: number | undefined,
  ): Promise<void> {
    const upper = this.#file(id, upperName);
    const blockMode = this.#options.writableSize > 0;
    await mkdir(upper, { recursive: true, mode: 0o755 });
    // The root directory of a snapshot belongs to whom its parent's does, or to the mapped root.
    if (!blockMode) {
      const mapping = idMappingOf(labels);
      if (mapping) await lchown(upper, mapping.rootUid, mapping.rootGid);
      else if (nearest !== undefined) {
        const { uid, gid } = await stat(this.#file(nearest, upperName));
        if (uid !== 0 || gid !== 0) await lchown(upper, uid, gid);
      }
    }
    if (kind !== 'active') return;
    if (!blockMode) await mkdir(this.#file(id, 'work'), { recursive: true, mode: 0o711 });
    await writeFile(this.#file(id, markerName), '', { mode: 0o644 });
  }

  async commit(name: string, key: string, options: CommitSnapshotOptions = {}): Promise<void> {
    const { id } = this.#storage.getActive(key);
    // Before the long work, though only the record decides.
    if (this.#committing.has(id)) throw alreadyExists(`snapshot ${key} is being committed: already exists`);
    this.#committing.add(id);
    try {
      const image = this.#file(id, imageName);
      const made = !(await exists(image));
      if (made) await this.#makeImage(id);
      const current = made ? this.#file(id, pendingName) : image;
      if (this.#options.fsverity) await enableVerity(current);
      // Its differ may have written more beside it.
      for (const file of [current, this.#file(id, verityName)]) if (await exists(file)) await syncPath(file);
      await syncPath(this.#directories.of(id));
      await this.#storage.commit(name, key, await fileUsage(current), options);
      if (made) await this.#settle(id);
      if (this.#options.immutable) {
        await setImmutable(image, true).catch((error) =>
          this.#options.log.warn('failed to set IMMUTABLE_FL', { error, path: image }),
        );
      }
    } catch (error) {
      await rm(this.#file(id, pendingName), { force: true });
      throw error;
    } finally {
      this.#committing.delete(id);
    }
  }

  /** Makes an image of the snapshot's own files, which another differ unpacked or a container wrote. */
  async #makeImage(id: number): Promise<void> {
    const upper = this.#file(id, upperName);
    const image = this.#file(id, pendingName);
    const convert = (directory: string) => this.#options.pool.run('erofs-from-directory', { directory, image });
    const writable = this.#file(id, writableName);
    if (!(await exists(writable))) {
      await convert(upper);
      return;
    }
    await mountAll([{ type: 'ext4', source: writable, options: ['ro', 'loop', 'noload'] }], upper);
    try {
      const inner = path.join(upper, 'upper');
      if (await exists(inner)) {
        await convert(inner);
        return;
      }
    } finally {
      await unmountAll(upper);
    }
    await convert(upper);
  }

  /** The commit is noted: its image takes its place, and the files it was made of go. */
  async #settle(id: number): Promise<void> {
    await rename(this.#file(id, pendingName), this.#file(id, imageName));
    await this.#trees.empty(this.#file(id, upperName));
    await rm(this.#file(id, writableName), { force: true });
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
    await this.#storage.close();
  }

  #file(id: number, name: string): string {
    return path.join(this.#directories.of(id), name);
  }
}

async function fileUsage(file: string): Promise<SnapshotUsage> {
  const { blocks } = await stat(file);
  return { inodes: 1, size: blocks * 512 };
}

/** Deletes a snapshot's directory, whatever protects it or a killed daemon left mounted in it. */
async function removeLayer(trees: TreeJobs, directory: string): Promise<void> {
  await unmountAll(path.join(directory, upperName));
  try {
    await setImmutable(path.join(directory, imageName), false);
  } catch (error) {
    // Not there, or on a file system without attributes.
    if (!hasErrno(error, 'ENOENT', 'ENOTTY', 'EOPNOTSUPP')) throw error;
  }
  await trees.remove(directory);
}
