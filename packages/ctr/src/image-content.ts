// What an image is made of, read from the daemon's content store.
import { type Client, Code, type Descriptor, hasCode, type Image, type Platform, StatusError } from '@gantry/client';
import {
  childrenOf,
  defaultPlatform,
  formatPlatform,
  type ImageConfig,
  isConfigType,
  isIndexType,
  isManifestType,
  type Manifest,
  onlyPlatform,
  type PlatformMatcher,
  parseImageConfig,
  parseManifest,
  parsePlatform,
  platformFromJson,
} from '@gantry/oci';

/** The manifest of an image for a platform, with its config. */
export interface ResolvedImage {
  readonly descriptor: Descriptor;
  readonly manifest: Manifest;
  readonly config: ImageConfig;
}

/** What a `--platform` means; without one, this machine's. */
export function platformMatcher(platform = ''): PlatformMatcher {
  return onlyPlatform(platform ? parsePlatform(platform) : defaultPlatform());
}

/** Parents before children; what is not in the store is told to `missing`, or else thrown. */
export async function* walkImage(
  client: Client,
  root: Descriptor,
  missing?: (descriptor: Descriptor) => void,
): AsyncGenerator<{ descriptor: Descriptor; children: Descriptor[]; depth: number }> {
  const seen = new Set<string>();
  async function* visit(descriptor: Descriptor, depth: number): ReturnType<typeof walkImage> {
    if (seen.has(descriptor.digest)) return;
    seen.add(descriptor.digest);
    let children: Descriptor[] = [];
    if (isIndexType(descriptor.mediaType) || isManifestType(descriptor.mediaType)) {
      try {
        children = childrenOf(descriptor, await client.content.readAll(descriptor.digest));
      } catch (reason) {
        if (!missing || !hasCode(reason, Code.NotFound)) throw reason;
        missing(descriptor);
      }
    }
    yield { descriptor, children, depth };
    for (const child of children) yield* visit(child, depth + 1);
  }
  yield* visit(root, 0);
}

/** Manifests of an image that fit, the best first; each with its platform. */
export async function manifestsOf(
  client: Client,
  root: Descriptor,
  matcher: PlatformMatcher,
): Promise<{ descriptor: Descriptor; platform: Platform }[]> {
  const found: { descriptor: Descriptor; platform: Platform }[] = [];
  const visit = async (descriptor: Descriptor): Promise<void> => {
    if (isManifestType(descriptor.mediaType)) {
      const platform = descriptor.platform ?? (await manifestPlatform(client, descriptor));
      // An image of one manifest is what it is; there is nothing to choose.
      if (descriptor === root || matcher.match(platform)) found.push({ descriptor, platform });
    } else if (isIndexType(descriptor.mediaType)) {
      const bytes = await client.content.readAll(descriptor.digest);
      for (const child of childrenOf(descriptor, bytes)) {
        if (child.platform && !matcher.match(child.platform)) continue;
        await visit(child);
      }
    }
  };
  await visit(root);
  return found.sort((a, b) => matcher.compare(a.platform, b.platform));
}

async function manifestPlatform(client: Client, descriptor: Descriptor): Promise<Platform> {
  const { config } = parseManifest(await client.content.readAll(descriptor.digest), descriptor.mediaType);
  if (!isConfigType(config.mediaType)) return { os: '', architecture: '' };
  return platformFromJson(parseImageConfig(await client.content.readAll(config.digest)));
}

/** The manifest and config that a platform gets. @throws StatusError NotFound if there is none */
export async function resolveImage(
  client: Client,
  image: Pick<Image, 'name' | 'target'>,
  matcher: PlatformMatcher = platformMatcher(),
): Promise<ResolvedImage> {
  const [best] = await manifestsOf(client, image.target, matcher);
  if (!best)
    throw new StatusError(Code.NotFound, `no match for platform in manifest ${image.target.digest}: not found`);
  const { descriptor } = best;
  const manifest = parseManifest(await client.content.readAll(descriptor.digest), descriptor.mediaType);
  const config = parseImageConfig(await client.content.readAll(manifest.config.digest));
  return { descriptor, manifest, config };
}

/** Bytes of what a platform needs of an image, with the documents on the way to it. */
export async function imageSize(client: Client, root: Descriptor, matcher: PlatformMatcher): Promise<number> {
  let size = root.size;
  const [best] = await manifestsOf(client, root, matcher);
  if (!best) throw new StatusError(Code.NotFound, `no match for platform in manifest ${root.digest}: not found`);
  const { descriptor } = best;
  if (descriptor.digest !== root.digest) size += descriptor.size;
  const manifest = parseManifest(await client.content.readAll(descriptor.digest), descriptor.mediaType);
  for (const { size: bytes } of [manifest.config, ...manifest.layers]) size += bytes;
  return size;
}

/** The platforms an image says it is for, in order, by name. */
export async function imagePlatforms(client: Client, root: Descriptor): Promise<string[]> {
  const names = new Set<string>();
  const visit = async (descriptor: Descriptor): Promise<void> => {
    if (descriptor.platform) {
      const { os, architecture } = descriptor.platform;
      if (os !== 'unknown' && architecture !== 'unknown') names.add(formatPlatform(descriptor.platform));
    } else if (isManifestType(descriptor.mediaType))
      names.add(formatPlatform(await manifestPlatform(client, descriptor)));
    else if (isIndexType(descriptor.mediaType))
      for (const child of childrenOf(descriptor, await client.content.readAll(descriptor.digest))) await visit(child);
  };
  await visit(root);
  return [...names].sort();
}
