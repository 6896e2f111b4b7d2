import { mkdirSync, rmSync } from 'node:fs';
import { run } from '../test/lib/processes.ts';

/**
 * A file system of its own for one measurement: ext4 on a sparse file. ext4 looks for a new file's inode past all that were deleted in the
 * last minutes; on a used file system a run would measure what the run before it had removed.
 */
export class FreshDisk implements AsyncDisposable {
  readonly path: string;
  readonly #file: string;

  private constructor(file: string, mountPoint: string) {
    this.#file = file;
    this.path = mountPoint;
  }

  /** `directory` is made: the mount point. */
  static async make(directory: string): Promise<FreshDisk> {
    const file = `${directory}.ext4`;
    rmSync(file, { force: true });
    mkdirSync(directory, { recursive: true });
    await run('truncate', ['-s', '16G', file]);
    await run('mkfs.ext4', ['-q', '-N', '400000', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard', file]);
    await run('mount', ['-o', 'loop', file, directory]);
    return new FreshDisk(file, directory);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run('umount', [this.path], { mayFail: true });
    rmSync(this.#file, { force: true });
  }
}
