// The images that checkpoints are kept as: an index whose parts are no manifests, as containerd's client makes and reads them.
import { type Any, anyFromBytes, anyToBytes, type Client, type Container, type Descriptor } from '@gantry/client';
import { defaultPlatform, MediaType } from '@gantry/oci';

export interface CheckpointIndex {
  manifests: Descriptor[];
  annotations: Record<string, string>;
}

/** Annotations of an index by which a container is made again. */
export const indexAnnotations = {
  /** Of `ctr containers checkpoint`: the image's name, the runtime's and the snapshotter's. */
  image: 'org.opencontainers.image.ref.name',
  runtime: 'io.containerd.checkpoint.runtime',
  snapshotter: 'io.containerd.checkpoint.snapshotter',
  /** Of `ctr tasks checkpoint`. */
  taskImage: 'image.name',
} as const;

/** A part with the platform that it is for: this one. */
export function forThisPlatform(descriptor: Descriptor): Descriptor {
  const { os, architecture } = defaultPlatform();
  return { ...descriptor, platform: { os, architecture } };
}

/** Writes a message into the content store as one part. */
export async function writeMessage(client: Client, mediaType: string, ref: string, any: Any): Promise<Descriptor> {
  const written = await client.content.ingest(ref, anyToBytes(any));
  return forThisPlatform({ mediaType, ...written });
}

/** The message in a part of that kind; undefined if there is none. */
export async function readMessage(client: Client, index: CheckpointIndex, mediaType: string): Promise<Any | undefined> {
  const part = index.manifests.find((descriptor) => descriptor.mediaType === mediaType);
  return part && anyFromBytes(await client.content.readAll(part.digest));
}

/** What a container's root has more or other than the image it came from, as a layer. */
export async function writeRootChanges(
  client: Client,
  { snapshotter, snapshotKey }: Pick<Container, 'snapshotter' | 'snapshotKey'>,
): Promise<Descriptor> {
  const snapshots = client.snapshots(snapshotter);
  const { parent } = await snapshots.stat(snapshotKey);
  const view = `${snapshotKey}-parent-view`;
  const lower = await snapshots.view(view, parent);
  try {
    const settings = { mediaType: MediaType.OciLayerGzip, ref: `checkpoint-rw-${snapshotKey}` };
    return forThisPlatform(await client.diff.compare(lower, await snapshots.mounts(snapshotKey), settings));
  } finally {
    await snapshots.remove(view);
  }
}

/** Keeps a checkpoint under a name. Its parts are held by the index, the index by the image. */
export async function recordCheckpoint(
  client: Client,
  name: string,
  ref: string,
  index: CheckpointIndex,
  labels: Record<string, string> = {},
): Promise<void> {
  const { manifests, annotations } = index;
  const parts = manifests.map(({ mediaType, digest, size, platform, annotations: more }) => ({
    mediaType,
    digest,
    size,
    ...(more && Object.keys(more).length > 0 ? { annotations: more } : {}),
    ...(platform ? { platform: { architecture: platform.architecture, os: platform.os } } : {}),
  }));
  const document = { schemaVersion: 2, manifests: parts, annotations };
  const held = Object.fromEntries(
    manifests.map(({ digest }, position) => [`containerd.io/gc.ref.content.${position}`, digest]),
  );
  const written = await client.content.ingest(ref, Buffer.from(JSON.stringify(document)), { labels: held });
  await client.images.create({ name, target: { mediaType: MediaType.OciIndex, ...written }, labels });
}
