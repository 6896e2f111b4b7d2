import { invalidArgument } from '@gantry/api';

/** Digest algorithms a blob can be named by, and how many hex digits each has (OCI image specification, descriptor). */
const hexLength: Record<string, number> = { sha256: 64, sha384: 96, sha512: 128 };

export const digestAlgorithms = Object.keys(hexLength);

/** Takes `algorithm:hex` apart. @throws InvalidArgument, which also keeps hostile names out of paths. */
export function parseDigest(digest: string): { algorithm: string; hex: string } {
  const colon = digest.indexOf(':');
  if (colon <= 0) throw invalidArgument(`invalid checksum digest format: ${JSON.stringify(digest)}`);
  const algorithm = digest.slice(0, colon);
  const hex = digest.slice(colon + 1);
  const length = hexLength[algorithm];
  if (length === undefined) throw invalidArgument(`unsupported digest algorithm: ${JSON.stringify(digest)}`);
  if (hex.length !== length) throw invalidArgument(`invalid checksum digest length: ${JSON.stringify(digest)}`);
  if (!/^[0-9a-f]+$/.test(hex)) throw invalidArgument(`invalid checksum digest format: ${JSON.stringify(digest)}`);
  return { algorithm, hex };
}
