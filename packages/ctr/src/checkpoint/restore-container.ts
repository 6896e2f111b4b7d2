// `ctr containers restore`.
import { type Client, type Container, type Descriptor, plainAny, type Task } from '@gantry/client';
import { MediaType, type RuntimeSpec } from '@gantry/oci';
import { platformMatcher, resolveImage } from '../image-content.ts';
import { unpackImage } from '../unpack.ts';
import { type CheckpointIndex, indexAnnotations, readMessage } from './checkpoint-index.ts';

/** The index that an image record points to. @throws Error if it is none of a checkpoint */
export async function readCheckpoint(client: Client, target: Descriptor): Promise<CheckpointIndex> {
  const document = JSON.parse(Buffer.from(await client.content.readAll(target.digest)).toString('utf8')) as {
    manifests?: Descriptor[];
    annotations?: Record<string, string>;
  };
  return { manifests: document.manifests ?? [], annotations: document.annotations ?? {} };
}

/** Makes a container like the one that a checkpoint was taken of, with its changes of the root if `rw`. */
export async function restoreContainer(
  unheld: Client,
  id: string,
  index: CheckpointIndex,
  settings: { rw: boolean },
): Promise<Container> {
  const annotation = (name: string, what: string): string => {
    const value = index.annotations[name];
    if (!value) throw new Error(`${what} not found in index`);
    return value;
  };
  await using lease = await unheld.leases.create({ expireAfter: 24 * 3600 });
  const client = unheld.withLease(lease);
  const image = await client.images.get(annotation(indexAnnotations.image, 'image name'));
  const snapshotter = annotation(indexAnnotations.snapshotter, 'snapshotter');
  const spec = await readMessage(client, index, MediaType.CheckpointConfig);
  if (!spec) throw new Error('media type not found');
  const name = annotation(indexAnnotations.runtime, 'runtime');
  const options = await readMessage(client, index, MediaType.CheckpointRuntimeOptions);
  const resolved = await resolveImage(client, image, platformMatcher());
  // containerd's client fails where the image has not been unpacked; it is unpacked here.
  const parent = await unpackImage(client, resolved, snapshotter);
  const snapshots = client.snapshots(snapshotter);
  const mounts = await snapshots.prepare(id, parent);
  try {
    if (settings.rw) {
      const layer = index.manifests.find(({ mediaType }) => mediaType === MediaType.OciLayerGzip);
      if (!layer) throw new Error('media type not found');
      await client.diff.apply(layer, mounts);
    }
    return await client.containers.create({
      id,
      image: image.name,
      runtime: { name, ...(options ? { options } : {}) },
      spec,
      snapshotter,
      snapshotKey: id,
    });
  } catch (reason) {
    await snapshots.remove(id).catch(() => undefined);
    throw reason;
  }
}

/** Makes its task, from CRIU's images if it is to go on where the other one was. */
export function restoreTask(
  client: Client,
  container: Container,
  index: CheckpointIndex,
  live: boolean,
): Promise<Task> {
  const spec = (container.spec && plainAny(container.spec)) as RuntimeSpec | undefined;
  const checkpoint = index.manifests.find(({ mediaType }) => mediaType === MediaType.Checkpoint);
  if (live && !checkpoint) throw new Error('checkpoint not found in index');
  return client.tasks.create({
    container: container.id,
    stdio: { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe' },
    terminal: spec?.process?.terminal ?? false,
    ...(live && checkpoint ? { checkpoint } : {}),
  });
}
