import { digestOf } from '@gantry/oci';
import { isSignedBy } from './public-key.ts';
import { type Expectation, type FoundSignature, missingAnnotation } from './signature.ts';

/** Signatures in the older of cosign's formats: a layer with the signed text, the signature itself in an annotation of it. */

export const simpleSigningType = 'application/vnd.dev.cosign.simplesigning.v1+json';
export const signatureAnnotation = 'dev.cosignproject.cosign/signature';

interface Payload {
  critical?: { type?: unknown; image?: { 'docker-manifest-digest'?: unknown } };
  optional?: Record<string, unknown> | null;
}

export function simpleSignature(
  payload: Uint8Array,
  signature: string,
  where: string,
  expected: Expectation,
): FoundSignature {
  return {
    digest: digestOf(payload),
    where,
    async check({ key }) {
      if (!(await isSignedBy(key, payload, Buffer.from(signature, 'base64')))) {
        return { problem: 'it is not by this key', byKey: false };
      }
      const problem = whatIsWrong(payload, expected);
      return problem === undefined ? undefined : { problem, byKey: true };
    },
  };
}

function whatIsWrong(bytes: Uint8Array, { digest, annotations }: Expectation): string | undefined {
  let payload: Payload | null;
  try {
    payload = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as Payload | null;
  } catch {
    return 'what was signed is not JSON';
  }
  const { type, image } = payload?.critical ?? {};
  if (type !== 'cosign container image signature') return 'what was signed is not about an image';
  const signed = image?.['docker-manifest-digest'];
  if (signed !== digest) return `it is for another image: ${String(signed)}`;
  return missingAnnotation(annotations, payload?.optional ?? {});
}
