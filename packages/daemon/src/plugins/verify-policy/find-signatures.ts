import { Code, hasCode, unknown } from '@gantry/api';
import { type Descriptor, digestOf, isManifestType, parseDigest, parseManifest, parseReference } from '@gantry/oci';
import type { ImageSource } from '../../core/verification/image-verifier.ts';
import type { Expectation, FoundSignature } from './signature.ts';
import { bundleSignature, bundleType } from './sigstore-bundle.ts';
import { signatureAnnotation, simpleSignature, simpleSigningType } from './simple-signing.ts';

/** More signatures, or larger ones, than this are not looked at: whoever can push decides how many there are. */
const maxManifests = 64;
const maxSignatures = 256;
const maxSize = 1 << 20;

/** Artifacts that cannot be signatures are not even fetched. */
const signatureArtifacts = /^$|^application\/vnd\.(?:dev\.sigstore\.bundle|dev\.cosign|oci\.empty)/;

/**
 * The signatures that a registry has for an image: behind the tag `sha256-<hex>.sig`, and among the manifests that refer to
 * the image. They are fetched one by one, so that whoever has seen enough can stop.
 */
export async function* findSignatures(
  source: ImageSource,
  repository: string,
  image: Descriptor,
  expected: Expectation,
  signal: AbortSignal,
): AsyncGenerator<FoundSignature> {
  let count = 0;
  for await (const { manifest, where } of manifests(source, repository, image, signal)) {
    const { layers } = parseManifest(await read(source, where, manifest, 4 << 20, signal), manifest.mediaType);
    for (const layer of layers) {
      const signature = layer.annotations?.[signatureAnnotation];
      const simple = layer.mediaType === simpleSigningType && signature !== undefined;
      if (!simple && !bundleType.test(layer.mediaType)) continue;
      if (++count > maxSignatures) throw unknown(`more than ${maxSignatures} signatures`);
      const bytes = await read(source, where, layer, maxSize, signal);
      yield simple ? simpleSignature(bytes, signature, where, expected) : bundleSignature(bytes, where, expected);
    }
  }
}

async function* manifests(
  source: ImageSource,
  repository: string,
  image: Descriptor,
  signal: AbortSignal,
): AsyncGenerator<{ manifest: Descriptor; where: string }> {
  const { locator } = parseReference(repository);
  const { algorithm, encoded } = parseDigest(image.digest);
  const tag = `${locator}:${algorithm}-${encoded}.sig`;
  try {
    const { descriptor } = await source.resolve(tag, signal);
    if (isManifestType(descriptor.mediaType)) yield { manifest: descriptor, where: tag };
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
  }
  const referrers = await source.referrers(`${locator}@${image.digest}`, image, { signal });
  const candidates = referrers.filter(
    ({ mediaType, artifactType = '' }) => isManifestType(mediaType) && signatureArtifacts.test(artifactType),
  );
  for (const manifest of candidates.slice(0, maxManifests)) {
    yield { manifest, where: `${locator}@${manifest.digest}` };
  }
}

async function read(
  source: ImageSource,
  reference: string,
  descriptor: Descriptor,
  limit: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const { digest, size } = descriptor;
  if (size > limit) throw unknown(`${reference}: ${digest} has ${size} bytes, too many for a signature`);
  const { algorithm } = parseDigest(digest);
  const chunks: Uint8Array[] = [];
  for await (const chunk of source.fetch(reference, descriptor, { signal })) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  if (digestOf(bytes, algorithm) !== digest) throw unknown(`${reference}: what was sent is not ${digest}`);
  return bytes;
}
