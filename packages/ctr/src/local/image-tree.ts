// Which parts of an image a command goes on to, by the platforms asked for.
import { type Descriptor, isConfigType, isIndexType, isManifestType, type PlatformMatcher } from '@gantry/oci';

/** Indexes within indexes deeper than this are no images. */
export const maxDepth = 16;

export interface PartsWanted {
  /** Platforms whose layers are wanted. */
  platforms: PlatformMatcher;
  /** Manifests and configs of all other platforms, too. */
  allMetadata: boolean;
  /** No layers at all. */
  metadataOnly?: boolean;
}

/** Of what a document refers to, what is wanted. */
export function wantedChildren(parent: Descriptor, children: readonly Descriptor[], wanted: PartsWanted): Descriptor[] {
  const fits = ({ platform }: Descriptor): boolean => platform === undefined || wanted.platforms.match(platform);
  if (isIndexType(parent.mediaType)) return wanted.allMetadata ? [...children] : children.filter(fits);
  if (isManifestType(parent.mediaType) && (wanted.metadataOnly || !fits(parent)))
    return children.filter(({ mediaType }) => isConfigType(mediaType));
  return [...children];
}
