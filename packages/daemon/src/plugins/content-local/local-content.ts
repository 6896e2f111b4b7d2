import {
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { alreadyExists, fromMillis, invalidArgument, notFound, type Time, toMillis } from '@gantry/api';
import type {
  BackendWriter,
  ContentBackend,
  ContentReader,
  IngestStatus,
  WriterOptions,
} from '../../core/content/content-store.ts';
import { KeyedLock } from '../../core/content/keyed-lock.ts';
import { digestAlgorithms, parseDigest } from './digests.ts';
import { DirectorySync } from './directory-sync.ts';
import { IngestDigest } from './ingest-digest.ts';
import { IngestFiles, isMissing } from './ingest-files.ts';
import { LocalWriter, type WriterHome } from './local-writer.ts';
import { RefLocks } from './ref-locks.ts';
import { MemoryReader, SmallBlobs, smallBlob } from './small-blobs.ts';

interface BlobInfo {
  digest: string;
  size: number;
  createdAt: Time;
  updatedAt: Time;
}

/**
 * Content on the local disk, in containerd's layout: `blobs/<algorithm>/<hex>`, read-only, and `ingest/` for what is being
 * written. A blob appears by rename after its bytes are on the disk, so a half-written one is never visible.
 */
export class LocalContent implements ContentBackend, WriterHome {
  readonly #root: string;
  readonly #sync = new DirectorySync();
  readonly #refs = new RefLocks();
  readonly #blobs = new KeyedLock();
  readonly #small = new SmallBlobs();
  readonly #writers = new Map<string, { writer: LocalWriter; unlock: () => void }>();
  #lastNew = 0;

  private constructor(root: string) {
    this.#root = root;
  }

  /**
   * Opens the store, making its directories, and removes halves of ingests that a killed daemon left.
   * @param boot see `thisBoot`: of what an earlier boot has left, only what was synced is trusted
   */
  static async open(root: string, boot = ''): Promise<LocalContent> {
    await mkdir(path.join(root, 'ingest'), { recursive: true, mode: 0o755 });
    await mkdir(path.join(root, 'blobs'), { recursive: true, mode: 0o755 });
    // Blobs that are put in one step, until they have their names.
    await rm(path.join(root, 'new'), { recursive: true, force: true });
    await mkdir(path.join(root, 'new'), { mode: 0o700 });
    const store = new LocalContent(root);
    const note = path.join(root, 'boot');
    const sameBoot = (await contentOf(note)) === boot;
    for (const files of await store.#ingests()) {
      if ((await files.read()) === undefined) await files.remove();
      else if (!sameBoot) await files.trust();
    }
    if (!sameBoot) await writeFile(note, boot, { mode: 0o600 });
    return store;
  }

  async info(digest: string): Promise<BlobInfo> {
    return this.#info(digest, this.#blobPath(digest));
  }

  async size(digest: string): Promise<number | undefined> {
    return (await stat(this.#blobPath(digest), { throwIfNoEntry: false }))?.size;
  }

  async *list(): AsyncIterable<BlobInfo> {
    for await (const digest of this.digests()) {
      try {
        yield await this.#info(digest, this.#blobPath(digest));
      } catch (reason) {
        if (!isMissing((reason as Error).cause)) throw reason; // Deleted meanwhile.
      }
    }
  }

  async *digests(): AsyncIterable<string> {
    for (const algorithm of digestAlgorithms) {
      for (const name of (await namesIn(path.join(this.#root, 'blobs', algorithm))).sort()) {
        const digest = `${algorithm}:${name}`;
        try {
          parseDigest(digest);
        } catch {
          continue; // Not a blob: nothing of ours has such a name.
        }
        yield digest;
      }
    }
  }

  async delete(digest: string): Promise<void> {
    const file = this.#blobPath(digest);
    await this.#blobs.run(digest, async () => {
      try {
        await unlink(file);
      } catch (reason) {
        if (isMissing(reason)) throw notFound(`content ${digest}: not found`, reason);
        throw reason;
      } finally {
        // A reader that still found the file has added it by now.
        this.#small.delete(digest);
      }
    });
  }

  async status(ref: string): Promise<IngestStatus> {
    const live = this.#writers.get(ref);
    if (live) return live.writer.status();
    const record = await this.#files(ref).read();
    if (!record) throw notFound(`ingest ref ${JSON.stringify(ref)}: not found`);
    return { ...record, expected: '' };
  }

  async listStatuses(): Promise<IngestStatus[]> {
    const found: IngestStatus[] = [];
    for (const files of await this.#ingests()) {
      const record = await files.read();
      if (!record) continue;
      found.push(this.#writers.get(record.ref)?.writer.status() ?? { ...record, expected: '' });
    }
    return found.sort((a, b) => (a.ref < b.ref ? -1 : 1));
  }

  async writer(options: WriterOptions): Promise<BackendWriter> {
    const { ref, size = 0, expected = '' } = options;
    if (!ref) throw invalidArgument('ref must not be empty: invalid argument');
    const algorithm = expected ? parseDigest(expected).algorithm : 'sha256';
    const unlock = await this.#refs.acquire(ref);
    let file: FileHandle | undefined;
    try {
      if (expected && (await this.#exists(expected))) throw alreadyExists(`content ${expected}: already exists`);
      const files = this.#files(ref);
      let record = await files.read();
      if (record && size > 0 && record.total > 0 && size !== record.total) {
        throw invalidArgument(`provided total differs from status: ${size} != ${record.total}: invalid argument`);
      }
      record ??= await files.create(ref, size);
      if (size > 0 && record.total === 0) {
        await files.setTotal(size);
        record.total = size;
      }
      file = await open(files.data, 'r+');
      const digest = new IngestDigest(files.data, algorithm);
      digest.restart(record.offset);
      const writer = new LocalWriter(this, files, file, digest, record, expected);
      this.#writers.set(ref, { writer, unlock });
      return writer;
    } catch (reason) {
      await file?.close();
      unlock();
      throw reason;
    }
  }

  async abort(ref: string): Promise<void> {
    const files = this.#files(ref);
    try {
      await stat(files.dir);
    } catch (reason) {
      if (isMissing(reason)) throw notFound(`ingest ref ${JSON.stringify(ref)}: not found`, reason);
      throw reason;
    }
    await files.remove();
  }

  async reader(digest: string): Promise<ContentReader> {
    const file = this.#blobPath(digest);
    const held = this.#small.get(digest);
    if (held) return new MemoryReader(held, file);
    let handle: FileHandle;
    try {
      handle = await open(file, 'r');
    } catch (reason) {
      if (isMissing(reason)) throw notFound(`content ${digest}: not found`, reason);
      throw reason;
    }
    try {
      const { size } = await handle.stat();
      const reader = new LocalReader(handle, file, size);
      if (size > smallBlob) return reader;
      const bytes = await reader.read(0, size);
      // Not if it was deleted meanwhile, or cut by somebody else.
      if (bytes.length === size && (await handle.stat()).nlink > 0) this.#small.add(digest, bytes);
      return reader;
    } catch (reason) {
      await handle.close();
      throw reason;
    }
  }

  async put(digest: string, bytes: Uint8Array): Promise<void> {
    const temp = path.join(this.#root, 'new', String(++this.#lastNew));
    try {
      await writeFile(temp, bytes, { mode: 0o444, flag: 'wx', flush: true });
      await this.#blobs.run(digest, () => this.#show(temp, this.#blobPath(digest)));
    } catch (reason) {
      await rm(temp, { force: true });
      throw reason;
    }
    if (bytes.length <= smallBlob) this.#small.add(digest, Uint8Array.from(bytes));
  }

  /** Gives a file whose bytes are on disk a blob's name, durably. */
  async #show(file: string, target: string): Promise<void> {
    const dir = path.dirname(target);
    try {
      await rename(file, target);
    } catch (reason) {
      if (!isMissing(reason)) throw reason;
      // The first blob of its algorithm, most likely.
      if ((await mkdir(dir, { recursive: true, mode: 0o755 })) !== undefined) await this.#sync.sync(path.dirname(dir));
      await rename(file, target);
    }
    await this.#sync.sync(dir);
  }

  async publish(digest: string, ingest: IngestFiles, status: IngestStatus): Promise<void> {
    const target = this.#blobPath(digest);
    await this.#blobs.run(digest, async () => {
      if (await this.#exists(digest)) {
        await ingest.remove();
        throw alreadyExists(`content ${digest}: already exists`);
      }
      // The blob's times are those of the write, as containerd has them.
      try {
        await utimes(ingest.data, toMillis(status.updatedAt) / 1000, toMillis(status.updatedAt) / 1000);
        await this.#show(ingest.data, target);
      } catch (reason) {
        if (isMissing(reason))
          throw notFound(`ingest ref ${JSON.stringify(status.ref)} was aborted: not found`, reason);
        throw reason;
      }
    });
    await ingest.remove();
  }

  closed(ref: string): void {
    const live = this.#writers.get(ref);
    this.#writers.delete(ref);
    live?.unlock();
  }

  #blobPath(digest: string): string {
    const { algorithm, hex } = parseDigest(digest);
    return path.join(this.#root, 'blobs', algorithm, hex);
  }

  #files(ref: string): IngestFiles {
    return IngestFiles.for(this.#root, ref);
  }

  async #ingests(): Promise<IngestFiles[]> {
    const dir = path.join(this.#root, 'ingest');
    return (await namesIn(dir)).map((name) => new IngestFiles(path.join(dir, name)));
  }

  async #info(digest: string, file: string): Promise<BlobInfo> {
    try {
      const found = await stat(file);
      return {
        digest,
        size: found.size,
        createdAt: fromMillis(found.mtimeMs),
        updatedAt: fromMillis(Math.max(found.atimeMs, found.mtimeMs)),
      };
    } catch (reason) {
      if (isMissing(reason)) throw notFound(`content ${digest}: not found`, reason);
      throw reason;
    }
  }

  async #exists(digest: string): Promise<boolean> {
    return (await this.size(digest)) !== undefined;
  }
}

/** Reads one blob; it stays readable while open even if it is deleted. */
class LocalReader implements ContentReader {
  readonly size: number;
  readonly path: string;
  readonly #file: FileHandle;
  #open = true;

  constructor(file: FileHandle, path: string, size: number) {
    this.#file = file;
    this.path = path;
    this.size = size;
  }

  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    const wanted = Math.max(0, Math.min(length, this.size - offset));
    const bytes = into && into.length >= wanted ? into.subarray(0, wanted) : Buffer.allocUnsafeSlow(wanted);
    let done = 0;
    while (done < wanted) {
      const { bytesRead } = await this.#file.read(bytes, done, wanted - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done === wanted ? bytes : bytes.subarray(0, done);
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** '' if there is no such file. */
async function contentOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (reason) {
    if (isMissing(reason)) return '';
    throw reason;
  }
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (reason) {
    if (isMissing(reason)) return [];
    throw reason;
  }
}
