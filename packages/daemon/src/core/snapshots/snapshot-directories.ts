import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { SnapshotStorage } from './snapshot-storage.ts';
import type { TreeJobs } from './tree-jobs.ts';

/**
 * The numbered directories, or files, `<root>/snapshots/<id>` of a snapshotter. They are made before their record is, and deleted
 * after it is gone; so a killed daemon leaves directories without records, which `collect` deletes.
 */
export class SnapshotDirectories {
  readonly #dir: string;
  readonly #trees: Pick<TreeJobs, 'remove'>;
  readonly #kind: 'directory' | 'file';
  /** Being made or deleted by a call under way. */
  readonly #busy = new Set<number>();
  /** Directories that are another daemon's. */
  #foreign: ReadonlyMap<number, string> = new Map();
  #lastCollect: Promise<void> = Promise.resolve();

  private constructor(dir: string, trees: Pick<TreeJobs, 'remove'>, kind: 'directory' | 'file') {
    this.#dir = dir;
    this.#trees = trees;
    this.#kind = kind;
  }

  static async open(
    root: string,
    trees: Pick<TreeJobs, 'remove'>,
    kind: 'directory' | 'file' = 'directory',
  ): Promise<SnapshotDirectories> {
    const dir = path.join(root, 'snapshots');
    await mkdir(root, { recursive: true, mode: 0o700 });
    await mkdir(dir, { recursive: true, mode: 0o700 });
    return new SnapshotDirectories(dir, trees, kind);
  }

  /** Tells of directories elsewhere: they are used where they are, and outlive their records. */
  useForeign(foreign: ReadonlyMap<number, string>): void {
    this.#foreign = foreign;
  }

  of(id: number): string {
    return this.#foreign.get(id) ?? path.join(this.#dir, String(id));
  }

  /** The highest number there is a directory for, 0 if none. */
  async highestId(): Promise<number> {
    return (await this.#numbers()).reduce((highest, id) => Math.max(highest, id), 0);
  }

  /** Makes the directory of a new snapshot, lets `fill` make what is in it, or the file, and then its record; deletes it if either fails. */
  async make<T>(id: number, fill: (dir: string) => Promise<void>, record: () => Promise<T>): Promise<T> {
    const dir = this.of(id);
    this.#busy.add(id);
    try {
      if (this.#kind === 'directory') await mkdir(dir, { mode: 0o700 });
      await fill(dir);
      return await record();
    } catch (reason) {
      try {
        await this.#delete(dir);
      } catch (second) {
        throw new AggregateError([reason, second], `${(reason as Error).message}; cannot delete ${dir}`, {
          cause: reason,
        });
      }
      throw reason;
    } finally {
      this.#busy.delete(id);
    }
  }

  async remove(id: number): Promise<void> {
    if (this.#busy.has(id) || this.#foreign.has(id)) return;
    this.#busy.add(id);
    try {
      await this.#delete(this.of(id));
    } finally {
      this.#busy.delete(id);
    }
  }

  /** Deletes every directory that no record owns. One collection at a time. */
  collect(storage: SnapshotStorage): Promise<void> {
    const mine = this.#lastCollect.then(() => this.#collect(storage));
    this.#lastCollect = mine.catch(() => {});
    return mine;
  }

  async #collect(storage: SnapshotStorage): Promise<void> {
    const found = await this.#numbers();
    // One look at records and calls under way, after the listing: a directory is in one of them unless it is garbage.
    const used = storage.ids();
    const garbage = found.filter((id) => !used.has(id) && !this.#busy.has(id));
    const outcomes = await Promise.allSettled(garbage.map((id) => this.remove(id)));
    const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
    if (failures.length > 0) {
      const first = (failures[0] as Error).message;
      throw new AggregateError(failures, `cannot delete ${failures.length} snapshot directories: ${first}`);
    }
  }

  #delete(path: string): Promise<void> {
    return this.#kind === 'file' ? rm(path, { force: true }) : this.#trees.remove(path);
  }

  async #numbers(): Promise<number[]> {
    return (await readdir(this.#dir)).filter((name) => /^[1-9]\d*$/.test(name)).map(Number);
  }
}
