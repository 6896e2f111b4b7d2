/**
 * Stores in memory for tests of transfers: they keep what the interfaces promise and nothing more, so that a test runs
 * without root, disks or the metadata database. What containerd's own clients see is proved against the whole daemon.
 */
import { gunzipSync, gzipSync } from 'node:zlib';
import { alreadyExists, failedPrecondition, notFound, now, unavailable } from '@gantry/api';
import { allPlatforms, type Descriptor, digestOf, MediaType } from '@gantry/oci';
import { TokenCache } from '@gantry/registry';
import type { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import type { ContentInfo, ContentStore, ContentWriter } from '../../core/content/content-store.ts';
import { KeyedLock } from '../../core/content/keyed-lock.ts';
import type { Differ } from '../../core/diff/differ.ts';
import type { Image, ImageStore } from '../../core/images/image-store.ts';
import type { LeaseManager } from '../../core/leases/lease-manager.ts';
import type { Logger } from '../../core/log/logger.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { NamespacedSnapshotter } from '../../core/snapshots/snapshot-service.ts';
import type { SnapshotInfo } from '../../core/snapshots/snapshotter.ts';
import { LocalStreamManager } from '../streaming/streaming-plugin.ts';
import type { TransferEnvironment } from './environment.ts';
import { Semaphore } from './semaphore.ts';

export class MemoryContent {
  readonly blobs = new Map<string, { bytes: Buffer; info: ContentInfo }>();
  readonly ingests = new Map<string, Buffer>();
  readonly #locked = new Set<string>();

  get store(): ContentStore {
    return {
      info: async (_ctx, digest) => this.#get(digest).info,
      update: async (_ctx, { digest, labels }, paths) => {
        const { info } = this.#get(digest);
        for (const path of paths) {
          const key = path.slice('labels.'.length);
          info.labels = { ...info.labels, [key]: labels[key] ?? '' };
        }
        return info;
      },
      list: (_ctx, filters = []) => this.#list(filters),
      delete: async (_ctx, digest) => void this.blobs.delete(digest),
      status: async (_ctx, ref) => {
        throw notFound(ref);
      },
      listStatuses: async () => [],
      writer: async (_ctx, { ref, expected = '', size = 0 }) => this.#writer(ref, expected, size),
      abort: async (_ctx, ref) => {
        if (!this.ingests.delete(ref)) throw notFound(`ingest ${ref}: not found`);
      },
      reader: async (_ctx, digest) => {
        const { bytes } = this.#get(digest);
        const close = async (): Promise<void> => undefined;
        return {
          size: bytes.length,
          read: async (offset, length) => bytes.subarray(offset, offset + length),
          close,
          [Symbol.asyncDispose]: close,
        };
      },
    };
  }

  #get(digest: string): { bytes: Buffer; info: ContentInfo } {
    const blob = this.blobs.get(digest);
    if (!blob) throw notFound(`content digest ${digest}: not found`);
    return blob;
  }

  async *#list(filters: string[]): AsyncIterable<ContentInfo> {
    for (const { info } of this.blobs.values()) {
      const label = info.labels['containerd.io/uncompressed'];
      if (filters.some((filter) => filter.endsWith(`==${label}`))) yield info;
    }
  }

  #writer(ref: string, expected: string, total: number): ContentWriter {
    if (this.blobs.has(expected)) throw alreadyExists(`content ${expected}: already exists`);
    if (this.#locked.has(ref)) throw unavailable(`ref ${ref} locked`);
    this.#locked.add(ref);
    const bytes = (): Buffer => this.ingests.get(ref) ?? Buffer.alloc(0);
    this.ingests.set(ref, bytes());
    const close = async (): Promise<void> => void this.#locked.delete(ref);
    return {
      status: () => ({ ref, offset: bytes().length, total, expected, startedAt: now(), updatedAt: now() }),
      digest: async () => digestOf(bytes()),
      write: async (chunk) => void this.ingests.set(ref, Buffer.concat([bytes(), chunk])),
      truncate: async (size) => void this.ingests.set(ref, bytes().subarray(0, size)),
      commit: async (options = {}) => {
        await close();
        const digest = digestOf(bytes());
        if (options.expected && options.expected !== digest) {
          throw failedPrecondition(`unexpected commit digest ${digest}, expected ${options.expected}`);
        }
        const time = now();
        const info = { digest, size: bytes().length, createdAt: time, updatedAt: time, labels: options.labels ?? {} };
        const there = this.blobs.has(digest);
        if (!there) this.blobs.set(digest, { bytes: bytes(), info });
        this.ingests.delete(ref);
        if (there) throw alreadyExists(`content ${digest}: already exists`);
        return info;
      },
      close,
    };
  }
}

export class MemorySnapshotter implements NamespacedSnapshotter {
  readonly name: string = 'overlayfs';
  readonly snapshots = new Map<string, SnapshotInfo>();

  async stat(_ctx: RequestContext, key: string): Promise<SnapshotInfo> {
    const found = this.snapshots.get(key);
    if (!found) throw notFound(`snapshot ${key} does not exist: not found`);
    return found;
  }

