import { failedPrecondition, invalidArgument, notFound, unimplemented, unknown } from '@gantry/api';
import { TarWriter } from '@gantry/archive/tar-writer.ts';
import {
  Annotation,
  childrenOf,
  type Descriptor,
  defaultPlatform,
  descriptorToJson,
  encodeJson,
  familiarDockerReference,
  hashFor,
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
import { contentBytes, readManifest } from './content-access.ts';
import type { ExportEndpoint, ImageStoreEndpoint } from './endpoints.ts';
import { type TransferEnvironment, withLease } from './environment.ts';
import { checkDepth, sortByPlatform } from './image-walk.ts';

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
    const fits = ({ platform }: Descriptor): boolean => platform === undefined || this.#matcher.match(platform);
    const fitting = index.manifests.filter(fits);
    for (const manifest of index.manifests) {
      if (this.#options.allPlatforms || fits(manifest)) await this.#collect(manifest, 1);
    }
    const best = sortByPlatform(fitting, this.#matcher)[0];
    if (!best) throw notFound('no manifest found for platform: not found');
    this.#chosen.set(target.digest, best.digest);
    if (!this.#docker.has(best.digest)) this.#docker.set(best.digest, { manifest: best, names: [] });
  }

  #dockerName(manifest: Descriptor, name: string): void {
    const entry = this.#docker.get(manifest.digest) ?? { manifest, names: [] };
    entry.names.push(name);
    this.#docker.set(manifest.digest, entry);
  }

  async #collect(descriptor: Descriptor, depth: number): Promise<void> {
    checkDepth(depth);
    this.#blob(descriptor);
    const { mediaType, digest } = descriptor;
    if (!isManifestType(mediaType) && !isIndexType(mediaType)) return;
    const children = childrenOf(descriptor, await readContent(this.#ctx, this.#env.content, digest));
    for (const child of children) await this.#collect(child, depth + 1);
  }

  #blob(descriptor: Descriptor): void {
    if (this.#options.skipNonDistributable && isNonDistributable(descriptor.mediaType)) return;
    const { algorithm, encoded } = parseDigest(descriptor.digest);
    const name = `blobs/${algorithm}/${encoded}`;
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
      const bytes = await readContent(this.#ctx, this.#env.content, manifest.digest);
      const { config, layers } = parseManifest(bytes, manifest.mediaType);
      const file = ({ digest }: Descriptor): string => `blobs/${digest.replace(':', '/')}`;
      list.push({ Config: file(config), RepoTags: names.map(familiarDockerReference), Layers: layers.map(file) });
    }
    return list;
  }

  /** A blob's bytes; at their end they have to be what the digest says. */
  async *#verified({ digest, size }: Descriptor): AsyncGenerator<Uint8Array> {
    const hash = hashFor(digest);
    let sent = 0;
    for await (const chunk of contentBytes(this.#ctx, this.#env.content, digest)) {
      hash.update(chunk);
      sent += chunk.length;
      yield chunk;
    }
    if (sent !== size) throw failedPrecondition(`unexpected copy size for ${digest}: failed precondition`);
    const actual = hash.digest('hex');
    if (!digest.endsWith(`:${actual}`)) throw unknown(`unexpected digest ${actual} copied`);
  }
}
