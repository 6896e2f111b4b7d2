/**
 * Job `apply-layer`: a layer blob becomes files, in one pass: bytes are hashed as they come, inflated in the thread pool, hashed
 * again, parsed and written.
 */
import { createHash } from 'node:crypto';
import { bufferCollector } from './buffer-garbage.ts';
import { type ByteSource, readSource } from './byte-source.ts';
import type { Compression } from './compression.ts';
import type { JobContext } from './job.ts';
import { type ApplyTarget, LayerApplier } from './layer-applier.ts';
import { checkLayerSize, type LayerEncoding, plainLayer } from './plain-layer.ts';
import { TarParser } from './tar-parser.ts';

export interface ApplyLayerParams extends LayerEncoding {
  source: ByteSource;
  target: ApplyTarget;
  /** Also hash the bytes as they are stored. */
  hashSource?: boolean;
  /** Most uncompressed bytes; more is an error. */
  maxSize?: number;
  /** Wait until the file system is on disk. */
  sync?: boolean;
  /** Fail if directories are left out that layers below may have: they would have to look like those. */
  standalone?: boolean;
}

export interface ApplyLayerResult {
  /** sha256 of the uncompressed archive, `sha256:hex`. */
  diffId: string;
  /** Uncompressed bytes. */
  size: number;
  /** Bytes read. */
  sourceSize: number;
  /** sha256 of the bytes read, if asked for. */
  sourceDigest?: string;
  compression: Compression;
  /** Entries made. */
  files: number;
  warnings: string[];
}

/** `progress` reports `{read, files}`, about ten times a second at most. */
export interface ApplyLayerProgress {
  read: number;
  files: number;
}

export async function applyLayer(params: ApplyLayerParams, context: JobContext): Promise<ApplyLayerResult> {
  const sourceHash = params.hashSource ? createHash('sha256') : undefined;
  let read = 0;
  let reported = 0;
  const applier = new LayerApplier(params.target);
  try {
    const counted = (async function* () {
      for await (const chunk of readSource(params.source, context)) {
        read += chunk.length;
        sourceHash?.update(chunk);
        yield chunk;
        const now = Date.now();
        if (now - reported < 100) continue;
        reported = now;
        context.progress({ read, files: applier.files } satisfies ApplyLayerProgress);
      }
    })();
    const parser = new TarParser(applier);
    const hash = createHash('sha256');
    const passed = bufferCollector();
    let size = 0;
    const { compression, bytes } = await plainLayer(counted, params, context.signal);
    for await (const chunk of bytes) {
      size += chunk.length;
      checkLayerSize(size, params.maxSize);
      context.signal.throwIfAborted();
      hash.update(chunk);
      parser.write(chunk);
      passed(chunk.length);
    }
    parser.end();
    if (params.standalone && applier.implied.size > 0) {
      throw new Error(`layer has no entries for ${applier.implied.size} of its directories`);
    }
    applier.finish(params.sync);
    return {
      diffId: `sha256:${hash.digest('hex')}`,
      size,
      sourceSize: read,
      ...(sourceHash && { sourceDigest: `sha256:${sourceHash.digest('hex')}` }),
      compression,
      files: applier.files,
      warnings: applier.warnings,
    };
  } finally {
    applier.close();
  }
}
