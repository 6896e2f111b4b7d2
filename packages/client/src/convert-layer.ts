import { createHash } from 'node:crypto';
import { pipeline, Readable } from 'node:stream';
import { constants, createZstdCompress } from 'node:zlib';
import { Code, failedPrecondition, hasCode, invalidArgument, StatusError } from '@gantry/api';
import { type Descriptor, layerTypeAs } from '@gantry/oci';
import type { Content, ContentInfo } from './content.ts';
import type { ContentWriter } from './content-writer.ts';
import { decompressed, pieceSize } from './decompress.ts';
import { openWriter } from './open-writer.ts';

/** A layer in its new form. */
export interface ConvertedLayer {
  readonly layer: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  /** What the bytes of the old layer are without compression. */
  readonly oldDiffId: string;
  /** The same of the new layer; another one if the new layer is not the same tar archive. */
  readonly diffId: string;
}

/** Where a layer converter works. What it makes is kept by the conversion's lease. */
export interface LayerContext {
  readonly content: Content;
  readonly signal: AbortSignal;
  /** Told how many bytes of the old layer have been read. */
  onRead(bytes: number): void;
}

/** Makes the new form of one layer; undefined if it has that form already, or is nothing that can have it. */
export type LayerConverter = (layer: Descriptor, context: LayerContext) => Promise<ConvertedLayer | undefined>;

const uncompressedLabel = 'containerd.io/uncompressed';
/** On a layer that was made from another one: its digest, and what was done. The next conversion takes it as it is. */
const fromLabel = 'gantry.converted-from';
const asLabel = 'gantry.converted-as';

/** Layers without compression, as `ctr images convert --uncompress` makes them. */
export function uncompressLayer(): LayerConverter {
  return async (layer, context) => {
    const mediaType = layerTypeAs(layer.mediaType, 'none');
    if (mediaType === undefined || mediaType === layer.mediaType) return undefined;
    const { content, signal } = context;
    const { labels } = await content.info(layer.digest, { signal });
    const known = labels[uncompressedLabel];
    const there = known === undefined ? undefined : await find(content, known, signal);
    if (there) return { layer: { mediaType, digest: there.digest, size: there.size }, ...same(there.digest) };
    const { [uncompressedLabel]: _, ...kept } = labels;
    const written = await writeLayer(
      `convert-uncompress-from-${layer.digest}`,
      layer,
      context,
      async (writer, bytes) => {
        for await (const piece of bytes) await writer.write(piece);
        return kept;
      },
    );
    return { layer: { mediaType, ...written }, ...same(written.digest) };
  };
}

/** Layers compressed with zstd. @throws InvalidArgument for a level that is not between 1 and 22 */
export function zstdLayer(level = 3): LayerConverter {
  if (!Number.isInteger(level) || level < 1 || level > 22)
    throw invalidArgument(`zstd has compression levels from 1 to 22, not ${level}`);
  return async (layer, context) => {
    const mediaType = layerTypeAs(layer.mediaType, 'zstd');
    if (mediaType === undefined || mediaType === layer.mediaType) return undefined;
    const { content, signal } = context;
    const { labels } = await content.info(layer.digest, { signal });
    const form = `zstd-${level}`;
    for await (const made of content.list([`labels."${fromLabel}"=="${layer.digest}",labels."${asLabel}"=="${form}"`], {
      signal,
    })) {
      const diffId = made.labels[uncompressedLabel];
      if (diffId) return { layer: { mediaType, digest: made.digest, size: made.size }, ...same(diffId) };
    }
    const hash = createHash('sha256');
    let diffId = '';
    const ref = `convert-${form}-from-${layer.digest}`;
    const written = await writeLayer(ref, layer, context, async (writer, bytes) => {
      const hashed = Readable.from(
        (async function* () {
          for await (const piece of bytes) {
            hash.update(piece);
            yield piece;
          }
        })(),
        { objectMode: false },
      );
      const zstd = createZstdCompress({
        chunkSize: pieceSize,
        params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1 },
      });
      for await (const piece of pipeline(hashed, zstd, () => {}) as unknown as Readable) await writer.write(piece);
      diffId = `sha256:${hash.digest('hex')}`;
      return { ...labels, [uncompressedLabel]: diffId, [fromLabel]: layer.digest, [asLabel]: form };
    });
    return { layer: { mediaType, ...written }, ...same(diffId) };
  };
}

function same(diffId: string): Pick<ConvertedLayer, 'oldDiffId' | 'diffId'> {
  return { oldDiffId: diffId, diffId };
}

/**
 * Writes a blob made from a layer's bytes without their compression. `make` writes and answers the labels of the new blob.
 * What a broken attempt left is dropped first, and what this one leaves when it breaks.
 */
export async function writeLayer(
  ref: string,
  layer: Descriptor,
  context: LayerContext,
  make: (writer: ContentWriter, bytes: AsyncIterable<Uint8Array>) => Promise<Record<string, string>>,
): Promise<{ digest: string; size: number }> {
  const { content, signal, onRead } = context;
  const counted = (async function* () {
    let read = 0;
    for await (const piece of content.read(layer.digest, {}, { signal })) {
      read += piece.byteLength;
      onRead(read);
      yield piece;
    }
  })();
  const writer = await openWriter(content, ref, {}, { signal });
  try {
    await writer.restart();
    const labels = await make(writer, await decompressed(counted));
    const written = await writer.commit(labels);
    await addLabels(content, written.digest, labels, signal);
    return written;
  } catch (reason) {
    await writer.close();
    await content.abort(ref).catch(() => {});
    if (reason instanceof StatusError || signal.aborted) throw reason;
    throw failedPrecondition(`layer ${layer.digest} cannot be converted: ${(reason as Error).message}`, reason);
  }
}

/** Labels for a blob that may have been there before: what it has stays. */
async function addLabels(
  content: Content,
  digest: string,
  labels: Record<string, string>,
  signal: AbortSignal,
): Promise<void> {
  const present = (await content.info(digest, { signal })).labels;
  const missing = Object.fromEntries(Object.entries(labels).filter(([key]) => present[key] === undefined));
  if (Object.keys(missing).length > 0) await content.setLabels(digest, missing, { signal });
}

async function find(content: Content, digest: string, signal: AbortSignal): Promise<ContentInfo | undefined> {
  try {
    return await content.info(digest, { signal });
  } catch (reason) {
    if (hasCode(reason, Code.NotFound)) return undefined;
    throw reason;
  }
}
