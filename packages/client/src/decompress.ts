import { pipeline, Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';

/** Bytes in a piece of output: few messages for a large layer. */
export const pieceSize = 1 << 20;

const magics = [
  { magic: Buffer.from([0x1f, 0x8b, 0x08]), open: () => createGunzip({ chunkSize: pieceSize }) },
  { magic: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), open: () => createZstdDecompress({ chunkSize: pieceSize }) },
];

/**
 * Takes gzip or zstd compression off, going by the first bytes; anything else passes as it is. The work is done by
 * libuv's threads. What the source throws, the result throws.
 */
export async function decompressed(source: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const pieces = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (head.length < 4) {
    const { done, value } = await pieces.next();
    if (done) break;
    head =
      head.length === 0 ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : Buffer.concat([head, value]);
  }
  const whole = (async function* () {
    try {
      if (head.length > 0) yield head;
      for (let next = await pieces.next(); !next.done; next = await pieces.next()) yield next.value;
    } finally {
      await pieces.return?.();
    }
  })();
  const found = magics.find(({ magic }) => head.subarray(0, magic.length).equals(magic));
  if (!found) return whole;
  let given = 0;
  const counted = (async function* () {
    for await (const piece of whole) {
      given += piece.byteLength;
      yield piece;
    }
  })();
  const stream = found.open();
  // The reader of the last stream sees every error.
  pipeline(Readable.from(counted, { objectMode: false }), stream, () => {});
  return (async function* () {
    for await (const piece of stream) yield piece as Buffer;
    // zlib leaves it at that; for containerd, too, such a layer is broken.
    if (stream.bytesWritten < given) throw new Error(`${given - stream.bytesWritten} bytes follow the compressed ones`);
  })();
}
