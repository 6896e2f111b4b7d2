import { invalidArgument } from '@gantry/api';

const lengths: Record<string, number> = { sha256: 64, sha384: 96, sha512: 128 };

/** A digest of an algorithm that can be checked. @throws InvalidArgument */
export function validateDigest(digest: string): void {
  const at = digest.indexOf(':');
  const algorithm = digest.slice(0, at);
  const length = at > 0 ? lengths[algorithm] : undefined;
  if (at <= 0) throw invalidArgument(`invalid checksum digest format: "${digest}": invalid argument`);
  if (length === undefined) throw invalidArgument(`unsupported digest algorithm: "${digest}": invalid argument`);
  const hex = digest.slice(at + 1);
  if (hex.length !== length) throw invalidArgument(`invalid checksum digest length: "${digest}": invalid argument`);
  if (!/^[0-9a-f]+$/.test(hex)) throw invalidArgument(`invalid checksum digest format: "${digest}": invalid argument`);
}
