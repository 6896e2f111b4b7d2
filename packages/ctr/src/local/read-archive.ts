// Takes an archive's blobs into the daemon's content store by this program itself: OCI layouts, and what `docker save` writes.

import { pipeline, type Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { type TarStreamEntry, tarReader } from '@gantry/archive';
import { type Client, Code, type Descriptor, decompressed, StatusError } from '@gantry/client';
import {
  Annotation,
  descriptorToJson,
  digestOf,
  encodeJson,
  isDigest,
  MediaType,
  normalizeDockerReference,
  normalizePlatform,
  ociReferenceName,
  parseImageConfig,
  parseJson,
  platformFromJson,
} from '@gantry/oci';
import { inBatches } from '../batches.ts';

type Blob = Pick<Descriptor, 'digest' | 'size'>;

interface DockerManifest {
  Config: string;
  RepoTags?: string[] | null;
  Layers?: string[] | null;
}

const maxJson = 20 << 20;
const broken = (message: string, cause?: unknown): StatusError => new StatusError(Code.Unknown, message, { cause });

/** @returns the index of all that came; for what `docker save` wrote, one that is made here */
export async function readArchive(
  client: Client,
  archive: AsyncIterable<Uint8Array>,
  settings: { compress: boolean; onBlob?: (name: string, size: number) => void },
): Promise<Descriptor> {
  const blobs = new Map<string, Blob>();
  const links = new Map<string, string>();
  let layout: { imageLayoutVersion?: string } | undefined;
  let docker: DockerManifest[] | undefined;
  for await (const entry of tarReader(await decompressed(archive))) {
    const name = cleanName(entry.name);
    if (entry.type === '2') links.set(name, cleanName(`${name}/../${entry.linkname}`));
    else if (entry.type !== '0') continue;
    else if (name === 'oci-layout') layout = await readJson(entry);
    else if (name === 'manifest.json') docker = await readJson(entry);
    else {
      settings.onBlob?.(name, entry.size);
      blobs.set(name, await ingest(client, entry, name));
    }
  }
  if (layout?.imageLayoutVersion !== undefined) {
    if (layout.imageLayoutVersion !== '1.0.0') throw broken(`unsupported OCI version ${layout.imageLayoutVersion}`);
    const index = blobs.get('index.json');
    if (!index) throw broken(`missing index.json in OCI layout ${layout.imageLayoutVersion}`);
    return { ...index, mediaType: MediaType.OciIndex };
  }
  if (!docker) throw broken('unrecognized image format');
  for (const [name, target] of links) {
    const blob = blobs.get(target);
    if (!blob) throw broken(`no target for symlink layer from "${name}" to "${target}"`);
    blobs.set(name, blob);
  }
  return dockerIndex(client, docker, blobs, settings.compress);
}

async function readJson<T>(entry: TarStreamEntry): Promise<T> {
  try {
    return parseJson<T>(await entry.bytes(maxJson));
  } catch (reason) {
    throw broken(`untar "${entry.name}": ${(reason as Error).message}`, reason);
  }
}

/** A name without `.`, `..` or doubled slashes: only used as a key. */
function cleanName(name: string): string {
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}

/** A blob that says its digest in its name is checked against it. */
async function ingest(client: Client, { stream, size }: TarStreamEntry, name: string): Promise<Blob> {
  const found = /^blobs\/([a-z0-9]+)\/([a-f0-9]+)$/.exec(name);
  const named = found ? `${found[1]}:${found[2]}` : '';
  return client.content.ingest(`import-${process.pid}-${name}`, inBatches(stream), {
    size,
    ...(isDigest(named) && { expected: named }),
  });
}

async function dockerIndex(
  client: Client,
  docker: readonly DockerManifest[],
  blobs: ReadonlyMap<string, Blob>,
  compress: boolean,
): Promise<Descriptor> {
  const manifests: Descriptor[] = [];
  for (const { Config, Layers, RepoTags } of docker) {
    const config = blobs.get(cleanName(Config));
    if (!config) throw broken(`image config "${Config}" not found`);
    const layers: Descriptor[] = [];
    for (const name of Layers ?? []) layers.push(await dockerLayer(client, name, blobs, compress));
    const made = await save(client, MediaType.DockerManifest, {
      schemaVersion: 2,
      mediaType: MediaType.DockerManifest,
      config: descriptorToJson({ ...config, mediaType: MediaType.DockerConfig }),
      layers: layers.map(descriptorToJson),
    });
    const platform = normalizePlatform(platformFromJson(parseImageConfig(await client.content.readAll(config.digest))));
    const manifest = platform.os === '' || platform.architecture === '' ? made : { ...made, platform };
    for (const tag of RepoTags?.length ? RepoTags : [undefined]) {
      const name = tag === undefined ? undefined : normalizeDockerReference(tag);
      const annotations = name && { [Annotation.ImageName]: name, [Annotation.RefName]: ociReferenceName(name) };
      manifests.push({ ...manifest, ...(annotations && { annotations }) });
    }
  }
  return save(client, MediaType.OciIndex, { schemaVersion: 2, manifests: manifests.map(descriptorToJson) });
}

async function save(client: Client, mediaType: string, document: unknown): Promise<Descriptor> {
  const bytes = encodeJson(document);
  const expected = digestOf(bytes);
  return { mediaType, ...(await client.content.ingest(`manifest-${expected}`, bytes, { expected })) };
}

/** A layer of a `docker save` archive: a compressed blob that the store has of it, itself, or itself compressed. */
async function dockerLayer(
  client: Client,
  name: string,
  blobs: ReadonlyMap<string, Blob>,
  compress: boolean,
): Promise<Descriptor> {
  const blob = blobs.get(cleanName(name));
  if (!blob) throw broken(`failed to resolve layers: layer "${name}" not found`);
  const { content } = client;
  for await (const { digest, size } of content.list([`labels."containerd.io/uncompressed"=="${blob.digest}"`]))
    return { mediaType: await layerType(client, digest), digest, size };
  const mediaType = await layerType(client, blob.digest);
  if (!compress || mediaType !== MediaType.DockerLayer) return { ...blob, mediaType };
  const gzip = pipeline(content.stream(blob.digest), createGzip({ chunkSize: 1 << 20 }), () => {});
  const labels = { 'containerd.io/uncompressed': blob.digest };
  const ref = `compress-blob-${process.pid}-${blob.digest}`;
  return {
    mediaType: MediaType.DockerLayerGzip,
    ...(await content.ingest(ref, gzip as unknown as Readable, { labels })),
  };
}

async function layerType(client: Client, digest: string): Promise<string> {
  const { size } = await client.content.info(digest);
  const head = Buffer.alloc(4);
  for await (const piece of client.content.read(digest, { size: Math.min(4, size) })) head.set(piece);
  const gzip = head[0] === 0x1f && head[1] === 0x8b;
  const zstd = head.readUInt32LE(0) === 0xfd2fb528;
  return gzip || zstd ? MediaType.DockerLayerGzip : MediaType.DockerLayer;
}
