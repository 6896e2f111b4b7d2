import { createHash, type Hash } from 'node:crypto';
import { invalidArgument } from '@gantry/api';

/** Content digests as the OCI image specification writes them: `algorithm:hex`, of the algorithms it registers. */
const hexLengths = new Map([
  ['sha256', 64],
  ['sha384', 96],
  ['sha512', 128],
]);

export interface ParsedDigest {
  algorithm: string;
  /** The hash in lower-case hex. */
  encoded: string;
}

const digestPattern = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;

/** Takes a digest apart. @throws InvalidArgument, worded as Go's digest library words it. */
export function parseDigest(digest: string): ParsedDigest {
  if (!digestPattern.test(digest)) throw invalidArgument(`invalid checksum digest format: "${digest}"`);
  const colon = digest.indexOf(':');
  const algorithm = digest.slice(0, colon);
  const encoded = digest.slice(colon + 1);
  const length = hexLengths.get(algorithm);
  if (length === undefined) throw invalidArgument(`unsupported digest algorithm: "${digest}"`);
  if (encoded.length !== length) throw invalidArgument(`invalid checksum digest length: "${digest}"`);
  if (!/^[a-f0-9]+$/.test(encoded)) throw invalidArgument(`invalid checksum digest format: "${digest}"`);
  return { algorithm, encoded };
}

export function isDigest(text: string): boolean {
  try {
    parseDigest(text);
    return true;
  } catch {
    return false;
  }
}

/** The digest of bytes. */
export function digestOf(bytes: Uint8Array | string, algorithm = 'sha256'): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}

/** A running hash of the digest's algorithm. @throws InvalidArgument for a bad digest. */
export function hashFor(digest: string): Hash {
  return createHash(parseDigest(digest).algorithm);
}

/** The chain ids of layers from their diff ids, bottom first (OCI image specification, layer chain id). */
export function chainIds(diffIds: readonly string[]): string[] {
  const ids: string[] = [];
  for (const diffId of diffIds) {
    const below = ids.at(-1);
    ids.push(below === undefined ? diffId : digestOf(`${below} ${diffId}`));
  }
  return ids;
}
