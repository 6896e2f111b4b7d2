import { invalidArgument, type SpanAttributes, StatusError, traced } from '@gantry/api';
import { type Descriptor, isIndexType, isLayerType, isManifestType, MediaType } from '@gantry/oci';
import type { BlobSource, RangeOptions, RegistryClient } from '@gantry/registry';
import type { RequestContext } from '../../core/request-context.ts';
import type { NetworkWatch, TransferOptions } from '../../core/transfer/transferrer.ts';
import { verifyPull } from '../../core/verification/verify-image.ts';
import { addSource, distributionSource } from './distribution-source.ts';
import { describe, type ImageStoreEndpoint, type RegistryEndpoint } from './endpoints.ts';
import { type TransferEnvironment, withLease } from './environment.ts';
import { fetchContent } from './fetch-content.ts';
import type { BlobArrival, GrowingFile } from './growing-file.ts';
import {
  annotateForSnapshotter,
  checkDepth,
  childLabelsIn,
  labelledChildren,
  type Selection,
  selectChildren,
  selectionOf,
  Visited,
} from './image-walk.ts';
import { rangesOf } from './layer-ranges.ts';
import { ProgressTracker } from './progress-tracker.ts';
import { Semaphore } from './semaphore.ts';
import { storeImages } from './store-images.ts';
import { TaskGroup } from './task-group.ts';
import { splitManifest, type UnpackTarget, unpackImage, unpackTargets } from './unpack.ts';

/** Pull: resolve, ask the verifiers, fetch index → manifest → configuration → layers, unpack, and record the image. */
export function pull(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: RegistryEndpoint,
  store: ImageStoreEndpoint,
  options: TransferOptions,
): Promise<void> {
  const attributes = { 'image.ref': source.reference, unpack: store.unpacks.length > 0 };
  return traced('pull.Pull', { attributes }, () => pullImage(ctx, env, source, store, options));
}

async function pullImage(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: RegistryEndpoint,
  store: ImageStoreEndpoint,
  options: TransferOptions,
): Promise<void> {
  const report = options.progress ?? (() => undefined);
  // The image record is the last change, and durable with all before it; or the caller makes one after it.
  await withLease({ ...ctx, step: true }, env.leases, async (leased) => {
    await using client = source.open();
    report({ event: `Resolving from ${describe(source)}` });
    const resolving = () => resolve(client, source.reference, ctx.signal);
    const { name, descriptor } = await watched(options.network, resolving);
    if (descriptor.mediaType === MediaType.DockerManifestV1) {
      throw invalidArgument('schema 1 image manifests are no longer supported: invalid argument');
    }
    await verifyPull(leased, env.verifiers, { name, descriptor, source: client }, env.log);
    report({ event: `Pulling from ${describe(source)}` });
    report({ event: 'fetching image content', name, descriptor });
    using tracker = new ProgressTracker(name, 'downloading', options);
    const { downloads, layerFetchBuffer, syncFs = false, annotateLayers = false } = options.pull ?? {};
    const targets = unpackTargets(leased, env, store.unpacks).map((target) => ({ ...target, syncFs }));
    const limits: PullLimits = {
      transfers: new Semaphore(downloads ?? source.maxTransfers),
      all: downloads === undefined ? env.downloads : new Semaphore(0),
      ranges: rangesOf(env, layerFetchBuffer ? { ...source, layerFetchBuffer } : source),
      annotate: annotateLayers,
      network: options.network,
    };
    await new ImagePull(leased, env, client, name, selectionOf(store), targets, tracker, limits).run(descriptor);
    for (const image of await storeImages({ ...leased, step: ctx.step }, env.images, store, descriptor)) {
      report({ event: 'saved', name: image.name, descriptor: image.target });
    }
    report({ event: `Completed pull from ${describe(source)}` });
  });
}

async function watched<T>(network: NetworkWatch | undefined, work: () => Promise<T>): Promise<T> {
  network?.begin();
  try {
    return await work();
  } finally {
    network?.end();
  }
}

