/** Job `native-layer`: a layer blob that is an EROFS image already, perhaps packed, becomes a file. */
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';

import { type ByteSource, readSource } from '../byte-source.ts';
import type { Compression } from '../compression.ts';
import { decompress } from '../decompress.ts';
import type { JobContext } from '../job.ts';
import { checkLayerSize } from '../plain-layer.ts';
import { MAGIC, SUPERBLOCK_OFFSET } from './erofs-format.ts';

export interface NativeLayerParams {
  source: ByteSource;
  compression: Compression;
  /** Path of the image; it appears when it is whole. */
  image: string;
  sync?: boolean;
  /** Most bytes of the image; more is an error. */
  maxSize?: number;
}

export interface NativeLayerResult {
  /** sha256 of the image, `sha256:hex`. */
  digest: string;
  size: number;
}

export async function nativeLayer(params: NativeLayerParams, context: JobContext): Promise<NativeLayerResult> {
  const temporary = `${params.image}.new`;
  const fd = openSync(temporary, 'w', 0o644);
  try {
    const hash = createHash('sha256');
    const head = Buffer.alloc(SUPERBLOCK_OFFSET + 4);
    let size = 0;
    await decompress(readSource(params.source, context), params.compression, (chunk) => {
      context.signal.throwIfAborted();
      checkLayerSize(size + chunk.length, params.maxSize);
      hash.update(chunk);
      if (size < head.length) chunk.copy(head, size);
      size += chunk.length;
      for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
    });
    if (size < head.length || head.readUInt32LE(SUPERBLOCK_OFFSET) !== MAGIC) {
      throw new Error('layer is not an EROFS image');
    }
    if (params.sync) fsyncSync(fd);
    renameSync(temporary, params.image);
    return { digest: `sha256:${hash.digest('hex')}`, size };
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}
