import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { Code, hasCode, StatusError, unknown } from '@gantry/api';
import { CompressionError, unpack } from '@gantry/archive';
import { TarError } from '@gantry/archive/tar-header.ts';
import { type TarStreamEntry, tarReader } from '@gantry/archive/tar-reader.ts';
import {
  Annotation,
  type Descriptor,
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
import type { ContentStore, ContentWriter } from '../../core/content/content-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { BatchedWrites } from './batched-writes.ts';
import { contentBytes, readContent, waitForWriter, writeContent } from './content-access.ts';
import type { ImportEndpoint } from './endpoints.ts';

/**
 * Reads an image archive into the content store: an OCI layout, or what `docker save` writes (then manifests and an index
 * are made for it). Answers the descriptor of the index.
 */

interface DockerManifest {
  Config: string;
  RepoTags?: string[] | null;
  Layers?: string[] | null;
}

type Blob = Pick<Descriptor, 'digest' | 'size'>;

const maxJson = 20 << 20;

export async function importArchive(
  ctx: RequestContext,
  content: ContentStore,
  source: Pick<ImportEndpoint, 'bytes' | 'mediaType' | 'forceCompress'>,
): Promise<Descriptor> {
  const blobs = new Map<string, Blob>();
  const links = new Map<string, string>();
  let layout: { imageLayoutVersion?: string } | undefined;
  let docker: DockerManifest[] | undefined;
  const bytes = source.mediaType === '' ? await decompress(source.bytes) : source.bytes;
  for await (const file of archiveFiles(bytes)) {
    ctx.signal?.throwIfAborted();
    const name = cleanName(file.name);
    if (file.type === '2') links.set(name, cleanName(`${name}/../${file.linkname}`));
    else if (file.type !== '0') continue;
    else if (name === 'oci-layout') layout = await readJson(file, 'oci layout');
    else if (name === 'manifest.json') docker = await readJson(file, 'manifest');
    else blobs.set(name, await ingest(ctx, content, file, name));
  }
  if (layout?.imageLayoutVersion) {
    const version = layout.imageLayoutVersion;
    if (version !== '1.0.0') throw unknown(`unsupported OCI version ${version}`);
    const index = blobs.get('index.json');
    if (!index) throw unknown(`missing index.json in OCI layout ${version}`);
    return { ...index, mediaType: MediaType.OciIndex };
  }
  if (!docker) throw unknown('unrecognized image format');
  for (const [name, target] of links) {
    const blob = blobs.get(target);
    if (!blob) throw unknown(`no target for symlink layer from "${name}" to "${target}"`);
    blobs.set(name, blob);
  }
  return await dockerIndex(ctx, content, docker, blobs, source.forceCompress);
}

async function* archiveFiles(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<TarStreamEntry> {
  try {
    yield* tarReader(bytes);
  } catch (error) {
    const ours = error instanceof TarError || error instanceof CompressionError;
    throw ours ? unknown(`invalid image archive: ${error.message}`, error) : error;
  }
}

async function readJson<T>(file: TarStreamEntry, what: string): Promise<T> {
  try {
    return parseJson<T>(await file.bytes(maxJson));
  } catch (error) {
    throw unknown(`untar ${what} "${file.name}": ${(error as Error).message}`, error);
  }
}

/** A name without `.`, `..` or doubled slashes, never leading outside: only used as a key. */
function cleanName(name: string): string {
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}

/** The ref holds only until the commit; a blob that says its digest in its name is checked against it. */
async function ingest(ctx: RequestContext, content: ContentStore, file: TarStreamEntry, name: string): Promise<Blob> {
  const found = /^blobs\/([a-z0-9]+)\/([a-f0-9]+)$/.exec(name);
  const named = found ? `${found[1]}:${found[2]}` : '';
  const expected = isDigest(named) ? named : undefined;
  const ref = `tar-${name}`;
  const writer = await openFresh(ctx, content, ref, file.size, expected);
  // The blob is there: its bytes only go by.
  if (!writer) return { digest: named, size: file.size };
  try {
    // All of it may be there under another namespace; then the commit takes it from there.
    const whole = writer.status().offset === file.size && expected !== undefined;
    if (!whole) await writeAll(writer, file);
    const digest = await writer.digest();
    try {
      await writer.commit({ size: file.size, ...(expected && { expected }) });
    } catch (error) {
      if (!hasCode(error, Code.AlreadyExists)) throw error;
    }
    await writer.close();
    return { digest: expected ?? digest, size: file.size };
  } catch (error) {
    await writer.close();
    await dropIngest(ctx, content, ref);
    throw StatusError.wrap(error, `failed to ingest "${file.name}"`);
  }
}

/** What comes from a stream cannot be gone on with. */
async function dropIngest(ctx: RequestContext, content: ContentStore, ref: string): Promise<void> {
  try {
    await content.abort({ ...ctx, signal: undefined }, ref);
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
  }
}

async function writeAll(writer: ContentWriter, file: TarStreamEntry): Promise<void> {
  const batches = new BatchedWrites(writer, file.size);
  try {
    for await (const chunk of file.stream) await batches.add(chunk);
  } finally {
    await batches.finish();
  }
}

async function openFresh(
  ctx: RequestContext,
  content: ContentStore,
  ref: string,
  size: number,
  expected: string | undefined,
): Promise<Awaited<ReturnType<ContentStore['writer']>> | undefined> {
  try {
    const writer = await waitForWriter(ctx, content, { ref, size, ...(expected && { expected }) });
    // What an import that broke off left cannot be gone on with: the stream starts anew.
    const { offset } = writer.status();
    if (offset > 0 && !(expected !== undefined && offset === size)) await writer.truncate(0);
    return writer;
  } catch (error) {
    if (hasCode(error, Code.AlreadyExists)) return undefined;
    throw error;
  }
}

async function dockerIndex(
  ctx: RequestContext,
  content: ContentStore,
  docker: readonly DockerManifest[],
  blobs: ReadonlyMap<string, Blob>,
  compress: boolean,
): Promise<Descriptor> {
  const manifests: Descriptor[] = [];
  for (const { Config, Layers, RepoTags } of docker) {
    const config = blobs.get(cleanName(Config));
    if (!config) throw unknown(`image config "${Config}" not found`);
    const layers: Descriptor[] = [];
    for (const name of Layers ?? []) layers.push(await layer(ctx, content, name, blobs, compress));
    const descriptor = await save(ctx, content, MediaType.DockerManifest, {
      schemaVersion: 2,
      mediaType: MediaType.DockerManifest,
      config: descriptorToJson({ ...config, mediaType: MediaType.DockerConfig }),
      layers: layers.map(descriptorToJson),
    });
    const image = parseImageConfig(await readContent(ctx, content, config.digest));
    const platform = normalizePlatform(platformFromJson(image));
    const base = platform.os === '' || platform.architecture === '' ? descriptor : { ...descriptor, platform };
    if (!RepoTags || RepoTags.length === 0) manifests.push(base);
    for (const tag of RepoTags ?? []) {
      const name = normalizeDockerReference(tag);
      const annotations = { [Annotation.ImageName]: name, [Annotation.RefName]: ociReferenceName(name) };
      manifests.push({ ...base, annotations });
    }
  }
  return await save(ctx, content, MediaType.OciIndex, {
    schemaVersion: 2,
    manifests: manifests.map(descriptorToJson),
  });
}

async function save(
  ctx: RequestContext,
  content: ContentStore,
  mediaType: string,
  document: unknown,
): Promise<Descriptor> {
  const bytes = encodeJson(document);
  const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
  await writeContent(ctx, content, descriptor, bytes, `manifest-${descriptor.digest}`);
  return descriptor;
}

/** A layer of a `docker save` archive: the compressed blob that the store already has of it, itself, or itself gzip'd. */
async function layer(
  ctx: RequestContext,
  content: ContentStore,
  name: string,
  blobs: ReadonlyMap<string, Blob>,
  compress: boolean,
): Promise<Descriptor> {
  const blob = blobs.get(cleanName(name));
  if (!blob) throw unknown(`failed to resolve layers: layer "${name}" not found`);
  const filter = `labels."containerd.io/uncompressed"==${blob.digest}`;
  for await (const { digest, size } of content.list(ctx, [filter])) {
    return { mediaType: await layerType(ctx, content, digest), digest, size };
  }
  const mediaType = await layerType(ctx, content, blob.digest);
  if (!compress || mediaType !== MediaType.DockerLayer) return { ...blob, mediaType };
  const ref = `compress-blob-${blob.digest.replace(':', '-')}`;
  const writer = await openFresh(ctx, content, ref, 0, undefined);
  if (!writer) throw unknown(`ingest ${ref} without a digest cannot exist`);
  try {
    const stream = Readable.from(contentBytes(ctx, content, blob.digest)).pipe(createGzip());
    for await (const chunk of stream as AsyncIterable<Buffer>) await writer.write(chunk);
    const { digest, size } = await writer.commit({ labels: { 'containerd.io/uncompressed': blob.digest } });
    await writer.close();
    return { mediaType: MediaType.DockerLayerGzip, digest, size };
  } catch (error) {
    await writer.close();
    await dropIngest(ctx, content, ref);
    throw error;
  }
}

async function layerType(ctx: RequestContext, content: ContentStore, digest: string): Promise<string> {
  await using reader = await content.reader(ctx, digest);
  const magic = Buffer.from(await reader.read(0, 4));
  return compressionOf(magic) === 'none' ? MediaType.DockerLayer : MediaType.DockerLayerGzip;
}

function compressionOf(magic: Buffer): 'gzip' | 'zstd' | 'none' {
  if (magic[0] === 0x1f && magic[1] === 0x8b) return 'gzip';
  if (magic.length >= 4 && magic.readUInt32LE(0) === 0xfd2fb528) return 'zstd';
  return 'none';
}

/** The archive itself may be compressed. */
async function decompress(bytes: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const buffers = async function* () {
    for await (const { buffer, byteOffset, byteLength } of bytes) yield Buffer.from(buffer, byteOffset, byteLength);
  };
  const { compression, bytes: plain } = await unpack(buffers());
  // What is unpacked comes in buffers that are used again, and the store may still hash what it was given.
  return compression === 'none' ? plain : copies(plain);
}

async function* copies(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of bytes) yield Buffer.from(chunk);
}
