// Layers as EROFS images, for `images convert --erofs`: made by a worker, or by mkfs.erofs where its options are asked for.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pipeline, Readable } from 'node:stream';
import { createZstdCompress } from 'node:zlib';
import { archivePool, type ErofsLayerResult, pumpToPort } from '@gantry/archive';
import { type LayerContext, type LayerConverter, openWriter } from '@gantry/client';
import { type Descriptor, isNonDistributable, layerTypeAs, MediaType } from '@gantry/oci';
import { makeByMkfs } from './mkfs-erofs.ts';

export interface ErofsSettings {
  /** How the image as a whole is packed. */
  packing: 'raw' | 'zstd';
  /** As `-z` of mkfs.erofs takes them; '' for none. */
  compressors: string;
  /** Further options of mkfs.erofs. */
  mkfsOptions: readonly string[];
}

const uncompressedLabel = 'containerd.io/uncompressed';

/** The same layer always gives the same image. Layers of other kinds, and those that may not be passed on, stay. */
export function erofsLayer(settings: ErofsSettings): LayerConverter {
  const byMkfs = settings.compressors !== '' || settings.mkfsOptions.length > 0;
  return async (layer, context) => {
    if (layerTypeAs(layer.mediaType, 'none') === undefined || isNonDistributable(layer.mediaType)) return undefined;
    const directory = await mkdtemp(path.join(tmpdir(), 'gantry-erofs-'));
    try {
      const file = path.join(directory, 'layer.erofs');
      const uuid = uuidOf(layer.digest);
      const bytes = counted(layer, context);
      const oldDiffId = byMkfs
        ? await makeByMkfs(bytes, { file, uuid, ...settings, signal: context.signal })
        : await makeByWorker(bytes, file, uuid, context.signal);
      const { digest, size, diffId } = await store(file, layer, settings.packing, context);
      const mediaType = settings.packing === 'zstd' ? `${MediaType.ErofsLayer}+zstd` : MediaType.ErofsLayer;
      return { layer: { mediaType, digest, size }, oldDiffId, diffId };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  };
}

async function* counted(layer: Descriptor, { content, signal, onRead }: LayerContext): AsyncGenerator<Uint8Array> {
  let read = 0;
  for await (const piece of content.read(layer.digest, {}, { signal })) {
    read += piece.byteLength;
    onRead(read);
    yield piece;
  }
}

/** @returns the diff id of the layer */
async function makeByWorker(
  bytes: AsyncIterable<Uint8Array>,
  image: string,
  uuid: string,
  signal: AbortSignal,
): Promise<string> {
  const { port1, port2 } = new MessageChannel();
  const source = { kind: 'port' as const, port: port2 };
  const job = archivePool().run<ErofsLayerResult>(
    'erofs-layer',
    { source, image, uuid },
    { transfer: [port2], signal },
  );
  const [made, sent] = await Promise.allSettled([job, pumpToPort(bytes, port1 as never)]);
  // What broke the reading says more than that the worker got no more.
  if (sent.status === 'rejected') throw sent.reason;
  if (made.status === 'rejected') throw made.reason;
  return made.value.diffId;
}

async function store(
  file: string,
  layer: Descriptor,
  packing: ErofsSettings['packing'],
  { content, signal }: LayerContext,
): Promise<{ digest: string; size: number; diffId: string }> {
  const { labels } = await content.info(layer.digest, { signal });
  const hash = createHash('sha256');
  const plain = Readable.from(
    (async function* () {
      for await (const piece of createReadStream(file, { highWaterMark: 1 << 20 })) {
        hash.update(piece as Buffer);
        yield piece as Buffer;
      }
    })(),
    { objectMode: false },
  );
  const packed = packing === 'zstd' ? pipeline(plain, createZstdCompress({ chunkSize: 1 << 20 }), () => {}) : plain;
  const ref = `convert-erofs-${packing}-from-${layer.digest}`;
  const writer = await openWriter(content, ref, {}, { signal });
  try {
    await writer.restart();
    for await (const piece of packed as unknown as Readable) await writer.write(piece as Buffer);
    const diffId = `sha256:${hash.digest('hex')}`;
    const { digest, size } = await writer.commit({ ...labels, [uncompressedLabel]: diffId });
    await content.setLabels(digest, { [uncompressedLabel]: diffId }, { signal });
    return { digest, size, diffId };
  } catch (reason) {
    await writer.close();
    await content.abort(ref).catch(() => undefined);
    throw reason;
  }
}

/** A UUID of version 5 in the name space of URLs, as containerd makes it: the same for the same layer. */
export function uuidOf(digest: string): string {
  const space = Buffer.from('6ba7b8119dad11d180b400c04fd430c8', 'hex');
  const bytes = createHash('sha1').update(space).update(`erofs:blobs/${digest}`).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x50;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
