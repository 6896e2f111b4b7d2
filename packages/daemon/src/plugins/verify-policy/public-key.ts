import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { failedPrecondition, StatusError } from '@gantry/api';
import { readTrusted } from '../../core/trust/trusted-file.ts';

/** A key that images may be signed with. */
export interface SigningKey {
  file: string;
  key: KeyObject;
  /** The SHA-256 of the key in its standard encoding, base64: how Sigstore bundles hint at keys. */
  fingerprint: string;
}

/** Reads a PEM file such as `cosign.pub`: ECDSA on a NIST curve, RSA from 2048 bits, or Ed25519. @throws FailedPrecondition */
export function readSigningKey(file: string): SigningKey {
  let pem: string;
  try {
    pem = readTrusted(file).toString('latin1');
  } catch (error) {
    throw StatusError.wrap(error, `key ${file}`);
  }
  let key: KeyObject;
  try {
    // Out of a private key Node would make the public one: that has no business on this machine.
    if (!pem.includes('PUBLIC KEY-----')) throw new Error('it is no PEM file with a PUBLIC KEY');
    key = createPublicKey(pem);
  } catch (error) {
    throw failedPrecondition(`key ${file}: ${(error as Error).message}`, error);
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  const good =
    type === 'ed25519' ||
    (type === 'ec' && ['prime256v1', 'secp384r1', 'secp521r1'].includes(details?.namedCurve ?? '')) ||
    (type === 'rsa' && (details?.modulusLength ?? 0) >= 2048);
  if (!good) throw failedPrecondition(`key ${file}: expected ECDSA on a NIST curve, RSA from 2048 bits, or Ed25519`);
  const encoded = key.export({ type: 'spki', format: 'der' });
  return { file, key, fingerprint: createHash('sha256').update(encoded).digest('base64') };
}

/** As verdicts name a key. */
export function describeKey({ file, fingerprint }: SigningKey): string {
  return `key ${file} (SHA256:${fingerprint})`;
}

/** cosign hashes by the size of the curve; its older versions, and others, always by SHA-256. */
const hashes: Record<string, readonly string[]> = { secp384r1: ['sha384', 'sha256'], secp521r1: ['sha512', 'sha256'] };

/**
 * Whether a signature as cosign makes them is by this key. With Ed25519, cosign signs what was hashed (Ed25519ph) and others
 * sign the text itself.
 */
export async function isSignedBy(key: KeyObject, payload: Uint8Array, signature: Uint8Array): Promise<boolean> {
  try {
    if (key.asymmetricKeyType !== 'ed25519') {
      const candidates = hashes[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? ['sha256'];
      return candidates.some((hash) => verify(hash, payload, key, signature));
    }
    if (verify(null, payload, key, signature)) return true;
    // Node cannot do this one; loaded for those who have such a key.
    const { ed25519ph } = await import('@noble/curves/ed25519.js');
    const point = Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url');
    return ed25519ph.verify(signature, payload, point, { zip215: false });
  } catch {
    // Not even the shape of one.
    return false;
  }
}