  async prepare(ctx: RequestContext, key: string, parent: string, options: { labels?: Record<string, string> } = {}) {
    if (parent !== '') await this.stat(ctx, parent);
    const time = now();
    const labels = options.labels ?? {};
    this.snapshots.set(key, { kind: 'active', name: key, parent, labels, createdAt: time, updatedAt: time });
    return [{ type: 'bind', source: key, options: [] }];
  }

  async commit(ctx: RequestContext, name: string, key: string, options: { labels?: Record<string, string> } = {}) {
    const active = await this.stat(ctx, key);
    this.snapshots.delete(key);
    this.snapshots.set(name, { ...active, kind: 'committed', name, labels: options.labels ?? {} });
  }

  async remove(ctx: RequestContext, key: string): Promise<void> {
    await this.stat(ctx, key);
    this.snapshots.delete(key);
  }

  update = unused;
  usage = unused;
  mounts = unused;
  view = unused;
  cleanup = unused;

  async flush(): Promise<void> {}
  list = (): never => unused();
}

function unused(): never {
  throw new Error('not used by transfers');
}

class MemoryImages implements ImageStore {
  readonly images = new Map<string, Image>();

  async get(_ctx: RequestContext, name: string): Promise<Image> {
    const image = this.images.get(name);
    if (!image) throw notFound(`image "${name}": not found`);
    return image;
  }

  async create(_ctx: RequestContext, image: Pick<Image, 'name' | 'labels' | 'target'>): Promise<Image> {
    if (this.images.has(image.name)) throw alreadyExists(`image "${image.name}": already exists`);
    return this.#put(image);
  }

  async update(ctx: RequestContext, image: Pick<Image, 'name' | 'labels' | 'target'>): Promise<Image> {
    await this.get(ctx, image.name);
    return this.#put(image);
  }

  #put(image: Pick<Image, 'name' | 'labels' | 'target'>): Image {
    const made = { ...image, createdAt: now(), updatedAt: now() };
    this.images.set(image.name, made);
    return made;
  }

  list = async (): Promise<Image[]> => [...this.images.values()];
  delete = unused;
}

const log: Logger = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  with: () => log,
};

export function testingEnvironment() {
  const content = new MemoryContent();
  const snapshotter = new MemorySnapshotter();
  const images = new MemoryImages();
  const leases = new Set<string>();
  const applied: string[] = [];
  const differ: Differ = {
    apply: async (_ctx, descriptor) => {
      const bytes = content.blobs.get(descriptor.digest)?.bytes;
      if (!bytes) throw notFound(descriptor.digest);
      applied.push(descriptor.digest);
      const plain = descriptor.mediaType.endsWith('gzip') ? gunzipSync(bytes) : bytes;
      return { mediaType: MediaType.OciLayer, digest: digestOf(plain), size: plain.length };
    },
    diff: unused,
  };
  const leaseManager: LeaseManager = {
    create: async (_ctx, { id, labels }) => {
      leases.add(id);
      return { id, labels, createdAt: now() };
    },
    delete: async (_ctx, id) => void leases.delete(id),
    list: unused,
    addResource: unused,
    deleteResource: unused,
    listResources: unused,
  };
  const env: TransferEnvironment = {
    content: content.store,
    images,
    leases: leaseManager,
    snapshotters: { get: () => snapshotter, names: () => ['overlayfs'] },
    streams: new LocalStreamManager(),
    verifiers: new Map(),
    unpackSupport: [{ matcher: allPlatforms, differs: [differ] }],
    snapshotterMeta: () => ({ exports: {}, capabilities: [] }),
    downloads: new Semaphore(3),
    uploads: new Semaphore(3),
    unpacks: new Semaphore(0),
    layerFetch: { buffer: 0, concurrency: 3 },
    parallelUnpack: false,
    hostsDirectory: '',
    tokens: new TokenCache(),
    chains: new KeyedLock(),
    fetches: new KeyedLock(),
    log,
  };
  return { env, content, snapshotter, images: images.images, leases, applied };
}

/** Puts an image into a registry: an index of one manifest for each platform, its layers being the given texts. */
export function addImage(
  registry: TestingRegistry,
  repository: string,
  tag: string,
  layers: readonly string[],
  platforms: readonly string[] = ['amd64'],
) {
  const diffIds = layers.map((text) => digestOf(text));
  const layerDescriptors = layers.map((text) => ({
    mediaType: MediaType.OciLayerGzip,
    ...registry.addBlob(repository, gzipSync(text)),
  }));
  const manifests: Descriptor[] = platforms.map((architecture) => {
    const document = { os: 'linux', architecture, rootfs: { type: 'layers', diff_ids: diffIds } };
    const config = { mediaType: MediaType.OciConfig, ...registry.addBlob(repository, JSON.stringify(document)) };
    const manifest = { schemaVersion: 2, mediaType: MediaType.OciManifest, config, layers: layerDescriptors };
    return {
      mediaType: MediaType.OciManifest,
      ...registry.addManifest(repository, MediaType.OciManifest, manifest),
      platform: { os: 'linux', architecture },
    };
  });
  const index = { schemaVersion: 2, mediaType: MediaType.OciIndex, manifests };
  const target = { mediaType: MediaType.OciIndex, ...registry.addManifest(repository, MediaType.OciIndex, index, tag) };
  return { target, manifests, layers: layerDescriptors, diffIds };
}
