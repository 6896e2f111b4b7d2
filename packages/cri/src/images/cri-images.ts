import { Code, hasCode, notFound, packAny } from '@gantry/api';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import { KeyedLock } from '@gantry/daemon/core/content/keyed-lock.ts';
import { eitherCredentials } from '@gantry/daemon/core/credentials/loaded-credentials.ts';
import type { Image, ImageStore } from '@gantry/daemon/core/images/image-store.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { PullOptions, Transferrer } from '@gantry/daemon/core/transfer/transferrer.ts';
import { defaultPlatform, isDigest, normalizeDockerReference, parseReference } from '@gantry/oci';
import type { CredentialsProvider } from '@gantry/registry';
import type { ImagesConfig } from '../config/images-config.ts';
import { CriLabel, managedImage } from '../labels.ts';
import type { CriImage } from './cri-image.ts';
import type { ImageFacts } from './image-facts.ts';
import { ImageView } from './image-view.ts';
import { legacyRegistry } from './legacy-registry.ts';
import { PullWatch } from './pull-watch.ts';

export interface CriImagesOptions {
  config: ImagesConfig;
  images: ImageStore;
  content: ContentStore;
  transfer: Transferrer;
  /** Waits for a garbage collection. */
  collect: () => Promise<unknown>;
  /** Waits until all that has been recorded so far is on disk. */
  flush: () => Promise<void>;
  log: Logger;
}

/** The images of the namespace as CRI sees them, over the daemon's image records. */
export class CriImages {
  readonly #options: CriImagesOptions;
  readonly #view: ImageView;
  readonly #pulls = new KeyedLock();
  /** Held while an image is taken over or removed: a name given to one that is being removed would stay alone. */
  readonly #naming = new KeyedLock();
  readonly #legacy: ReturnType<typeof legacyRegistry>;
  #adopting: Promise<unknown> = Promise.resolve();

  constructor(options: CriImagesOptions) {
    this.#options = options;
    this.#view = new ImageView(options);
    this.#legacy = legacyRegistry(options.config.registry);
  }

  /** The record of that name has come, changed or gone. */
  changed(name: string): void {
    this.#view.changed(name);
  }

  /** A blob has come: images that were not whole may be now. */
  contentCame(): void {
    this.#view.contentCame();
  }

  /** All images whose parts for this machine are there, in order of their first record. */
  async list(ctx: RequestContext): Promise<readonly CriImage[]> {
    await this.adopted();
    await this.#view.refresh(ctx);
    return this.#view.list();
  }

  /** By id (or a beginning of it), or by a name with tag or digest, in Docker's short form too. */
  async find(ctx: RequestContext, reference: string): Promise<CriImage | undefined> {
    await this.adopted();
    return this.#find(ctx, reference);
  }

