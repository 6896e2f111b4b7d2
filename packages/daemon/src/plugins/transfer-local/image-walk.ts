import { failedPrecondition, notFound } from '@gantry/api';
import {
  allPlatforms,
  childLabels,
  childrenOf,
  type Descriptor,
  isConfigType,
  isIndexType,
  isManifestType,
  orderedPlatforms,
  type PlatformMatcher,
} from '@gantry/oci';
import type { ContentStore } from '../../core/content/content-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { readManifest } from './content-access.ts';
import type { ImageStoreEndpoint } from './endpoints.ts';

/** Which children of a stored blob a transfer goes on to, by the platforms asked for; and the labels that hold them. */

/** An index within an index within …: real ones nest twice. */
export const maxDepth = 16;

export interface Selection {
  matcher: PlatformMatcher;
  /** Manifests and configurations of other platforms too, but not their layers. */
  allMetadata: boolean;
  /** 0: no limit. */
  manifestLimit: number;
}

export function selectionOf(store: ImageStoreEndpoint): Selection {
  const { platforms, allMetadata, manifestLimit } = store;
  return {
    matcher: platforms.length === 0 ? allPlatforms : orderedPlatforms(...platforms),
    allMetadata,
    manifestLimit,
  };
}

export function checkDepth(depth: number): void {
  if (depth > maxDepth)
    throw failedPrecondition(`image indexes are nested more than ${maxDepth} deep: failed precondition`);
}

/** What has been visited: an index that names the same child many times, level upon level, must not multiply the work. */
export class Visited {
  readonly #seen = new Set<string>();
  readonly #selection: Selection | undefined;

  constructor(selection?: Selection) {
    this.#selection = selection;
  }

  /** Whether this is its first time. A blob counts again as another type, or for a platform that fits. */
  first({ digest, mediaType, platform }: Descriptor): boolean {
    const fits = platform === undefined || this.#selection === undefined || this.#selection.matcher.match(platform);
    const key = `${digest} ${mediaType} ${fits}`;
    return this.#seen.size < this.#seen.add(key).size;
  }
}

/** Reads the children of a stored blob and sets the labels that keep them from collection. */
export async function labelledChildren(
  ctx: RequestContext,
  content: ContentStore,
  descriptor: Descriptor,
): Promise<Descriptor[]> {
  const { mediaType, digest } = descriptor;
  if (!isManifestType(mediaType) && !isIndexType(mediaType)) return [];
  const children = childrenOf(descriptor, await readManifest(ctx, content, descriptor));
  await labelChildren(ctx, content, digest, children);
  return children;
}

/** The labels for the children that a document names; none where it cannot be read, as whoever goes on to them will tell. */
export function childLabelsIn(descriptor: Descriptor, bytes: Uint8Array): Record<string, string> {
  try {
    return childLabels(childrenOf(descriptor, bytes));
  } catch {
    return {};
  }
}

async function labelChildren(
  ctx: RequestContext,
  content: ContentStore,
  digest: string,
  children: readonly Descriptor[],
): Promise<void> {
  const labels = childLabels(children);
  const keys = Object.keys(labels);
  if (keys.length === 0) return;
  const present = (await content.info(ctx, digest)).labels;
  if (keys.every((key) => present[key] === labels[key])) return;
  await content.update(
    ctx,
    { digest, labels },
    keys.map((key) => `labels.${key}`),
  );
}

/** Of a blob's children, those to go on to, best platform first where there is a limit. */
export function selectChildren(
  parent: Descriptor,
  children: readonly Descriptor[],
  { matcher, allMetadata, manifestLimit }: Selection,
): Descriptor[] {
  const fits = ({ platform }: Descriptor): boolean => platform === undefined || matcher.match(platform);
  if (isManifestType(parent.mediaType)) {
    // Of a platform not asked for, only the configuration: what `ctr image ls` shows needs no layers.
    return fits(parent) ? [...children] : children.filter((child) => isConfigType(child.mediaType));
  }
  if (!isIndexType(parent.mediaType)) return [...children];
  let selected = allMetadata ? [...children] : children.filter(fits);
  if (manifestLimit > 0) {
    selected = sortByPlatform(selected, matcher).slice(0, manifestLimit);
    if (selected.length === 0) throw notFound(`could not find manifest for ${parent.digest}: not found`);
  }
  return selected;
}

const labelLimit = 4096;

/**
 * The layers of a manifest with what remote snapshotters want to know of them, as annotations that become labels of their
 * snapshots: the image, its manifest, the layer, and this and the layers above it, as many as a label holds.
 */
export function annotateForSnapshotter(
  layers: readonly Descriptor[],
  image: { name: string; manifest: string },
): Descriptor[] {
  const prefix = 'containerd.io/snapshot/cri.';
  return layers.map((layer, index) => {
    let list = '';
    for (const { digest } of layers.slice(index)) {
      const longer = list === '' ? digest : `${list},${digest}`;
      if (`${prefix}image-layers`.length + longer.length > labelLimit) break;
      list = longer;
    }
    const annotations = {
      ...layer.annotations,
      [`${prefix}image-ref`]: image.name,
      [`${prefix}layer-digest`]: layer.digest,
      [`${prefix}image-layers`]: list,
      [`${prefix}manifest-digest`]: image.manifest,
    };
    return { ...layer, annotations };
  });
}

/** Best first; those without a platform last; otherwise in the order of the index. */
export function sortByPlatform(descriptors: readonly Descriptor[], matcher: PlatformMatcher): Descriptor[] {
  return [...descriptors].sort((a, b) => {
    if (a.platform === undefined || b.platform === undefined) {
      return a.platform === b.platform ? 0 : a.platform === undefined ? 1 : -1;
    }
    return matcher.compare(a.platform, b.platform);
  });
}
