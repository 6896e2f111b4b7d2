// Writes images of the daemon as an archive by this program itself: an OCI layout that `docker load` reads as well.
import { createHash } from 'node:crypto';
import { TarWriter } from '@gantry/archive';
import { type Client, Code, type Descriptor, StatusError } from '@gantry/client';
import {
  Annotation,
  childrenOf,
  descriptorToJson,
  encodeJson,
  familiarDockerReference,
  isIndexType,
  isManifestType,
  isNonDistributable,
  MediaType,
  ociReferenceName,
  type PlatformMatcher,
  parseDigest,
  parseManifest,
} from '@gantry/oci';
import { maxDepth } from './image-tree.ts';

export interface ExportSettings {
  /** Which manifest of an index goes along, and stands for it in manifest.json. */
  platform: PlatformMatcher;
  /** All of an index. */
  allPlatforms: boolean;
  skipDockerManifest: boolean;
  skipNonDistributable: boolean;
}

/** The archive's bytes go to `sink`. The same images always give the same archive. @throws StatusError NotFound */
export async function exportArchive(
  client: Client,
  names: readonly string[],
  settings: ExportSettings,
  sink: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const blobs = new Map<string, Descriptor>();
  const documents = new Map<string, { bytes: Uint8Array; mode: number }>();
  const roots: Descriptor[] = [];
  /** Names by the manifest that stands for them. */
  const docker = new Map<string, { manifest: Descriptor; names: string[] }>();
  const childrenFrom = async (parent: Descriptor) => childrenOf(parent, await client.content.readAll(parent.digest));
  const collect = async (descriptor: Descriptor, depth: number): Promise<void> => {
    if (depth > maxDepth)
      throw new StatusError(Code.FailedPrecondition, `indexes are nested more than ${maxDepth} deep`);
    if (settings.skipNonDistributable && isNonDistributable(descriptor.mediaType)) return;
    const name = blobName(descriptor.digest);
    if (blobs.has(name)) return;
    blobs.set(name, descriptor);
    if (!isManifestType(descriptor.mediaType) && !isIndexType(descriptor.mediaType)) return;
    for (const child of await childrenFrom(descriptor)) await collect(child, depth + 1);
  };
  for (const name of names) {
    const { target } = await client.images.get(name);
    const { labels } = await client.content.info(target.digest);
    const sources = Object.entries(labels).filter(([key]) => key.startsWith('containerd.io/distribution.source'));
    const naming = { [Annotation.ImageName]: name, [Annotation.RefName]: ociReferenceName(name) };
    roots.push({ ...target, annotations: { ...target.annotations, ...naming, ...Object.fromEntries(sources) } });
    let manifest = target;
    if (isIndexType(target.mediaType)) {
      blobs.set(blobName(target.digest), target);
      const children = await childrenFrom(target);
      const fitting = children.filter(({ platform }) => !platform || settings.platform.match(platform));
      for (const child of settings.allPlatforms ? children : fitting) await collect(child, 1);
      const [best] = fitting
        .filter(({ platform }) => platform)
        .sort((a, b) => settings.platform.compare(a.platform!, b.platform!))
        .concat(fitting);
      if (!best) throw new StatusError(Code.NotFound, `${name}: no manifest found for platform: not found`);
      manifest = best;
    } else if (isManifestType(target.mediaType)) await collect(target, 0);
    else throw new StatusError(Code.InvalidArgument, 'only manifests may be exported: invalid argument');
    const entry = docker.get(manifest.digest) ?? { manifest, names: [] };
    entry.names.push(name);
    docker.set(manifest.digest, entry);
  }
  const document = (name: string, value: unknown, mode = 0o644) =>
    documents.set(name, { bytes: encodeJson(value), mode });
  document('oci-layout', { imageLayoutVersion: '1.0.0' }, 0o444);
  document('index.json', { schemaVersion: 2, mediaType: MediaType.OciIndex, manifests: roots.map(descriptorToJson) });
  if (!settings.skipDockerManifest) document('manifest.json', await dockerManifests(client, [...docker.values()]));
  await write(client, blobs, documents, sink);
}

async function dockerManifests(
  client: Client,
  entries: readonly { manifest: Descriptor; names: string[] }[],
): Promise<unknown[]> {
  return Promise.all(
    entries.map(async ({ manifest, names }) => {
      const { config, layers } = parseManifest(await client.content.readAll(manifest.digest), manifest.mediaType);
      const file = ({ digest }: Descriptor): string => blobName(digest);
      return { Config: file(config), RepoTags: names.map(familiarDockerReference), Layers: layers.map(file) };
    }),
  );
}

async function write(
  client: Client,
  blobs: ReadonlyMap<string, Descriptor>,
  documents: ReadonlyMap<string, { bytes: Uint8Array; mode: number }>,
  sink: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const folders = new Set([...blobs.keys()].flatMap((name) => ['blobs/', `${name.split('/').slice(0, 2).join('/')}/`]));
  const tar = new TarWriter(sink);
  for (const name of [...folders, ...blobs.keys(), ...documents.keys()].sort()) {
    const blob = blobs.get(name);
    const document = documents.get(name);
    if (blob) await tar.file(name, blob.size, verified(client, blob), { mode: 0o444 });
    else if (document) await tar.bytes(name, document.bytes, { mode: document.mode });
    else await tar.directory(name, { mode: 0o755 });
  }
  await tar.finish();
}

function blobName(digest: string): string {
  const { algorithm, encoded } = parseDigest(digest);
  return `blobs/${algorithm}/${encoded}`;
}

/** A blob's bytes; at their end they have to be what the digest says. */
async function* verified(client: Client, { digest }: Descriptor): AsyncGenerator<Uint8Array> {
  const { algorithm, encoded } = parseDigest(digest);
  const hash = createHash(algorithm);
  for await (const piece of client.content.read(digest)) {
    hash.update(piece);
    yield piece;
  }
  if (hash.digest('hex') !== encoded)
    throw new StatusError(Code.Unknown, `the bytes of ${digest} are not what it says`);
}
