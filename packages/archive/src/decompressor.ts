/**
 * Unpacking a compressed stream: one interface, several ways to do it. All of them read alike what Go's readers read, which containerd
 * uses: gzip members and zstd frames in a row are one stream; whatever follows the last one is an error, and so is a stream cut short.
 */
import type { Compression } from './compression.ts';

export interface Decompressor {
  /** `isal`, `zlib`, `zstd`: for logs and tests. */
  readonly name: string;
  readonly compression: Exclude<Compression, 'none'>;
  /**
   * The unpacked bytes of `source`, in order. A piece may be overwritten when the next is asked for, and so may the source's. A reader
   * that stops early lets go of everything at once, without waiting for the source.
   * @throws CompressionError if the stream is not what it should be
   */
  decompress(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer>;
}

/** Unpacked bytes come in pieces of at most this size. */
export const PIECE = 512 << 10;

/** Why a stream could not be unpacked. Messages begin as those of containerd do. */
export type CompressionFault = 'header' | 'checksum' | 'corrupt' | 'truncated' | 'trailing' | 'window';

const messages: Record<CompressionFault, Record<Decompressor['compression'], string>> = {
  header: { gzip: 'gzip: invalid header', zstd: 'invalid input: magic number mismatch' },
  checksum: { gzip: 'gzip: invalid checksum', zstd: 'zstd: CRC check failed' },
  corrupt: { gzip: 'flate: corrupt input', zstd: 'zstd: corrupt input' },
  truncated: { gzip: 'unexpected EOF', zstd: 'unexpected EOF' },
  trailing: {
    gzip: 'gzip: invalid header: the stream is followed by something else',
    zstd: 'invalid input: magic number mismatch: the stream is followed by something else',
  },
  window: {
    gzip: 'gzip: window too large',
    zstd: 'window size exceeded: the stream needs more than 512 MiB to be unpacked',
  },
};

export class CompressionError extends Error {
  readonly code = 'ECOMPRESSION';
  readonly fault: CompressionFault;

  constructor(compression: Decompressor['compression'], fault: CompressionFault, cause?: unknown) {
    const detail = fault === 'corrupt' && cause instanceof Error ? ` (${cause.message})` : '';
    super(messages[fault][compression] + detail, { cause });
    this.name = 'CompressionError';
    this.fault = fault;
  }
}
