// Imports an archive by this program itself: blobs, the labels that hold them, and image records under the names that fit.
import { type Client, Code, type Descriptor, hasCode, type Image, StatusError } from '@gantry/client';
import {
  Annotation,
  childLabels,
  childrenOf,
  isIndexType,
  isLayerType,
  isManifestType,
  type PlatformMatcher,
} from '@gantry/oci';
import { maxDepth, wantedChildren } from './image-tree.ts';
import { readArchive } from './read-archive.ts';

export interface ImportSettings {
  platforms: PlatformMatcher;
  /** Base name of images that have a tag only; with `filter`, all other names must begin so. */
  base: string;
  filter: boolean;
  digests: boolean;
  skipDigestForNamed: boolean;
  /** Name of the index of all that came; '' for none. */
  indexName: string;
  labels: Record<string, string>;
  compress: boolean;
  onBlob?: (name: string, size: number) => void;
}

/** @returns the images that were recorded. @throws StatusError for what is no archive of images */
export async function importArchive(
  client: Client,
  archive: AsyncIterable<Uint8Array>,
  settings: ImportSettings,
): Promise<Image[]> {
  const index = await readArchive(client, archive, settings);
  const manifests = childrenOf(index, await client.content.readAll(index.digest));
  await label(client, index, settings.platforms, 0);
  const records: { name: string; target: Descriptor }[] = [];
  if (settings.indexName) records.push({ name: settings.indexName, target: index });
  for (const { platform: _, ...target } of manifests) {
    const name = imageName(target, settings);
    if (name) records.push({ name, target });
    if (settings.digests && !(settings.skipDigestForNamed && name))
      records.push({ name: `${settings.base}@${target.digest}`, target });
  }
  const images: Image[] = [];
  for (const record of records) {
    const image = { ...record, labels: settings.labels };
    try {
      images.push(await client.images.create(image));
    } catch (reason) {
      if (!hasCode(reason, Code.AlreadyExists)) throw reason;
      images.push(await client.images.update(image));
    }
  }
  return images;
}

/** A whole name as it is, a tag behind the base; '' for one that is not wanted. */
export function imageName(
  { annotations = {} }: Pick<Descriptor, 'annotations'>,
  { base, filter }: Pick<ImportSettings, 'base' | 'filter'>,
): string {
  const whole = annotations[Annotation.ImageName];
  if (whole) return whole;
  const name = annotations[Annotation.RefName] ?? '';
  if (name === '') return '';
  if (!/[/:@]/.test(name)) return `${base}:${name}`;
  const begins = name === base || (name.startsWith(base) && /^[/:@]/.test(name.slice(base.length)));
  return filter && !begins ? '' : name;
}

/** Sets the labels by which each document holds what it refers to. What an archive leaves out is passed over. */
async function label(client: Client, parent: Descriptor, platforms: PlatformMatcher, depth: number): Promise<void> {
  const { mediaType, digest } = parent;
  if (depth > maxDepth) throw new StatusError(Code.FailedPrecondition, `indexes are nested more than ${maxDepth} deep`);
  if (!isIndexType(mediaType) && !isManifestType(mediaType)) return;
  let bytes: Uint8Array;
  try {
    bytes = await client.content.readAll(digest);
  } catch (reason) {
    // An archive of one platform keeps the index of all.
    if (depth < 2 || !hasCode(reason, Code.NotFound)) throw reason;
    return;
  }
  const children = wantedChildren(parent, childrenOf(parent, bytes), { platforms, allMetadata: false });
  if (children.length > 0) await client.content.setLabels(digest, childLabels(children));
  for (const child of children) await label(client, child, platforms, depth + 1);
}

/** Lets the collector take the layers of a manifest, once they are unpacked. */
export async function discardLayers(client: Client, manifest: Descriptor): Promise<void> {
  const { labels } = await client.content.info(manifest.digest);
  const layers = childrenOf(manifest, await client.content.readAll(manifest.digest)).filter(({ mediaType }) =>
    isLayerType(mediaType),
  );
  const digests = new Set(layers.map(({ digest }) => digest));
  const held = Object.entries(labels).filter(
    ([key, value]) => key.startsWith('containerd.io/gc.ref.content.') && digests.has(value),
  );
  if (held.length > 0)
    await client.content.setLabels(manifest.digest, Object.fromEntries(held.map(([key]) => [key, ''])));
}
