/** gzip and zstd by the libraries that Node carries. While a piece is used, the thread pool inflates the next. */
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import { CompressionError, type CompressionFault, type Decompressor, PIECE } from './decompressor.ts';

// The readable side holds a few pieces, so that the thread pool has room to work ahead.
const buffers = { chunkSize: PIECE, readableHighWaterMark: 4 * PIECE, writableHighWaterMark: 4 * PIECE };

/** The largest window that containerd's reader takes (512 MiB); memory is used only as far as a stream fills it. */
const WINDOW_LOG = 29;

export const zlibGzip: Decompressor = {
  name: 'zlib',
  compression: 'gzip',
  decompress: (source) => run('gzip', zlib.createGunzip(buffers), source),
};

export const zlibZstd: Decompressor = {
  name: 'zstd',
  compression: 'zstd',
  decompress: (source) => {
    const params = { [zlib.constants.ZSTD_d_windowLogMax]: WINDOW_LOG };
    return run('zstd', zlib.createZstdDecompress({ ...buffers, params }), source);
  },
};

type Engine = Transform & { readonly bytesWritten: number };

async function* run(
  compression: Decompressor['compression'],
  stream: Transform,
  source: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const engine = stream as Engine;
  let fed = 0;
  let broken: unknown;
  const closed = Promise.withResolvers<void>();
  engine.once('close', closed.resolve);
  const feed = async () => {
    for await (const chunk of source) {
      if (engine.destroyed) return;
      fed += chunk.length;
      const taken = Promise.withResolvers<void>();
      engine.write(chunk, (error) => (error ? taken.reject(error) : taken.resolve()));
      // A stream that fails forgets the write under way.
      await Promise.race([taken.promise, closed.promise]);
    }
    engine.end();
  };
  const feeding = feed().catch((error: unknown) => {
    if (engine.destroyed) return;
    broken = error;
    engine.destroy(error instanceof Error ? error : new Error(String(error)));
  });
  try {
    // After a failure nobody waits for the source: it may be a download that stands still. The end of the job ends it.
    for await (const piece of engine) yield piece as Buffer;
  } catch (error) {
    if (error === broken || broken !== undefined) throw error;
    throw new CompressionError(compression, faultOf(error), error);
  }
  // The engine stops by itself before what is neither a member nor a frame, and is silent about it.
  if (engine.bytesWritten < fed) throw new CompressionError(compression, 'trailing');
  await feeding;
}

const faults: Record<string, CompressionFault> = {
  Z_BUF_ERROR: 'truncated',
  'incorrect header check': 'header',
  'unknown compression method': 'header',
  'unknown header flags set': 'header',
  'header crc mismatch': 'header',
  'incorrect data check': 'checksum',
  'incorrect length check': 'checksum',
  ZSTD_error_prefix_unknown: 'header',
  ZSTD_error_checksum_wrong: 'checksum',
  ZSTD_error_frameParameter_windowTooLarge: 'window',
};

function faultOf(error: unknown): CompressionFault {
  const { code, message } = error as NodeJS.ErrnoException;
  return faults[code ?? ''] ?? faults[message] ?? 'corrupt';
}
