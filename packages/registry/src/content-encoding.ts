import { pipeline, type Readable } from 'node:stream';
import zlib from 'node:zlib';

/**
 * An answer's body as it was before a proxy on the way encoded it, though we asked for none. Only whole answers can be
 * decoded; whoever asks for ranges must look at the header first.
 */
export function decodeBody<T extends Readable>(body: T, encoding: string | string[] | undefined): T | Readable {
  let decoded: T | Readable = body;
  for (const name of encodingsOf(encoding).reverse()) {
    const decoder = decoderOf(name);
    if (!decoder) return decoded.destroy(new Error(`unsupported Content-Encoding algorithm: ${name}`));
    // A failure of either side ends the other, and shows to who reads.
    pipeline(decoded, decoder, () => undefined);
    decoded = decoder;
  }
  return decoded;
}

/** Encodings of an answer in the order they were applied; none for `identity`. */
export function encodingsOf(value: string | string[] | undefined): string[] {
  return [value ?? []]
    .flat()
    .flatMap((text) => text.split(','))
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '' && name !== 'identity');
}

function decoderOf(name: string): zlib.Gunzip | zlib.InflateRaw | zlib.ZstdDecompress | undefined {
  if (name === 'gzip' || name === 'x-gzip') return zlib.createGunzip();
  if (name === 'deflate') return zlib.createInflate();
  if (name === 'zstd') return zlib.createZstdDecompress();
  return undefined;
}
