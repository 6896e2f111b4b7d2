import { digestOf } from '@gantry/oci';
import { isSignedBy, type SigningKey } from './public-key.ts';
import { type Expectation, type FoundSignature, missingAnnotation } from './signature.ts';

/** Signatures in the newer of cosign's formats: a Sigstore bundle around a signed in-toto statement. */

export const bundleType = /^application\/vnd\.dev\.sigstore\.bundle(?:\.v0\.3)?\+json/;

const signPredicate = 'https://sigstore.dev/cosign/sign/v1';
const statementType = 'application/vnd.in-toto+json';

interface Statement {
  _type?: unknown;
  predicateType?: unknown;
  subject?: { digest?: Record<string, unknown>; annotations?: Record<string, unknown> | null }[];
}

type Problem = { problem: string; byKey: boolean } | undefined;

export function bundleSignature(bytes: Uint8Array, where: string, expected: Expectation): FoundSignature {
  return { digest: digestOf(bytes), where, check: (key) => checkBundle(bytes, key, expected) };
}

async function checkBundle(bytes: Uint8Array, { key }: SigningKey, expected: Expectation): Promise<Problem> {
  // Loaded when there is a bundle to read: most daemons never see one.
  const [{ bundleFromJSON }, { dsse }] = await Promise.all([
    load(import('@sigstore/bundle'), 'bundleFromJSON'),
    load(import('@sigstore/core'), 'dsse'),
  ]);
  let bundle: ReturnType<typeof bundleFromJSON>;
  try {
    bundle = bundleFromJSON(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (error) {
    return { problem: `it is no Sigstore bundle: ${(error as Error).message}`, byKey: false };
  }
  if (bundle.content.$case !== 'dsseEnvelope') return { problem: 'it signs a file, not an image', byKey: false };
  if (bundle.verificationMaterial.content.$case !== 'publicKey') {
    return { problem: 'it was made with a certificate, not with a key', byKey: false };
  }
  // The key alone decides: logs and time stamps cannot be asked offline, and are worth nothing without that.
  const { payload, payloadType, signatures } = bundle.content.dsseEnvelope;
  const signed = dsse.preAuthEncoding(payloadType, payload);
  const valid = await Promise.all(signatures.map(({ sig }) => isSignedBy(key, signed, sig)));
  if (!valid.includes(true)) return { problem: 'it is not by this key', byKey: false };
  const problem =
    payloadType === statementType ? whatIsWrong(payload, expected) : `it signs something of type ${payloadType}`;
  return problem === undefined ? undefined : { problem, byKey: true };
}

/** In a bundled program all that a CommonJS module exports is its default. */
async function load<T extends object>(loading: Promise<T>, known: keyof T): Promise<T> {
  const module = await loading;
  return known in module ? module : (module as unknown as { default: T }).default;
}

function whatIsWrong(payload: Uint8Array, { digest, annotations }: Expectation): string | undefined {
  let statement: Statement | null;
  try {
    statement = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload)) as Statement | null;
  } catch {
    return 'what was signed is not JSON';
  }
  if (typeof statement?._type !== 'string' || !statement._type.startsWith('https://in-toto.io/Statement/')) {
    return 'what was signed is no statement';
  }
  // The same key may sign all kinds of statements about an image, also that it is bad.
  if (statement.predicateType !== signPredicate) return `it is a statement of type ${String(statement.predicateType)}`;
  const [algorithm = '', encoded] = digest.split(':');
  const subjects = Array.isArray(statement.subject) ? statement.subject : [];
  const subject = subjects.find((candidate) => candidate?.digest?.[algorithm] === encoded);
  if (!subject) return 'it is for another image';
  return missingAnnotation(annotations, subject.annotations ?? {});
}
