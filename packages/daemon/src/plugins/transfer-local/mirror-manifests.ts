import { failedPrecondition, notFound } from '@gantry/api';
import {
  anyOfPlatforms,
  type Descriptor,
  descriptorFromJson,
  digestOf,
  encodeJson,
  type Platform,
  parseDigest,
  parseIndex,
  parseJson,
} from '@gantry/oci';
import type { RegistryClient } from '@gantry/registry';
import { checkDocumentSize } from './content-access.ts';

/** Manifests on their way from registry to registry: read whole, and verified before anything of them is believed. */

export async function fetchManifest(
  client: RegistryClient,
  reference: string,
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<Uint8Array> {
  checkDocumentSize(descriptor);
  const { digest, data, size } = descriptor;
  const chunks: Uint8Array[] = [];
  if (data && data.length === size) chunks.push(data);
  else for await (const chunk of client.fetch(reference, descriptor, { signal })) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  const actual = digestOf(bytes, parseDigest(digest).algorithm);
  if (actual !== digest) {
    throw failedPrecondition(`unexpected digest ${actual} of the manifest ${digest}: failed precondition`);
  }
  return bytes;
}

/** Attestations name the image they are for. */
const subjectAnnotation = 'vnd.docker.reference.digest';

/**
 * An index of the images for some platforms, and of what else is about them; all that the original says besides is kept.
 * If they are all of it, it stays what it was. @throws NotFound if there is none
 */
export function narrowIndex(
  descriptor: Descriptor,
  bytes: Uint8Array,
  platforms: readonly Platform[],
): { descriptor: Descriptor; bytes: Uint8Array } {
  const { manifests } = parseIndex(bytes, descriptor.mediaType);
  const { match } = anyOfPlatforms(...platforms);
  const images = new Set(
    manifests.filter(({ platform }) => platform === undefined || match(platform)).map(({ digest }) => digest),
  );
  const kept = (child: Descriptor): boolean =>
    images.has(child.digest) || images.has(child.annotations?.[subjectAnnotation] ?? '');
  if (!manifests.some(kept)) throw notFound('no manifest found for platform: not found');
  if (manifests.every(kept)) return { descriptor, bytes };
  const document = parseJson<{ manifests: unknown[] }>(bytes);
  const narrowed = encodeJson({
    ...document,
    manifests: document.manifests.filter((raw) => kept(descriptorFromJson(raw))),
  });
  const { mediaType } = descriptor;
  return { descriptor: { mediaType, digest: digestOf(narrowed), size: narrowed.length }, bytes: narrowed };
}