function resolve(
  client: RegistryClient,
  reference: string,
  signal: AbortSignal | undefined,
): Promise<{ name: string; descriptor: Descriptor }> {
  return traced('pull.resolve', { attributes: { 'image.ref': reference } }, async () => {
    try {
      return await client.resolve(reference, signal);
    } catch (error) {
      throw StatusError.wrap(error, 'failed to resolve image');
    }
  });
}

/** How a step of a pull is described in a trace, under containerd's names. */
function attributesOf({ mediaType, digest, size }: Descriptor): SpanAttributes {
  return { 'descriptor.media.type': mediaType, 'descriptor.digest': digest, 'descriptor.size': size };
}

/** Of this pull alone; those of the daemon hold as well. */
interface PullLimits {
  transfers: Semaphore;
  /** Shared with other pulls. */
  all: Semaphore;
  annotate: boolean;
  ranges: RangeOptions | undefined;
  network: NetworkWatch | undefined;
}

/** Blobs of one image that are looked up, waited for or fetched at once: an index may name thousands. */
const maxOpen = 64;

class ImagePull {
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #client: RegistryClient;
  readonly #limits: PullLimits;
  readonly #name: string;
  readonly #selection: Selection;
  readonly #targets: readonly UnpackTarget[];
  readonly #tracker: ProgressTracker;
  readonly #group: TaskGroup;
  readonly #source: { key: string; repository: string };
  readonly #visited: Visited;
  /** A snapshotter of the targets may have layers by itself, if it is told which. */
  readonly #remote: boolean;
  readonly #open = new Semaphore(maxOpen);
  /** One fetch for each blob of the image, however often it is referred to. */
  readonly #arrivals = new Map<string, BlobArrival>();
  readonly #files: GrowingFile[] = [];

  constructor(
    ctx: RequestContext,
    env: TransferEnvironment,
    client: RegistryClient,
    name: string,
    selection: Selection,
    targets: readonly UnpackTarget[],
    tracker: ProgressTracker,
    limits: PullLimits,
  ) {
    this.#group = new TaskGroup(ctx.signal);
    this.#ctx = { ...ctx, signal: this.#group.signal };
    this.#env = env;
    this.#client = client;
    this.#limits = limits;
    this.#name = name;
    this.#selection = selection;
    this.#targets = targets;
    this.#tracker = tracker;
    this.#source = distributionSource(name);
    this.#visited = new Visited(selection);
    this.#remote =
      limits.annotate ||
      targets.some((target) => env.snapshotterMeta(target.name).exports.enable_remote_snapshot_annotations === 'true');
  }

  async run(root: Descriptor): Promise<void> {
    this.#group.run(() => this.#visit(root, 0));
    try {
      await this.#group.wait();
    } finally {
      await Promise.all(this.#files.map((file) => file.close()));
    }
  }

  async #visit(descriptor: Descriptor, depth: number): Promise<void> {
    checkDepth(depth);
    if (!this.#visited.first(descriptor)) return;
    await this.#fetch(descriptor);
    const all = await labelledChildren(this.#ctx, this.#env.content, descriptor);
    this.#tracker.addChildren(descriptor, all);
    const children = selectChildren(descriptor, all, this.#selection);
    if (isManifestType(descriptor.mediaType) && this.#targets.length > 0) {
      await this.#unpack(descriptor, children, depth);
      return;
    }
    for (const child of children) this.#group.run(() => this.#visit(child, depth + 1));
  }

  /** The configuration first: it says which layers have to be fetched at all. */
  async #unpack(manifest: Descriptor, children: readonly Descriptor[], depth: number): Promise<void> {
    const { config, layers, others } = splitManifest(children, this.#targets);
    for (const child of others) {
      if (child !== config) this.#group.run(() => this.#visit(child, depth + 1));
    }
    if (!config) {
      // Not a container image: its layers are kept and not unpacked.
      for (const layer of layers) this.#group.run(() => this.#visit(layer, depth + 1));
      return;
    }
    await this.#fetch(config);
    if (layers.length === 0) return;
    await unpackImage(this.#ctx, this.#env, {
      targets: this.#targets,
      config,
      layers: this.#remote ? annotateForSnapshotter(layers, { name: this.#name, manifest: manifest.digest }) : layers,
      fetchLayer: (layer) => this.#arrival(layer),
      tracker: this.#tracker,
    });
  }

  #fetch(descriptor: Descriptor): Promise<void> {
    return this.#arrival(descriptor).stored;
  }

  #arrival(descriptor: Descriptor): BlobArrival {
    let arrival = this.#arrivals.get(descriptor.digest);
    if (!arrival) {
      arrival = this.#begin(descriptor);
      this.#arrivals.set(descriptor.digest, arrival);
    }
    return arrival;
  }

