/** Job `erofs-layer`: a layer blob becomes an EROFS image, in one pass. */
import { createHash } from 'node:crypto';
import type { ApplyLayerProgress, ApplyLayerResult } from '../apply-layer.ts';
import { bufferCollector } from '../buffer-garbage.ts';
import { type ByteSource, readSource } from '../byte-source.ts';
import type { JobContext } from '../job.ts';
import { checkLayerSize, type LayerEncoding, plainLayer } from '../plain-layer.ts';
import { TarParser } from '../tar-parser.ts';
import { type ImageFileParams, writeImageFile } from './image-file.ts';
import type { ImageSize, ImageWriter } from './image-writer.ts';
import { LowerLayers } from './lower-layers.ts';
import { MissingBelow, TarToErofs } from './tar-to-erofs.ts';

export interface ErofsLayerParams extends ImageFileParams, LayerEncoding {
  source: ByteSource;
  /** Most uncompressed bytes; more is an error. */
  maxSize?: number;
  /** The archive as it is becomes part of the image, with an index of 512-byte blocks over it; else files get blocks of their own. */
  tarIndex?: boolean;
  /** Fail if the layer cannot be made without seeing those below it. */
  standalone?: boolean;
  /** Directories that the layers below are mounted on, topmost first. */
  lowers?: string[];
}

export interface ErofsLayerResult
  extends Pick<ApplyLayerResult, 'diffId' | 'size' | 'sourceSize' | 'files' | 'warnings'> {
  image: ImageSize;
}

export async function erofsLayer(params: ErofsLayerParams, context: JobContext): Promise<ErofsLayerResult> {
  const lower = params.lowers && new LowerLayers(params.lowers);
  try {
    const blockBits = params.tarIndex ? 9 : 12;
    const { image, result } = await writeImageFile({ ...params, blockBits }, async (writer) => {
      const { reading, maker } = prepare(params, writer, lower);
      const result = await reading(context);
      if (params.standalone && maker.implied.size > 0) {
        throw new MissingBelow(`layer has no entries for ${maker.implied.size} of its directories`);
      }
      return { root: maker.tree.root, result };
    });
    return { ...result, image };
  } finally {
    lower?.close();
  }
}

function prepare(params: ErofsLayerParams, writer: ImageWriter, lower: LowerLayers | undefined) {
  // Where in the image the chunk begins that is being parsed, if the archive is part of it.
  let chunkAt = 0;
  const maker = new TarToErofs(writer, {
    lower,
    ...(params.tarIndex && { positionOf: (offset: number) => chunkAt + offset }),
  });
  const parser = new TarParser(maker);
  const hash = createHash('sha256');
  const passed = bufferCollector();
  let size = 0;
  let sourceSize = 0;
  let reported = 0;
  const reading = async (context: JobContext) => {
    const counted = (async function* () {
      for await (const chunk of readSource(params.source, context)) {
        sourceSize += chunk.length;
        yield chunk;
        const now = Date.now();
        if (now - reported < 100) continue;
        reported = now;
        context.progress({ read: sourceSize, files: maker.files } satisfies ApplyLayerProgress);
      }
    })();
    const { bytes } = await plainLayer(counted, params, context.signal);
    for await (const chunk of bytes) {
      context.signal.throwIfAborted();
      size += chunk.length;
      checkLayerSize(size, params.maxSize);
      hash.update(chunk);
      if (params.tarIndex) {
        chunkAt = writer.position;
        writer.write(chunk);
      }
      parser.write(chunk);
      passed(chunk.length);
    }
    parser.end();
    const { files, warnings } = maker;
    return { diffId: `sha256:${hash.digest('hex')}`, size, sourceSize, files, warnings };
  };
  return { reading, maker };
}
