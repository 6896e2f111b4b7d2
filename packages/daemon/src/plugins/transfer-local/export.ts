import { failedPrecondition, invalidArgument, notFound, unimplemented } from '@gantry/api';
import { TarWriter } from '@gantry/archive/tar-writer.ts';
import {
  Annotation,
  childrenOf,
  type Descriptor,
  defaultPlatform,
  descriptorToJson,
  encodeJson,
  familiarDockerReference,
  isIndexType,
  isManifestType,
  isNonDistributable,
  MediaType,
  ociReferenceName,
  orderedPlatforms,
  type PlatformMatcher,
  parseDigest,
  parseIndex,
  parseManifest,
} from '@gantry/oci';
import type { Image } from '../../core/images/image-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { TransferOptions } from '../../core/transfer/transferrer.ts';
import { hasContent, readManifest, verifiedBytes } from './content-access.ts';
import type { ExportEndpoint, ImageStoreEndpoint } from './endpoints.ts';
import { type TransferEnvironment, withLease } from './environment.ts';
import { checkDepth, sortByPlatform, Visited } from './image-walk.ts';

/** Export: images as an OCI layout in a tar stream, with a `manifest.json` so that `docker load` takes it too. */
export async function exportImages(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: ImageStoreEndpoint,
  destination: ExportEndpoint,
  options: TransferOptions,
): Promise<void> {
  const report = options.progress ?? (() => undefined);
  await withLease(ctx, env.leases, async (leased) => {
    report({ event: 'Exporting' });
    try {
      const layout = new LayoutExport(leased, env, destination);
      for (const image of await lookUp(leased, env, source)) await layout.add(image);
      await layout.write();
    } finally {
      destination.sender.close();
    }
    report({ event: 'Completed export' });
  });
}

async function lookUp(ctx: RequestContext, env: TransferEnvironment, source: ImageStoreEndpoint): Promise<Image[]> {
  const images: Image[] = [];
  if (source.name !== '') images.push(await env.images.get(ctx, source.name));
  for (const { name, isPrefix } of source.extraReferences) {
    if (isPrefix) throw unimplemented('prefix lookup on export not implemented: not implemented');
    images.push(await env.images.get(ctx, name));
  }
  return images;
}

interface DockerEntry {
  manifest: Descriptor;
  names: string[];
}

type Entry = { name: string } & ({ blob: Descriptor } | { bytes: Uint8Array; mode: number });

class LayoutExport {
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #options: ExportEndpoint;
  readonly #matcher: PlatformMatcher;
  readonly #entries = new Map<string, Entry>();
  readonly #manifests: Descriptor[] = [];
  readonly #docker = new Map<string, DockerEntry>();
  readonly #collected = new Visited();
  /** Manifests of images that are not whole. */
  readonly #incomplete = new Set<string>();
  /** The manifest that stands for an index in `manifest.json`. */
  readonly #chosen = new Map<string, string>();

  constructor(ctx: RequestContext, env: TransferEnvironment, options: ExportEndpoint) {
    this.#ctx = ctx;
    this.#env = env;
    this.#options = options;
    const { platforms } = options;
    this.#matcher = orderedPlatforms(...(platforms.length > 0 ? platforms : [defaultPlatform()]));
  }