  async #find(ctx: RequestContext, reference: string): Promise<CriImage | undefined> {
    if (reference === '') return undefined;
    await this.#view.refresh(ctx);
    if (isDigest(reference)) {
      // What containers and pods are asked by again and again: by its id, which no name looks like.
      const known = this.#view.byId(reference);
      if (known) return known;
    }
    for (const name of candidates(reference)) {
      const image = this.#view.byName(name);
      if (image) return image;
    }
    if (!/^(sha256:)?[a-f0-9]{4,64}$/.test(reference)) return undefined;
    const prefix = reference.startsWith('sha256:') ? reference : `sha256:${reference}`;
    const found = this.#view.list().filter(({ id }) => id.startsWith(prefix));
    return found.length === 1 ? found[0] : undefined;
  }

  /** @throws NotFound */
  async get(ctx: RequestContext, reference: string): Promise<CriImage> {
    const image = await this.find(ctx, reference);
    if (!image) throw notFound(`image "${reference}": not found`);
    return image;
  }

  /**
   * Brings an image through the transfer service, unpacked for that snapshotter, under its name, its digest and its id.
   * @throws InvalidArgument for a name that is none; whatever the transfer says
   */
  async pull(
    ctx: RequestContext,
    reference: string,
    options: { credentials?: CredentialsProvider | undefined; snapshotter?: string } = {},
  ): Promise<CriImage> {
    const { config, transfer, images } = this.#options;
    const name = normalizeDockerReference(reference);
    const labels = this.#labels(name);
    const snapshotter = options.snapshotter || config.snapshotter;
    const release = await this.#pulls.acquire(`${name} ${snapshotter}`, ctx.signal);
    try {
      const headers = Object.fromEntries(
        Object.entries(config.registry.headers ?? {}).map(([key, values]) => [key, values.join(', ')]),
      );
      const platform = defaultPlatform();
      using watch = new PullWatch(config.image_pull_progress_timeout, ctx.signal);
      await watch.run(
        transfer.transfer(
          { ...ctx, signal: watch.signal, step: true },
          packAny(OCIRegistrySchema, { reference: name, resolver: { headers } }),
          packAny(ImageStoreSchema, { name, labels, platforms: [platform], unpacks: [{ platform, snapshotter }] }),
          {
            credentials: eitherCredentials(options.credentials, this.#legacy?.credentials),
            hosts: this.#legacy?.hosts,
            hostsDirectory: config.registry.config_path || undefined,
            network: watch,
            pull: pullOptions(config),
          },
        ),
      );
      const record = await images.get(ctx, name);
      const facts = await this.#view.facts(ctx, record.target);
      await this.#nameWithDigestAndId({ ...ctx, step: true }, record, facts);
      if (config.discard_unpacked_layers) await this.#discardLayers(ctx, facts);
      // One wait for the disk for everything that the pull has recorded.
      await this.#options.flush();
      await this.#view.refresh(ctx);
      const image = this.#view.byId(facts.id);
      return image ?? { ...facts, tags: [], digests: [], pinned: false, createdAt: 0n };
    } finally {
      release();
    }
  }

  /** Nothing refers to the layers any more but their snapshots: the next collection has them. */
  async #discardLayers(ctx: RequestContext, { manifest, layers }: ImageFacts): Promise<void> {
    const { content } = this.#options;
    const { labels } = await content.info(ctx, manifest);
    const digests = new Set(layers.map(({ digest }) => digest));
    const kept = Object.entries(labels).filter(
      ([key, value]) => !(key.startsWith('containerd.io/gc.ref.content') && digests.has(value)),
    );
    await content.update(ctx, { digest: manifest, labels: Object.fromEntries(kept) }, ['labels']);
  }

  #labels(name: string): Record<string, string> {
    const pinned = Object.values(this.#options.config.pinned_images).some((image) => {
      try {
        return normalizeDockerReference(image) === name;
      } catch {
        return false;
      }
    });
    return pinned ? { ...managedImage, [CriLabel.pinned]: 'pinned' } : { ...managedImage };
  }

  /** Gives an image's record the labels and companions that CRI's images have, if it has not. @throws NotFound */
  adopt(ctx: RequestContext, name: string): Promise<void> {
    const adopted = this.#adopting.then(() => this.#adopt(ctx, name));
    this.#adopting = adopted.catch(() => undefined);
    return adopted;
  }

  /** Settles when those that have come until now are as CRI's images are: they are not shown before. */
  async adopted(): Promise<void> {
    await this.#adopting;
  }

  async #adopt(ctx: RequestContext, name: string): Promise<void> {
    const { images } = this.#options;
    if ((await images.get(ctx, name)).labels[CriLabel.image] === 'managed') return;
    await this.#naming.run('', async () => {
      const record = await images.get(ctx, name);
      const facts = await this.#view.facts(ctx, record.target);
      const labels = { ...record.labels, ...this.#labels(name) };
      await this.#save(ctx, { name: facts.id, target: record.target, labels: this.#labels(facts.id) });
      await images.update(ctx, { ...record, labels }, ['labels']);
    });
  }

  async #nameWithDigestAndId(ctx: RequestContext, record: Image, facts: ImageFacts): Promise<void> {
    const { target, labels } = record;
    const { locator } = parseReference(record.name);
    const names = [facts.id, `${locator}@${target.digest}`].filter((name) => name !== record.name);
    await Promise.all(names.map((name) => this.#save(ctx, { name, target, labels })));
  }

  async #save(ctx: RequestContext, record: Pick<Image, 'name' | 'target' | 'labels'>): Promise<void> {
    const { images } = this.#options;
    for (;;) {
      try {
        await images.create(ctx, record);
        return;
      } catch (error) {
        if (!hasCode(error, Code.AlreadyExists)) throw error;
      }
      try {
        const present = await images.get(ctx, record.name);
        const same = present.target.digest === record.target.digest;
        const missing = Object.entries(record.labels).some(([key, value]) => present.labels[key] !== value);
        if (same && !missing) return;
        await images.update(ctx, { ...record, labels: { ...present.labels, ...record.labels } }, ['target', 'labels']);
        return;
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) throw error;
      }
    }
  }

  /** Removes every record of the image that the reference is of. One that is not there is well. */
  async remove(ctx: RequestContext, reference: string): Promise<void> {
    if (!(await this.find(ctx, reference))) return;
    const collecting = await this.#naming.run('', async () => {
      const image = await this.#find(ctx, reference);
      if (!image) return undefined;
      const removed = this.#removeRecords(ctx, [...image.tags, ...image.digests, image.id]);
      // Its transaction is right behind theirs, and brings them to disk.
      const collection = this.#options.collect();
      collection.catch(() => undefined);
      await removed;
      return { collection };
    });
    // The space is free when the caller is answered.
    await collecting?.collection;
  }

  /** At once, for one write of all. */
  async #removeRecords(ctx: RequestContext, names: readonly string[]): Promise<void> {
    const gone = names.map(async (name) => {
      try {
        await this.#options.images.delete({ ...ctx, step: true }, name);
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) throw error;
      }
    });
    for (const one of await Promise.allSettled(gone)) if (one.status === 'rejected') throw one.reason;
  }
}

/** How the configuration wants images pulled; what it leaves at containerd's defaults is as the daemon is set. */
function pullOptions(config: ImagesConfig): PullOptions {
  const { max_concurrent_downloads: downloads, concurrent_layer_fetch_buffer: buffer } = config;
  return {
    ...(downloads !== 3 && { downloads: Math.max(downloads, 0) }),
    ...(buffer > 0 && { layerFetchBuffer: buffer }),
    syncFs: config.image_pull_with_sync_fs,
    annotateLayers: !config.disable_snapshot_annotations,
  };
}

function candidates(reference: string): string[] {
  const names = [reference];
  try {
    const normal = normalizeDockerReference(reference);
    if (normal !== reference) names.unshift(normal);
  } catch {
    // Not a name: it may be an id.
  }
  if (/^[a-f0-9]{64}$/.test(reference)) names.push(`sha256:${reference}`);
  return names;
}
