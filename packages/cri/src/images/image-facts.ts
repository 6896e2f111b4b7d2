import { Code, hasCode, notFound } from '@gantry/api';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import { readContent, readManifest } from '@gantry/daemon/plugins/transfer-local/content-access.ts';
import {
  chainIds,
  type Descriptor,
  defaultPlatform,
  type ImageConfig,
  isConfigType,
  isIndexType,
  isManifestType,
  onlyPlatform,
  parseImageConfig,
  parseIndex,
  parseManifest,
} from '@gantry/oci';

/** What an image comes to on this machine. None of it changes for a given target. */
export interface ImageFacts {
  /** Digest of the configuration: the image's id. */
  id: string;
  /** Name of the snapshot with all layers; '' for an image without any. */
  chainId: string;
  /** Bytes of everything that this machine needs of it, as they are stored. */
  size: number;
  config: ImageConfig;
  /** The configuration as it is stored. */
  configBytes: Uint8Array;
  layers: readonly Descriptor[];
  /** Its blobs are files, and no layers of a file system; its id is that of its manifest. */
  artifact: boolean;
  /** Digest of its manifest. */
  manifest: string;
  /** Of its manifest, and of the indexes on the way to that. */
  annotations: Readonly<Record<string, string>>;
}

/** Reads the facts of images, once for each target. */
export class ImageFactsReader {
  readonly #content: ContentStore;
  readonly #matcher = onlyPlatform(defaultPlatform());
  readonly #known = new Map<string, ImageFacts>();

  constructor(content: ContentStore) {
    this.#content = content;
  }

  /** @throws NotFound if a part of it that this machine needs is not there */
  async read(ctx: RequestContext, target: Descriptor): Promise<ImageFacts> {
    const known = this.#known.get(target.digest);
    if (known) return known;
    const facts = await this.#read(ctx, target);
    this.#known.set(target.digest, facts);
    return facts;
  }

  /** Drops what is known of all targets but these. */
  keep(digests: ReadonlySet<string>): void {
    for (const digest of this.#known.keys()) if (!digests.has(digest)) this.#known.delete(digest);
  }

  async #read(ctx: RequestContext, target: Descriptor): Promise<ImageFacts> {
    const { descriptor, size, annotations } = await this.#manifest(ctx, target, 0);
    const manifest = parseManifest(await readManifest(ctx, this.#content, descriptor), descriptor.mediaType);
    const configBytes = await readContent(ctx, this.#content, manifest.config.digest);
    // What is no image has a configuration of its own kind, or an empty one that all share.
    const artifact = !isConfigType(manifest.config.mediaType);
    const config: ImageConfig = artifact ? {} : parseImageConfig(configBytes);
    const layers = manifest.layers.reduce((sum, layer) => sum + layer.size, 0);
    return {
      id: artifact ? descriptor.digest : manifest.config.digest,
      chainId: chainIds(config.rootfs?.diff_ids ?? []).at(-1) ?? '',
      size: size + descriptor.size + manifest.config.size + layers,
      config,
      configBytes,
      layers: manifest.layers,
      manifest: descriptor.digest,
      artifact,
      annotations: { ...annotations, ...manifest.annotations },
    };
  }

  /** The manifest for this machine, with the bytes of the indexes on the way to it. */
  async #manifest(
    ctx: RequestContext,
    target: Descriptor,
    depth: number,
  ): Promise<{ descriptor: Descriptor; size: number; annotations: Record<string, string> }> {
    if (isManifestType(target.mediaType)) return { descriptor: target, size: 0, annotations: {} };
    if (!isIndexType(target.mediaType) || depth > 4) {
      throw notFound(`image ${target.digest} is a ${target.mediaType || 'blob of no known type'}: not found`);
    }
    const index = parseIndex(await readManifest(ctx, this.#content, target), target.mediaType);
    const fitting = index.manifests
      .filter(({ platform, annotations }) =>
        platform ? this.#matcher.match(platform) : annotations?.['vnd.docker.reference.type'] === undefined,
      )
      .sort((a, b) => (a.platform && b.platform ? this.#matcher.compare(a.platform, b.platform) : 0));
    for (const child of fitting) {
      try {
        const { descriptor, size, annotations } = await this.#manifest(ctx, child, depth + 1);
        await this.#content.info(ctx, descriptor.digest);
        return { descriptor, size: size + target.size, annotations: { ...index.annotations, ...annotations } };
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) throw error;
      }
    }
    throw notFound(`no manifest for this platform in ${target.digest}: not found`);
  }
}
