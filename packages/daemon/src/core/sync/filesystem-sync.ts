import { type FileHandle, open } from 'node:fs/promises';
import { syncfs } from '@gantry/sys';
import { SharedRun } from './shared-run.ts';

/**
 * Brings all of a file system to disk: one syncfs(2) for however many files, shared by those who ask at the same time. It keeps its
 * descriptor open, because the kernel tells of an error in writing to those only who had one before it happened.
 */
export class FileSystemSync {
  readonly #file: FileHandle;
  readonly #shared: SharedRun;

  private constructor(file: FileHandle) {
    this.#file = file;
    this.#shared = new SharedRun(() => syncfs(file.fd));
  }

  /** @param directory anything on that file system */
  static async open(directory: string): Promise<FileSystemSync> {
    return new FileSystemSync(await open(directory, 'r'));
  }

  /** Settles when all that was written before the call is on disk. @throws EIO if some of it is lost */
  sync(): Promise<void> {
    return this.#shared.run();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** Brings one file, or the names in one directory, to disk. */
export async function syncPath(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}
