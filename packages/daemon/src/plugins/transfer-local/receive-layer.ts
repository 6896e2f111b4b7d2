import { Code, failedPrecondition, hasCode, StatusError } from '@gantry/api';
import { detectCompression, LayerMediaType } from '@gantry/archive';
import { type Descriptor, parseDigest } from '@gantry/oci';
import type { ContentStore, ContentWriter } from '../../core/content/content-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { hasContent } from './content-access.ts';
import { randomPart } from './environment.ts';
import type { LayerStreamEndpoint } from './layer-endpoints.ts';

/** Bytes gathered before a write: a message of a stream has 32 KiB at most. */
const batchSize = 1 << 20;

/** Brings the layer that a client sends into the content store. If it is there, the stream is ended unread. */
export async function receiveLayer(
  ctx: RequestContext,
  content: ContentStore,
  source: LayerStreamEndpoint,
  onProgress: (received: number) => void,
): Promise<Descriptor> {
  const { digest, labels } = source;
  if (digest !== '') parseDigest(digest);
  if (digest !== '' && (await hasContent(ctx, content, digest))) {
    source.close();
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    const { size } =
      paths.length > 0 ? await content.update(ctx, { digest, labels }, paths) : await content.info(ctx, digest);
    return await typed(ctx, content, { mediaType: source.mediaType, digest, size });
  }
  const ref = `layer-stream-${process.hrtime.bigint() % 1_000_000_000n}-${randomPart()}`;
  const writer = await content.writer(ctx, { ref, size: source.size });
  let written: { digest: string; size: number };
  try {
    await write(source, writer, onProgress);
    written = await commit(source, writer);
  } catch (error) {
    await writer.close();
    // The next attempt sends it from the start.
    await content.abort({ ...ctx, signal: undefined }, ref).catch((reason: unknown) => {
      if (!hasCode(reason, Code.NotFound)) throw reason;
    });
    throw error;
  }
  await writer.close();
  return await typed(ctx, content, { mediaType: source.mediaType, ...written });
}

async function write(
  source: LayerStreamEndpoint,
  writer: ContentWriter,
  onProgress: (received: number) => void,
): Promise<void> {
  let batch: Uint8Array[] = [];
  let gathered = 0;
  let received = 0;
  const flush = async (): Promise<void> => {
    if (gathered > 0) await writer.write(Buffer.concat(batch));
    batch = [];
    gathered = 0;
    onProgress(received);
  };
  for await (const chunk of source.receive()) {
    received += chunk.length;
    if (source.size > 0 && received > source.size) {
      throw failedPrecondition(`the layer is longer than the ${source.size} bytes it should have: failed precondition`);
    }
    batch.push(chunk);
    gathered += chunk.length;
    if (gathered >= batchSize) await flush();
  }
  await flush();
}

async function commit(
  { size, digest, labels }: LayerStreamEndpoint,
  writer: ContentWriter,
): Promise<{ digest: string; size: number }> {
  const actual = { digest: await writer.digest(), size: writer.status().offset };
  try {
    await writer.commit({ size, ...(digest !== '' && { expected: digest }), labels });
  } catch (error) {
    if (!hasCode(error, Code.AlreadyExists)) throw StatusError.wrap(error, 'failed to store the layer');
  }
  return actual;
}

/** With the media type that its first bytes tell, if nobody else did. */
async function typed(ctx: RequestContext, content: ContentStore, layer: Descriptor): Promise<Descriptor> {
  if (layer.mediaType !== '') return layer;
  await using reader = await content.reader(ctx, layer.digest);
  const types = { gzip: LayerMediaType.tarGzip, zstd: LayerMediaType.tarZstd, none: LayerMediaType.tar };
  return { ...layer, mediaType: types[detectCompression(Buffer.from(await reader.read(0, 32)))] };
}
