import { type FileHandle, open } from 'node:fs/promises';
import type { GrowingBlob } from '../../core/diff/differ.ts';

/**
 * An ingest's file as a blob that grows. Held open here, so that it can be read under `/proc/self/fd` by every thread of
 * this process even after the store has moved it to its place.
 */
export class GrowingFile implements GrowingBlob {
  readonly path: string;
  readonly complete: Promise<void>;
  readonly #file: FileHandle;
  readonly #listeners = new Set<(available: number) => void>();
  #available: number;
  #resolve: () => void = () => undefined;
  #reject: (reason: unknown) => void = () => undefined;

  private constructor(file: FileHandle, available: number) {
    this.#file = file;
    this.#available = available;
    this.path = `/proc/self/fd/${file.fd}`;
    this.complete = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whether anybody reads along is not known here.
    this.complete.catch(() => undefined);
  }

  /** `available`: bytes that are in the file already. */
  static async open(path: string, available: number): Promise<GrowingFile> {
    return new GrowingFile(await open(path, 'r'), available);
  }

  onGrowth(listener: (available: number) => void): () => void {
    this.#listeners.add(listener);
    listener(this.#available);
    return () => this.#listeners.delete(listener);
  }

  grow(available: number): void {
    this.#available = available;
    for (const listener of this.#listeners) listener(available);
  }

  finish(): void {
    this.#resolve();
  }

  fail(reason: unknown): void {
    this.#reject(reason);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** A blob on its way into the store. */
export interface BlobArrival {
  /** Settles when the blob is in the store. */
  readonly stored: Promise<void>;
  /** The file it grows in; undefined if it is there already, or grows out of reach. Never rejects. */
  readonly growing: Promise<GrowingFile | undefined>;
}

/** The arrival of what is there already. */
export const arrived: BlobArrival = { stored: Promise.resolve(), growing: Promise.resolve(undefined) };
