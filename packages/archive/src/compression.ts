/** How a layer's bytes are packed: told by the first bytes, never by a name; and streams to pack them. */
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';

export type Compression = 'none' | 'gzip' | 'zstd';

/** Bytes that `detectCompression` wants to see, if there are as many. */
export const MAGIC_LENGTH = 10;

/** Tells gzip (RFC 1952) and zstd (RFC 8878, also a skippable frame) from everything else. */
export function detectCompression(head: Uint8Array): Compression {
  if (head.length >= 3 && head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08) return 'gzip';
  if (head.length < 4) return 'none';
  const magic = (head[0]! | (head[1]! << 8) | (head[2]! << 16) | (head[3]! << 24)) >>> 0;
  if (magic === 0xfd2fb528) return 'zstd';
  if (head.length >= 8 && (magic & 0xfffffff0) >>> 0 === 0x184d2a50) return 'zstd';
  return 'none';
}

/** Packed bytes come in pieces of this size. */
const PIECE = 512 << 10;

/** A compressor; `none` has none. Output depends only on the input and the zlib that Node carries. */
export function createCompressor(compression: Compression): Transform | undefined {
  const options = { chunkSize: PIECE, readableHighWaterMark: 4 * PIECE, writableHighWaterMark: 4 * PIECE };
  if (compression === 'gzip') return zlib.createGzip(options);
  if (compression === 'zstd') {
    return zlib.createZstdCompress({
      ...options,
      params: { [zlib.constants.ZSTD_c_compressionLevel]: 3, [zlib.constants.ZSTD_c_checksumFlag]: 1 },
    });
  }
  return undefined;
}
