import { JobWorker } from '../workers/job-worker.ts';
import { workerUrl } from '../workers/worker-url.ts';
import type { SnapshotUsage } from './snapshotter.ts';

/** Work on directory trees that would hold up the main thread; one thread for all who share an instance. */
export class TreeJobs {
  readonly #worker = new JobWorker(workerUrl(import.meta.url, 'tree-worker'), 'snapshot-tree');

  /** Has the thread there when a job comes, soon. */
  warm(): void {
    this.#worker.warm();
  }

  /** Inodes and bytes below and including a directory, hard links counted once. */
  usage(path: string): Promise<SnapshotUsage> {
    return this.#worker.run('usage', { path });
  }

  /** The same, without what is unchanged since it was snapshotted from `parent`. */
  changedUsage(path: string, parent: string): Promise<SnapshotUsage> {
    return this.#worker.run('changedUsage', { path, parent });
  }

  /** Copies what is in one directory, and its attributes, to another that exists and is empty. */
  copy(from: string, to: string): Promise<void> {
    return this.#worker.run('copy', { from, to });
  }

  /** Copies a file to a new one with its holes, sharing the bytes where the filesystem can, and makes it durable. */
  copyBlocks(from: string, to: string): Promise<void> {
    return this.#worker.run('copyBlocks', { from, to });
  }

  /** Deletes a directory and all beneath it, without crossing into a mount. */
  remove(path: string): Promise<void> {
    return this.#worker.run('remove', { path });
  }

  /** Deletes all that is in a directory, but not itself. */
  empty(path: string): Promise<void> {
    return this.#worker.run('empty', { path });
  }

  close(): Promise<void> {
    return this.#worker.close();
  }
}
