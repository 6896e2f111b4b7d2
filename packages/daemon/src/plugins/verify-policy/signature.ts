import type { SigningKey } from './public-key.ts';

/** A signature that was found with an image, of either format. */
export interface FoundSignature {
  /** The digest of what was signed, or of the bundle that carries it. */
  digest: string;
  /** Where it was found: a reference. */
  where: string;
  /**
   * Judges it by one key. Answers undefined if it is a good signature of the image, else what is wrong; `byKey` tells that the
   * signature does verify with it.
   */
  check(key: SigningKey): Promise<{ problem: string; byKey: boolean } | undefined>;
}

/** What a signature must say. */
export interface Expectation {
  /** The digest of the image. */
  digest: string;
  annotations: Readonly<Record<string, string>>;
}

/** The first annotation that is wanted and not there. */
export function missingAnnotation(
  wanted: Readonly<Record<string, string>>,
  found: Readonly<Record<string, unknown>>,
): string | undefined {
  for (const [name, value] of Object.entries(wanted)) {
    if (!Object.hasOwn(found, name) || found[name] !== value) return `it has no annotation ${name}=${value}`;
  }
  return undefined;
}
