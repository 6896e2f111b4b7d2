import { lchown, mkdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Mount } from '@gantry/mount';
import type { MetadataStore } from '../../core/metadata/metadata-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { targetLabel } from '../../core/snapshots/metadata-snapshotter.ts';
import { SnapshotDirectories } from '../../core/snapshots/snapshot-directories.ts';
import { idMappingOf, SnapshotLabel } from '../../core/snapshots/snapshot-labels.ts';
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
import { SharedRun } from '../../core/sync/shared-run.ts';

export interface OverlayOptions {
  /** Further overlay options of every mount, such as `index=off`. */
  mountOptions?: readonly string[];
  /** Show where a snapshot's own files are in the label `containerd.io/snapshot/overlay.upperdir`. */
  upperdirLabel?: boolean;
  /** Delete a snapshot's files before Remove answers, not at the next cleanup. */
  syncRemove?: boolean;
  /** See `thisBoot`. */
  boot?: string;
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
  readonly #disk: FileSystemSync;
  readonly #settling: SharedRun;
  /** Counted, or being counted, ahead of the commit. */
  readonly #measured = new Map<number, Promise<SnapshotUsage>>();

  private constructor(
    storage: SnapshotStorage,
    directories: SnapshotDirectories,
    trees: TreeJobs,
    disk: FileSystemSync,
    options: OverlayOptions,
  ) {
    this.#trees = trees;
    this.#disk = disk;
    this.#settling = new SharedRun(() => storage.settle(() => disk.sync()));
    this.#storage = storage;
    this.#directories = directories;
    this.#options = options;
  }

  /** Opens the snapshotter at a directory; the store is its own from now on and is closed with it. */
  static async open(root: string, store: MetadataStore, options: OverlayOptions = {}): Promise<OverlaySnapshotter> {
    const trees = new TreeJobs();
    const directories = await SnapshotDirectories.open(root, trees);
    const storage = new SnapshotStorage(store, await directories.highestId(), options.boot);
    directories.useForeign(storage.foreign());
    const disk = await FileSystemSync.open(root);
    const snapshotter = new OverlaySnapshotter(storage, directories, trees, disk, options);
    await snapshotter.#restore();
    return snapshotter;
  }

