import { createHash } from 'node:crypto';
import { alreadyExists, failedPrecondition, invalidArgument, notFound, now, type Time, unavailable } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { BackendWriter, ContentBackend, ContentReader, IngestStatus } from '../content/content-store.ts';
import type { SnapshotInfo, SnapshotOptions, Snapshotter, SnapshotUsage } from '../snapshots/snapshotter.ts';

/** Backends in memory, for tests of what stands on them. Each step takes a turn of the event loop, so that others get between. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export class MemoryContent implements ContentBackend {
  readonly blobs = new Map<string, { bytes: Buffer; at: Time }>();
  readonly ingests = new Map<string, { bytes: Buffer; at: Time; open: boolean }>();

  async info(digest: string): Promise<{ digest: string; size: number; createdAt: Time; updatedAt: Time }> {
    await turn();
    const blob = this.blobs.get(digest);
    if (!blob) throw notFound(`content digest ${digest}: not found`);
    return { digest, size: blob.bytes.length, createdAt: blob.at, updatedAt: blob.at };
  }

  async *list(): AsyncIterable<{ digest: string; size: number; createdAt: Time; updatedAt: Time }> {
    for (const digest of [...this.blobs.keys()]) if (this.blobs.has(digest)) yield await this.info(digest);
  }

  async delete(digest: string): Promise<void> {
    await turn();
    if (!this.blobs.delete(digest)) throw notFound(`content digest ${digest}: not found`);
    await turn();
  }

  async status(ref: string): Promise<IngestStatus> {
    const ingest = this.ingests.get(ref);
    if (!ingest) throw notFound(`reference ${ref}: not found`);
    return { ref, offset: ingest.bytes.length, total: 0, expected: '', startedAt: ingest.at, updatedAt: ingest.at };
  }

  async listStatuses(): Promise<IngestStatus[]> {
    return Promise.all([...this.ingests.keys()].map((ref) => this.status(ref)));
  }

  async writer({ ref }: { ref: string }): Promise<BackendWriter> {
    await turn();
    const ingest = this.ingests.get(ref) ?? { bytes: Buffer.alloc(0), at: now(), open: false };
    if (ingest.open) throw unavailable(`ref ${ref} locked: unavailable`);
    ingest.open = true;
    this.ingests.set(ref, ingest);
    return {
      status: () => ({
        ref,
        offset: ingest.bytes.length,
        total: 0,
        expected: '',
        startedAt: ingest.at,
        updatedAt: now(),
      }),
      digest: async () => sha256(ingest.bytes),
      write: async (chunk) => {
        await turn();
        ingest.bytes = Buffer.concat([ingest.bytes, chunk]);
      },
      truncate: async (size) => {
        ingest.bytes = ingest.bytes.subarray(0, size);
      },
      commit: async (options = {}) => {
        await turn();
        const digest = sha256(ingest.bytes);
        if (options.expected && options.expected !== digest) throw failedPrecondition(`unexpected digest ${digest}`);
        ingest.open = false;
        this.ingests.delete(ref);
        if (this.blobs.has(digest)) throw alreadyExists(`content ${digest}: already exists`);
        this.blobs.set(digest, { bytes: ingest.bytes, at: now() });
        await turn();
        return { digest, size: ingest.bytes.length };
      },
      close: async () => {
        ingest.open = false;
      },
    };
  }

  async put(digest: string, bytes: Uint8Array): Promise<void> {
    await turn();
    this.blobs.set(digest, { bytes: Buffer.from(bytes), at: now() });
    await turn();
  }

  async abort(ref: string): Promise<void> {
    const ingest = this.ingests.get(ref);
    if (!ingest) throw notFound(`reference ${ref}: not found`);
    if (ingest.open) throw unavailable(`ref ${ref} locked: unavailable`);
    this.ingests.delete(ref);
  }

  async reader(digest: string): Promise<ContentReader> {
    await turn();
    const blob = this.blobs.get(digest);
    if (!blob) throw notFound(`content digest ${digest}: not found`);
    const { bytes } = blob;
    return {
      size: bytes.length,
      read: async (offset, length) => bytes.subarray(offset, offset + length),
      close: async () => {},
      [Symbol.asyncDispose]: async () => {},
    };
  }
}

export class MemorySnapshotter implements Snapshotter {
  readonly snapshots = new Map<string, SnapshotInfo>();
  cleanups = 0;

  #get(key: string): SnapshotInfo {
    const info = this.snapshots.get(key);
    if (!info) throw notFound(`snapshot ${key} does not exist: not found`);
    return info;
  }

  async stat(key: string): Promise<SnapshotInfo> {
    return this.#get(key);
  }

  async update(info: { name: string; labels: Record<string, string> }): Promise<SnapshotInfo> {
    const found = this.#get(info.name);
    found.labels = info.labels;
    return found;
  }

  async usage(key: string): Promise<SnapshotUsage> {
    this.#get(key);
    return { inodes: 1, size: 4096 };
  }

  async mounts(key: string): Promise<Mount[]> {
    return [{ type: 'bind', source: this.#get(key).name, options: ['rbind', 'ro'] }];
  }

  async #create(kind: 'active' | 'view', key: string, parent: string, options: SnapshotOptions = {}): Promise<Mount[]> {
    await turn();
    if (this.snapshots.has(key)) throw alreadyExists(`snapshot ${key}: already exists`);
    if (parent !== '' && this.#get(parent).kind !== 'committed') throw invalidArgument('parent is not committed');
    const at = now();
    this.snapshots.set(key, { kind, name: key, parent, labels: options.labels ?? {}, createdAt: at, updatedAt: at });
    await turn();
    return this.mounts(key);
  }

  prepare(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create('active', key, parent, options);
  }

  view(key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create('view', key, parent, options);
  }

  async commit(name: string, key: string, options: SnapshotOptions & { parent?: string } = {}): Promise<void> {
    await turn();
    const active = this.#get(key);
    if (active.kind !== 'active') throw failedPrecondition(`snapshot ${key} is not active: failed precondition`);
    if (this.snapshots.has(name)) throw alreadyExists(`snapshot ${name}: already exists`);
    this.snapshots.delete(key);
    const parent = options.parent ?? active.parent;
    this.snapshots.set(name, { ...active, kind: 'committed', name, parent, labels: options.labels ?? {} });
    await turn();
  }

  async remove(key: string): Promise<void> {
    await turn();
    this.#get(key);
    for (const { parent } of this.snapshots.values()) {
      if (parent === key) throw failedPrecondition('cannot remove snapshot with child: failed precondition');
    }
    this.snapshots.delete(key);
    await turn();
  }

  async *list(): AsyncIterable<SnapshotInfo> {
    yield* [...this.snapshots.values()];
  }

  async cleanup(): Promise<void> {
    this.cleanups++;
  }

  async close(): Promise<void> {}
}