  async add(image: Image): Promise<void> {
    const { target, name } = image;
    const { labels } = await this.#env.content.info(this.#ctx, target.digest);
    const sources = Object.entries(labels).filter(([key]) => key.startsWith('containerd.io/distribution.source'));
    const annotations = {
      ...target.annotations,
      [Annotation.ImageName]: name,
      [Annotation.RefName]: ociReferenceName(name),
      ...Object.fromEntries(sources),
    };
    const { mediaType, digest } = target;
    this.#manifests.push({ ...target, annotations });
    if (isManifestType(mediaType)) {
      if (!this.#docker.has(digest)) await this.#collect(target, 0);
      this.#dockerName(target, name);
    } else if (isIndexType(mediaType)) {
      if (!this.#chosen.has(digest)) await this.#addIndex(target);
      const chosen = this.#docker.get(this.#chosen.get(digest) ?? '');
      if (chosen) this.#dockerName(chosen.manifest, name);
    } else {
      throw invalidArgument('only manifests may be exported: invalid argument');
    }
  }

  async #addIndex(target: Descriptor): Promise<void> {
    this.#blob(target);
    const index = parseIndex(await readManifest(this.#ctx, this.#env.content, target), target.mediaType);
    for (const manifest of index.manifests) {
      if (this.#options.allPlatforms || this.#fits(manifest)) await this.#collect(manifest, 1);
    }
    const best = await this.#best(index.manifests, 1);
    if (!best) return;
    this.#chosen.set(target.digest, best.digest);
    if (!this.#docker.has(best.digest)) this.#docker.set(best.digest, { manifest: best, names: [] });
  }

  #fits({ platform }: Descriptor): boolean {
    return platform === undefined || this.#matcher.match(platform);
  }

  /** The image for the platform, down through indexes in the index. */
  async #best(manifests: readonly Descriptor[], depth: number): Promise<Descriptor | undefined> {
    checkDepth(depth);
    const [best] = sortByPlatform(
      manifests.filter((manifest) => this.#fits(manifest)),
      this.#matcher,
    );
    if (!best) throw notFound('no manifest found for platform: not found');
    if (isManifestType(best.mediaType)) return best;
    if (!isIndexType(best.mediaType) || !this.#entries.has(blobName(best))) return undefined;
    const inner = parseIndex(await readManifest(this.#ctx, this.#env.content, best), best.mediaType);
    return await this.#best(inner.manifests, depth + 1);
  }

  #dockerName(manifest: Descriptor, name: string): void {
    const entry = this.#docker.get(manifest.digest) ?? { manifest, names: [] };
    entry.names.push(name);
    this.#docker.set(manifest.digest, entry);
  }

  async #collect(descriptor: Descriptor, depth: number): Promise<void> {
    checkDepth(depth);
    if (!this.#collected.first(descriptor)) return;
    const { mediaType, digest } = descriptor;
    if (!isManifestType(mediaType) && !isIndexType(mediaType)) {
      this.#blob(descriptor);
      return;
    }
    const { skipMissing } = this.#options;
    if (skipMissing && depth > 0 && !(await this.#has(descriptor))) return;
    this.#blob(descriptor);
    const children = childrenOf(descriptor, await readManifest(this.#ctx, this.#env.content, descriptor));
    // An image of which something is missing would not run: nothing but its manifest goes along.
    if (skipMissing && isManifestType(mediaType) && !(await this.#hasAll(children))) {
      this.#incomplete.add(digest);
      return;
    }
    for (const child of children) await this.#collect(child, depth + 1);
  }

  #has({ digest }: Descriptor): Promise<boolean> {
    return hasContent(this.#ctx, this.#env.content, digest);
  }

  async #hasAll(descriptors: readonly Descriptor[]): Promise<boolean> {
    for (const descriptor of descriptors) {
      const left = this.#options.skipNonDistributable && isNonDistributable(descriptor.mediaType);
      if (!left && !(await this.#has(descriptor))) return false;
    }
    return true;
  }

  #blob(descriptor: Descriptor): void {
    if (this.#options.skipNonDistributable && isNonDistributable(descriptor.mediaType)) return;
    const { algorithm } = parseDigest(descriptor.digest);
    const name = blobName(descriptor);
    this.#entries.set(name, { name, blob: descriptor });
    for (const folder of ['blobs/', `blobs/${algorithm}/`]) {
      this.#entries.set(folder, { name: folder, bytes: new Uint8Array(), mode: 0o755 });
    }
  }

  async write(): Promise<void> {
    this.#document('oci-layout', { imageLayoutVersion: '1.0.0' }, 0o444);
    this.#document('index.json', {
      schemaVersion: 2,
      mediaType: MediaType.OciIndex,
      manifests: this.#manifests.map(descriptorToJson),
    });
    if (!this.#options.skipCompatibilityManifest && this.#docker.size > 0) {
      this.#document('manifest.json', await this.#dockerManifests());
    }
    const { sender } = this.#options;
    const tar = new TarWriter((chunk) => sender.write(chunk));
    // In order of name, owned by root, dated 1970: the same images always give the same archive.
    const entries = [...this.#entries.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const entry of entries) {
      if ('blob' in entry) await tar.file(entry.name, entry.blob.size, this.#verified(entry.blob), { mode: 0o444 });
      else if (entry.name.endsWith('/')) await tar.directory(entry.name, { mode: entry.mode });
      else await tar.bytes(entry.name, entry.bytes, { mode: entry.mode });
    }
    await tar.finish();
  }

  #document(name: string, value: unknown, mode = 0o644): void {
    this.#entries.set(name, { name, bytes: encodeJson(value), mode });
  }

  async #dockerManifests(): Promise<unknown[]> {
    const list: unknown[] = [];
    for (const { manifest, names } of this.#docker.values()) {
      // Not there, or not whole, and passed over.
      if (!this.#entries.has(blobName(manifest)) || this.#incomplete.has(manifest.digest)) continue;
      const bytes = await readManifest(this.#ctx, this.#env.content, manifest);
      const { config, layers } = parseManifest(bytes, manifest.mediaType);
      list.push({
        Config: blobName(config),
        RepoTags: names.map(familiarDockerReference),
        Layers: layers.map(blobName),
      });
    }
    return list;
  }

  /** A blob's bytes; at their end they have to be what the digest says. */
  async *#verified({ digest, size }: Descriptor): AsyncGenerator<Uint8Array> {
    let sent = 0;
    for await (const chunk of verifiedBytes(this.#ctx, this.#env.content, digest)) {
      sent += chunk.length;
      yield chunk;
    }
    if (sent !== size) throw failedPrecondition(`unexpected copy size for ${digest}: failed precondition`);
  }
}

function blobName({ digest }: Descriptor): string {
  const { algorithm, encoded } = parseDigest(digest);
  return `blobs/${algorithm}/${encoded}`;
}
