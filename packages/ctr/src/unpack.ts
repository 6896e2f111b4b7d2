// Turns an image's layers into snapshots, by the daemon's differ and snapshotter.
import { randomBytes } from 'node:crypto';
import { type Client, Code, hasCode } from '@gantry/client';
import { chainIds, isLayerType } from '@gantry/oci';
import type { Invocation } from './command.ts';
import type { ResolvedImage } from './image-content.ts';

/** What a namespace's label says, or else what it would say by default. */
export async function namespaceDefault(client: Client, label: string, otherwise: string): Promise<string> {
  try {
    const { labels } = await client.namespaces.get(client.namespace);
    return labels[label] || otherwise;
  } catch (reason) {
    if (hasCode(reason, Code.NotFound)) return otherwise;
    throw reason;
  }
}

/** The snapshotter of a command: its flag, or the namespace's default, or overlayfs. */
export async function snapshotterOf(client: Client, invocation: Invocation): Promise<string> {
  return (
    invocation.string('snapshotter') || namespaceDefault(client, 'containerd.io/defaults/snapshotter', 'overlayfs')
  );
}

/** The name of the snapshot with all layers of an image. */
export function imageChainId({ config }: Pick<ResolvedImage, 'config'>): string {
  return chainIds(config.rootfs?.diff_ids ?? []).at(-1) ?? '';
}

/** Whether a snapshot is there. */
export async function hasSnapshot(client: Client, snapshotter: string, key: string): Promise<boolean> {
  try {
    await client.snapshots(snapshotter).stat(key);
    return true;
  } catch (reason) {
    if (hasCode(reason, Code.NotFound)) return false;
    throw reason;
  }
}

/**
 * Makes the snapshots of an image that are not there yet. @returns the chain id of the topmost
 * @throws StatusError if layers and config do not agree, or what the daemon throws
 */
export async function unpackImage(
  client: Client,
  image: ResolvedImage,
  snapshotter: string,
  settings: { syncFs?: boolean; onLayer?: (digest: string, isNew: boolean) => void } = {},
): Promise<string> {
  const diffIds = image.config.rootfs?.diff_ids ?? [];
  const ids = chainIds(diffIds);
  const top = ids.at(-1) ?? '';
  if (top === '' || (await hasSnapshot(client, snapshotter, top))) return top;
  const layers = image.manifest.layers.filter((layer) => isLayerType(layer.mediaType));
  if (layers.length !== diffIds.length) throw new Error('mismatched image rootfs and manifest layers');
  // Without a lease the collector could take a layer before the next one holds it.
  await using lease = await client.leases.create({ expireAfter: 24 * 3600 });
  const held = client.withLease(lease);
  const snapshots = held.snapshots(snapshotter);
  for (const [index, layer] of layers.entries()) {
    const chainId = ids[index]!;
    const isNew = !(await hasSnapshot(held, snapshotter, chainId));
    if (isNew) {
      const key = `extract-${randomBytes(6).toString('base64url')} ${chainId}`;
      const labels = { 'containerd.io/snapshot.ref': chainId };
      const mounts = await snapshots.prepare(key, ids[index - 1] ?? '', labels);
      try {
        const applied = await held.diff.apply(layer, mounts, { syncFs: settings.syncFs ?? false });
        if (applied.digest !== diffIds[index])
          throw new Error(`wrong diff id calculated on extraction "${applied.digest}"`);
        await snapshots.commit(chainId, key, labels);
      } catch (reason) {
        await snapshots.remove(key).catch(() => undefined);
        if (!hasCode(reason, Code.AlreadyExists)) throw reason;
      }
      await held.content.setLabels(layer.digest, { 'containerd.io/uncompressed': diffIds[index]! });
    }
    settings.onLayer?.(layer.digest, isNew);
  }
  await held.content.setLabels(image.manifest.config.digest, {
    [`containerd.io/gc.ref.snapshot.${snapshotter}`]: top,
  });
  return top;
}