  /**
   * Makes again what a power cut has taken of the directories of snapshots that were answered: preparing one does not wait until
   * its empty directories are on disk. Had anything in them been synced, they would be there.
   */
  async #restore(): Promise<void> {
    const active = this.#storage.list().filter(({ kind }) => kind !== 'committed');
    const foreign = this.#storage.foreign();
    const restore = async ({ name, kind, labels }: SnapshotInfo): Promise<void> => {
      const { id, parents } = this.#storage.get(name);
      if (foreign.has(id)) return;
      const wanted = kind === 'active' ? [this.#upper(id), this.#work(id)] : [this.#upper(id)];
      if ((await Promise.all(wanted.map(exists))).every(Boolean)) return;
      // Whose parent was lost too follows when that is made again: it takes its owner from there.
      if (parents[0] !== undefined && !(await exists(this.#upper(parents[0])))) return;
      await mkdir(this.#directories.of(id), { recursive: true, mode: 0o700 });
      await this.#lay(id, kind, labels, parents[0]);
    };
    const parallel = 64;
    for (let at = 0; at < active.length; at += parallel) {
      await Promise.all(active.slice(at, at + parallel).map(restore));
    }
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
    this.#storage.mustBeWhole(key);
    return this.#mounts(this.#storage.get(key));
  }

  prepare(key: string, parent: string, options?: SnapshotOptions, ctx?: RequestContext): Promise<Mount[]> {
    // A layer that is being unpacked: while it comes, the thread that will count it starts.
    if (options?.labels?.[targetLabel] !== undefined) this.#trees.warm();
    return this.#create('active', key, parent, options?.labels ?? {}, ctx?.step);
  }

  view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create('view', key, parent, options?.labels ?? {});
  }

  measure(key: string): void {
    const { id } = this.#storage.getActive(key);
    const usage = this.#trees.usage(this.#upper(id));
    this.#measured.set(id, usage);
    // Whoever commits later counts anew.
    usage.catch(() => this.#measured.delete(id));
  }

  async commit(name: string, key: string, options: CommitSnapshotOptions = {}, ctx?: RequestContext): Promise<void> {
    const { id } = this.#storage.getActive(key);
    const usage = await (this.#measured.get(id) ?? this.#trees.usage(this.#upper(id)));
    this.#measured.delete(id);
    const unsynced = ctx?.step === true && options.layer !== undefined;
    if (!unsynced) await this.#disk.sync();
    await this.#storage.commit(name, key, usage, { ...options, unsynced }, ctx?.step);
  }

  flush(): Promise<void> {
    return this.#storage.flush();
  }

  settle(): Promise<void> {
    return this.#settling.run();
  }

  suspects(): string[] {
    return this.#storage.suspects();
  }

  async remake(name: string, fill: (mounts: Mount[]) => Promise<void>): Promise<void> {
    const snapshot = this.#storage.get(name);
    const { id, info, parents } = snapshot;
    await mkdir(this.#directories.of(id), { recursive: true, mode: 0o700 });
    await this.#trees.empty(this.#directories.of(id));
    await this.#lay(id, 'active', info.labels, parents[0]);
    await fill(this.#mounts({ ...snapshot, info: { ...info, kind: 'active' } }));
    this.#storage.remade(name);
    await this.#restore();
  }

  async remove(key: string, ctx?: RequestContext): Promise<void> {
    const id = await this.#storage.remove(key, ctx?.step);
    this.#measured.delete(id);
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
    await this.settle().catch(() => undefined);
    await this.#disk.close();
    await this.#storage.close();
  }

  async #create(
    kind: 'active' | 'view',
    key: string,
    parent: string,
    labels: Record<string, string>,
    step?: boolean,
  ): Promise<Mount[]> {
    idMappingOf(labels);
    const [nearest] = this.#storage.parentChain(parent);
    this.#storage.mustBeWhole(parent);
    const id = this.#storage.nextId();
    const snapshot = await this.#directories.make(
      id,
      () => Promise.resolve(),
      () =>
        step
          ? this.#layAndRecord(
              key,
              this.#lay(id, kind, labels, nearest),
              this.#storage.create(id, kind, key, parent, labels, step),
            )
          : this.#lay(id, kind, labels, nearest).then(() => this.#storage.create(id, kind, key, parent, labels)),
    );
    return this.#mounts(snapshot);
  }

  /** Both at once: a record whose directories a killed daemon did not make has them made at the next start, as after a power cut. */
  async #layAndRecord(key: string, laying: Promise<void>, recording: Promise<StoredSnapshot>): Promise<StoredSnapshot> {
    const [laid, recorded] = await Promise.allSettled([laying, recording]);
    if (recorded.status === 'rejected') throw recorded.reason;
    if (laid.status === 'fulfilled') return recorded.value;
    await this.#storage.remove(key, true);
    throw laid.reason;
  }

  /** Makes what is not there of the directories within a snapshot's own. */
  async #lay(
    id: number,
    kind: SnapshotKind,
    labels: Record<string, string>,
    nearest: number | undefined,
  ): Promise<void> {
    const upper = this.#upper(id);
    const laid = await Promise.allSettled([
      this.#layUpper(upper, labels, nearest),
      kind === 'active' ? mkdir(this.#work(id), { recursive: true, mode: 0o711 }) : undefined,
    ]);
    for (const part of laid) if (part.status === 'rejected') throw part.reason;
  }

  async #layUpper(upper: string, labels: Record<string, string>, nearest: number | undefined): Promise<void> {
    const owner = await this.#ownerOf(labels, nearest);
    if (!owner) await mkdir(upper, { recursive: true, mode: 0o755 });
    else if (!(await exists(upper))) {
      // Its owner comes to disk before its name.
      const unnamed = `${upper}.new`;
      await rm(unnamed, { recursive: true, force: true });
      await mkdir(unnamed, { mode: 0o755 });
      await lchown(unnamed, owner.uid, owner.gid);
      await rename(unnamed, upper);
    }
  }

  /** The root directory of a snapshot belongs to whom its parent's does, or to the mapped root. undefined: to root. */
  async #ownerOf(
    labels: Record<string, string>,
    nearest: number | undefined,
  ): Promise<{ uid: number; gid: number } | undefined> {
    const mapping = idMappingOf(labels);
    if (mapping) return { uid: mapping.rootUid, gid: mapping.rootGid };
    if (nearest === undefined) return undefined;
    const { uid, gid } = await stat(this.#upper(nearest));
    return uid === 0 && gid === 0 ? undefined : { uid, gid };
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

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
