import type { FileHandle } from 'node:fs/promises';
import { failedPrecondition, invalidArgument, now } from '@gantry/api';
import type { BackendWriter, CommitOptions, IngestStatus } from '../../core/content/content-store.ts';
import type { IngestDigest } from './ingest-digest.ts';
import type { IngestFiles, IngestRecord } from './ingest-files.ts';

/** What a writer needs of its store. */
export interface WriterHome {
  /** Moves the data file to where the blob is visible, durably, and ends the ingest. @throws AlreadyExists; the ingest ends then too. */
  publish(digest: string, ingest: IngestFiles, status: IngestStatus): Promise<void>;
  /** The writer is done: forget it and let its ref go. */
  closed(ref: string): void;
}

/** Bytes after which an ingest is brought to disk. */
const syncEvery = 64 << 20;

/** Writes one ingest: bytes go to the file and into the digest at the same time. */
export class LocalWriter implements BackendWriter {
  readonly path: string;
  readonly #home: WriterHome;
  readonly #files: IngestFiles;
  readonly #file: FileHandle;
  readonly #digest: IngestDigest;
  readonly #status: IngestStatus;
  #open = true;
  #dirty = false;
  /** Bytes that are on disk, or were the last time that it was begun to bring them there. */
  #synced: number;
  #syncing: Promise<void> = Promise.resolve();

  constructor(
    home: WriterHome,
    files: IngestFiles,
    file: FileHandle,
    digest: IngestDigest,
    record: IngestRecord,
    expected: string,
  ) {
    this.#home = home;
    this.#files = files;
    this.#file = file;
    this.#digest = digest;
    this.#status = { ...record, expected };
    this.#synced = record.offset;
    this.path = files.data;
  }

  status(): IngestStatus {
    return { ...this.#status };
  }

  digest(): Promise<string> {
    return this.#digest.digest();
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#mustBeOpen('write to');
    if (chunk.length === 0) return;
    const offset = this.#status.offset;
    const results = await Promise.allSettled([this.#writeAll(chunk, offset), this.#digest.update(chunk)]);
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) {
      // What reached the file is unknown; the ingest goes back to where it was.
      this.#digest.restart(offset);
      await this.#file.truncate(offset);
      throw failure.reason;
    }
    this.#status.offset = offset + chunk.length;
    this.#status.updatedAt = now();
    this.#dirty = true;
    if (this.#status.offset - this.#synced < syncEvery) return;
    await this.#syncing;
    this.#syncing = this.#sync();
  }

  /** Brings what is written so far to disk and notes it, so that a power cut costs no more than what comes after. */
  async #sync(): Promise<void> {
    const { offset } = this.#status;
    this.#synced = offset;
    try {
      await this.#file.sync();
      await this.#files.setSynced(offset);
    } catch {
      // Aborted meanwhile; or the disk is broken, which the commit will tell. Without the note nobody counts on the bytes.
    }
  }

  async truncate(size: number): Promise<void> {
    this.#mustBeOpen('truncate');
    if (size < 0 || size > this.#status.offset) {
      throw invalidArgument(`cannot truncate ${this.#status.ref} to ${size}, it has ${this.#status.offset} bytes`);
    }
    if (size === this.#status.offset) return;
    await this.#syncing;
    if (size < this.#synced) {
      await this.#files.forgetSynced();
      this.#synced = size;
    }
    await this.#file.truncate(size);
    this.#digest.restart(size);
    this.#status.offset = size;
    this.#status.updatedAt = now();
    this.#dirty = true;
  }

  adopt(offset: number, digest: string): void {
    this.#mustBeOpen('adopt');
    const prefix = `${this.#digest.algorithm}:`;
    this.#digest.restart(offset, digest.startsWith(prefix) ? digest.slice(prefix.length) : undefined);
    this.#status.offset = offset;
    this.#status.updatedAt = now();
    this.#dirty = true;
  }

  async commit(options: CommitOptions = {}): Promise<{ digest: string; size: number }> {
    this.#mustBeOpen('commit on');
    this.#open = false;
    try {
      const { size } = await this.#file.stat();
      if (options.size && options.size !== size) {
        throw failedPrecondition(`unexpected commit size ${size}, expected ${options.size}: failed precondition`);
      }
      if (size !== this.#status.offset) {
        throw failedPrecondition(
          `ingest ${this.#status.ref} has ${size} bytes on disk, ${this.#status.offset} were written: failed precondition`,
        );
      }
      const algorithm = options.expected ? options.expected.slice(0, options.expected.indexOf(':')) : '';
      const digest = await (algorithm ? this.#digest.digestBy(algorithm) : this.#digest.digest());
      if (options.expected && options.expected !== digest) {
        throw failedPrecondition(
          `unexpected commit digest ${digest}, expected ${options.expected}: failed precondition`,
        );
      }
      await this.#syncing;
      await this.#file.chmod(0o444);
      await this.#file.sync();
      await this.#home.publish(digest, this.#files, this.#status);
      this.#dirty = false;
      return { digest, size };
    } finally {
      await this.#end();
    }
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#end();
  }

  async #end(): Promise<void> {
    this.#digest.close();
    await this.#syncing;
    try {
      if (this.#dirty) await this.#sync();
      await this.#file.close();
      if (this.#dirty) await this.#files.touch(this.#status.updatedAt);
    } finally {
      this.#home.closed(this.#status.ref);
    }
  }

  async #writeAll(chunk: Uint8Array, start: number): Promise<void> {
    for (let done = 0; done < chunk.length; ) {
      const { bytesWritten } = await this.#file.write(chunk, done, chunk.length - done, start + done);
      done += bytesWritten;
    }
  }

  #mustBeOpen(what: string): void {
    if (!this.#open) throw failedPrecondition(`cannot ${what} closed writer: failed precondition`);
  }
}
