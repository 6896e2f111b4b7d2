/** From packed bytes to plain ones: finds out how they are packed and takes the best decompressor there is. */
import { type Compression, detectCompression, MAGIC_LENGTH } from './compression.ts';
import type { Decompressor } from './decompressor.ts';
import { isalAvailable, isalGzip } from './isal-decompressor.ts';
import { zlibGzip, zlibZstd } from './zlib-decompressor.ts';

/** The decompressor for this machine, as the environment allows. */
export function chooseDecompressor(compression: Decompressor['compression'], env = process.env): Decompressor {
  if (compression === 'zstd') return zlibZstd;
  // containerd's variable for the program of the same library.
  return !isTrue(env['CONTAINERD_DISABLE_IGZIP']) && isalAvailable() ? isalGzip : zlibGzip;
}

/** As Go reads a boolean; what is none is false. */
const isTrue = (value: string | undefined) => value !== undefined && /^(1|t|T|true|TRUE|True)$/.test(value);

export interface Unpacked {
  compression: Compression;
  /** A piece may be overwritten when the next is asked for. */
  bytes: AsyncIterable<Buffer>;
}

/**
 * The plain bytes of a source. How it is packed is told by its first bytes, unless it is `known`.
 * @throws CompressionError while the bytes are read
 */
export async function unpack(source: AsyncIterable<Buffer>, known?: Compression): Promise<Unpacked> {
  if (known === 'none') return { compression: known, bytes: source };
  const { head, bytes } = await peek(source);
  const compression = known ?? detectCompression(head);
  if (compression === 'none') return { compression, bytes };
  return { compression, bytes: chooseDecompressor(compression).decompress(bytes) };
}

/** Gives `sink` the plain bytes of `source`, in order; answers what the compression was. */
export async function decompress(
  source: AsyncIterable<Buffer>,
  known: Compression | undefined,
  sink: (chunk: Buffer) => void,
): Promise<Compression> {
  const { compression, bytes } = await unpack(source, known);
  for await (const chunk of bytes) sink(chunk);
  return compression;
}

async function peek(source: AsyncIterable<Buffer>): Promise<{ head: Buffer; bytes: AsyncIterable<Buffer> }> {
  const chunks = source[Symbol.asyncIterator]();
  const first: Buffer[] = [];
  let length = 0;
  while (length < MAGIC_LENGTH) {
    const { value, done } = await chunks.next();
    if (done) break;
    // Copied: a source may use its buffer again.
    first.push(Buffer.from(value));
    length += value.length;
  }
  const bytes = async function* () {
    try {
      yield* first;
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
    } finally {
      await chunks.return?.();
    }
  };
  return { head: Buffer.concat(first), bytes: bytes() };
}