  #begin(descriptor: Descriptor): BlobArrival {
    let onGrowing: (file: GrowingFile | undefined) => void = () => undefined;
    const growing = new Promise<GrowingFile | undefined>((resolve) => {
      onGrowing = (file) => {
        if (file) this.#files.push(file);
        resolve(file);
      };
    });
    const stored = traced('pull.fetch', { attributes: attributesOf(descriptor) }, () =>
      this.#fetchOnce(descriptor, onGrowing),
    );
    // A blob that was there, or could not be had, has no file to read along in.
    stored.then(
      () => onGrowing(undefined),
      () => onGrowing(undefined),
    );
    return { stored, growing };
  }

  async #fetchOnce(descriptor: Descriptor, onGrowing: (file: GrowingFile) => void): Promise<void> {
    const { content, fetches } = this.#env;
    const { key, repository } = this.#source;
    const source = addSource(undefined, key, repository);
    this.#tracker.add(descriptor);
    const { signal } = this.#ctx;
    const { transfers, all, network } = this.#limits;
    const fetching = async (): Promise<boolean> => {
      const release = await fetches.acquire(`${this.#ctx.namespace}/${descriptor.digest}`, signal);
      try {
        return await fetchContent(this.#ctx, {
          content,
          descriptor,
          labels: source === undefined ? {} : { [key]: source },
          ...(hasChildren(descriptor) && { labelsOf: (bytes: Uint8Array) => childLabelsIn(descriptor, bytes) }),
          open: (offset, signal) => this.#read(descriptor, offset, signal),
          download: (copy) => transfers.run(() => all.run(() => watched(network, copy), signal), signal),
          onProgress: (bytes) => {
            this.#tracker.update(descriptor, bytes);
            network?.moved();
          },
          ...(isLayerType(descriptor.mediaType) && { onGrowing }),
        });
      } finally {
        release();
      }
    };
    const fetched = await this.#open.run(fetching, signal);
    if (fetched) {
      this.#tracker.complete(descriptor);
    } else {
      await this.#labelSource(descriptor);
      this.#tracker.exists(descriptor);
    }
  }

  #read(descriptor: Descriptor, offset: number, signal: AbortSignal | undefined): BlobSource {
    const { data, size } = descriptor;
    // It came along in the document that names it; whether it is what the digest says is seen at the commit.
    if (data && data.length === size) return inlined(data.subarray(offset));
    const { ranges } = this.#limits;
    return this.#client.fetch(this.#name, descriptor, { offset, ranges, ...(signal && { signal }) });
  }

  async #labelSource({ digest }: Descriptor): Promise<void> {
    const { key, repository } = this.#source;
    const { labels } = await this.#env.content.info(this.#ctx, digest);
    const value = addSource(labels[key], key, repository);
    if (value === undefined) return;
    await this.#env.content.update(this.#ctx, { digest, labels: { [key]: value } }, [`labels.${key}`]);
  }
}

function hasChildren({ mediaType }: Descriptor): boolean {
  return isManifestType(mediaType) || isIndexType(mediaType);
}

function inlined(bytes: Uint8Array): BlobSource {
  return {
    origin: '',
    distrust: () => false,
    async *[Symbol.asyncIterator]() {
      yield bytes;
    },
  };
}
