/** Job `hash-file`: the digest of a file's bytes. */
import { createHash } from 'node:crypto';
import { type ByteSource, readSource } from './byte-source.ts';
import { type Compression, detectCompression } from './compression.ts';
import { decompress } from './decompress.ts';
import type { JobContext } from './job.ts';

export interface HashFileParams {
  source: ByteSource;
  algorithm?: 'sha256' | 'sha384' | 'sha512';
  /** Hash what is inside the compression (told by the first bytes) instead: a layer's diff id. */
  uncompressed?: boolean;
}

export interface HashFileResult {
  /** `algorithm:hex` */
  digest: string;
  /** Bytes hashed. */
  size: number;
  compression: Compression;
}

export async function hashFile(params: HashFileParams, context: JobContext): Promise<HashFileResult> {
  const algorithm = params.algorithm ?? 'sha256';
  const hash = createHash(algorithm);
  let size = 0;
  let compression: Compression = 'none';
  const take = (chunk: Buffer) => {
    context.signal.throwIfAborted();
    if (size === 0 && !params.uncompressed) compression = detectCompression(chunk);
    size += chunk.length;
    hash.update(chunk);
  };
  const source = readSource(params.source, context);
  if (params.uncompressed) compression = await decompress(source, undefined, take);
  else for await (const chunk of source) take(chunk);
  return { digest: `${algorithm}:${hash.digest('hex')}`, size, compression };
}
