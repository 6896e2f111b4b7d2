import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode, notFound, unknown } from '@gantry/api';
import { archivePool, type HashFileParams, type HashFileResult } from '@gantry/archive';
import { type Descriptor, hashFor, isIndexType, isManifestType, maxManifestSize, parseDigest } from '@gantry/oci';
import type { ContentStore, ContentWriter, WriterOptions } from '../../core/content/content-store.ts';
import type { RequestContext } from '../../core/request-context.ts';

/** Small blobs read whole, and whether blobs are there. */

/** Configurations may be larger than manifests; nothing read whole may be more than this. */
const maxDocument = 20 << 20;

export async function readContent(ctx: RequestContext, content: ContentStore, digest: string): Promise<Uint8Array> {
  await using reader = await content.reader(ctx, digest);
  if (reader.size > maxDocument) throw notFound(`rejecting ${reader.size} byte document ${digest}: not found`);
  const chunks: Uint8Array[] = [];
  let at = 0;
  while (at < reader.size) {
    const chunk = await reader.read(at, reader.size - at);
    if (chunk.length === 0) break;
    chunks.push(chunk);
    at += chunk.length;
  }
  return Buffer.concat(chunks);
}

/** A manifest or index, whole. @throws NotFound if it is larger than any that containerd takes */
export async function readManifest(
  ctx: RequestContext,
  content: ContentStore,
  descriptor: Descriptor,
): Promise<Uint8Array> {
  checkDocumentSize(descriptor);
  const { digest } = descriptor;
  // Its descriptor may be wrong about it.
  const { size } = await content.info(ctx, digest);
  checkDocumentSize({ ...descriptor, size });
  return await readContent(ctx, content, digest);
}

export async function hasContent(ctx: RequestContext, content: ContentStore, digest: string): Promise<boolean> {
  try {
    await content.info(ctx, digest);
    return true;
  } catch (error) {
    if (hasCode(error, Code.NotFound)) return false;
    throw error;
  }
}

/** A manifest larger than containerd takes is refused before a byte of it is fetched. */
export function checkDocumentSize(descriptor: Descriptor): void {
  const { mediaType, size, digest } = descriptor;
  if ((isManifestType(mediaType) || isIndexType(mediaType)) && size > maxManifestSize) {
    throw notFound(`rejecting ${size} byte manifest for ${digest}: not found`);
  }
}

/**
 * All bytes of a blob in pieces of a megabyte, the next being read while one is used. With `buffers` (2 or more) so many are used in
 * turn, and a piece is overwritten when the `buffers - 1`th after it is asked for.
 */
export async function* contentBytes(
  ctx: RequestContext,
  content: ContentStore,
  digest: string,
  options: { buffers?: number } = {},
): AsyncGenerator<Uint8Array> {
  await using reader = await content.reader(ctx, digest);
  const most = Math.min(pieceSize, reader.size);
  const buffers = Array.from({ length: options.buffers ?? 0 }, () => Buffer.allocUnsafeSlow(most));
  let turn = 0;
  const read = (at: number): Promise<Uint8Array> | undefined => {
    if (at >= reader.size) return undefined;
    const reading = reader.read(at, Math.min(most, reader.size - at), buffers[turn++ % buffers.length]);
    // What fails ahead is told when it is asked for.
    reading.catch(() => undefined);
    return reading;
  };
  let next = read(0);
  try {
    for (let at = 0; next; ) {
      ctx.signal?.throwIfAborted();
      const chunk = await next;
      at += chunk.length;
      next = chunk.length === 0 ? undefined : read(at);
      if (chunk.length > 0) yield chunk;
    }
  } finally {
    // The reader is closed only when nothing reads.
    await next?.catch(() => undefined);
  }
}

const pieceSize = 1 << 20;

/** The same with two buffers, failing at its end if they are not what the digest says. Local files are hashed off the main thread. */
export async function* verifiedBytes(
  ctx: RequestContext,
  content: ContentStore,
  digest: string,
): AsyncGenerator<Uint8Array> {
  const { algorithm } = parseDigest(digest);
  await using reader = await content.reader(ctx, digest);
  const { path, size } = reader;
  // A worker is slower than a small blob, and does not see one behind a proxy.
  const elsewhere = path !== undefined && size > 256 << 10;
  const hashing = elsewhere
    ? archivePool().run<HashFileResult>(
        'hash-file',
        { source: { kind: 'file', path, length: size }, algorithm } as HashFileParams,
        { signal: ctx.signal },
      )
    : undefined;
  hashing?.catch(() => undefined);
  const hash = elsewhere ? undefined : hashFor(digest);
  for await (const chunk of contentBytes(ctx, content, digest, { buffers: 2 })) {
    hash?.update(chunk);
    yield chunk;
  }
  const actual = hash ? `${algorithm}:${hash.digest('hex')}` : (await hashing)?.digest;
  if (actual !== digest) throw unknown(`unexpected digest ${actual} copied, expected ${digest}`);
}

/** Opens a writer, waiting while somebody else has one on the same ref: another import of the same archive, say. */
export async function waitForWriter(
  ctx: RequestContext,
  content: ContentStore,
  options: WriterOptions,
): Promise<ContentWriter> {
  for (let wait = 16; ; wait = Math.min(wait * 2, 1000)) {
    try {
      return await content.writer(ctx, options);
    } catch (error) {
      if (!hasCode(error, Code.Unavailable)) throw error;
      await sleep(wait, undefined, { ...(ctx.signal && { signal: ctx.signal }) });
    }
  }
}

/** Writes a small document of our own. It being there already is fine. */
export async function writeContent(
  ctx: RequestContext,
  content: ContentStore,
  descriptor: Descriptor,
  bytes: Uint8Array,
  ref: string,
  labels: Record<string, string> = {},
): Promise<void> {
  try {
    const writer = await waitForWriter(ctx, content, { ref, size: descriptor.size, expected: descriptor.digest });
    try {
      if (writer.status().offset > 0) await writer.truncate(0);
      await writer.write(bytes);
      await writer.commit({ size: descriptor.size, expected: descriptor.digest, labels });
    } finally {
      await writer.close();
    }
  } catch (error) {
    if (!hasCode(error, Code.AlreadyExists)) throw error;
  }
}
