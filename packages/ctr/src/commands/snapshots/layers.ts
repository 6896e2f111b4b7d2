// Between snapshots and layers: differences, and unpacking.
import type { Client, Descriptor, Mount, Snapshots } from '@gantry/client';
import { isManifestType, MediaType, parseImageConfig, parseManifest } from '@gantry/oci';
import { type Command, UsageError } from '../../command.ts';
import { print, written } from '../../output.ts';
import { snapshotterFlags } from '../../run/spec-flags.ts';
import { withClient } from '../../session.ts';
import { parseLabels } from '../../units.ts';
import { snapshotterOf, unpackImage } from '../../unpack.ts';

/** Looks at a snapshot's mounts: its own, or those of a view on a committed one for as long as `look` takes. */
async function withMounts<T>(snapshots: Snapshots, key: string, look: (mounts: Mount[]) => Promise<T>): Promise<T> {
  if (key === '') return look([]);
  if ((await snapshots.stat(key)).kind !== 'committed') return look(await snapshots.mounts(key));
  const name = `view-${process.pid}-${Date.now()}-${key}`;
  const mounts = await snapshots.view(name, key);
  try {
    return await look(mounts);
  } finally {
    await snapshots.remove(name);
  }
}

export const diff: Command = {
  name: 'diff',
  usage: 'write the difference of two snapshots, or of one and its parent, as a layer to standard output',
  argsUsage: '[flags] <idA> [<idB>]',
  example: 'ctr snapshots diff work > layer.tar.gz',
  flags: [
    { name: 'media-type', kind: 'string', usage: 'media type of the layer', default: MediaType.OciLayerGzip },
    { name: 'ref', kind: 'string', usage: 'name of the write' },
    { name: 'keep', kind: 'bool', usage: 'keep the layer in the content store' },
    { name: 'label', kind: 'strings', usage: 'labels of the layer: key=value' },
  ],
  run: withClient(async (client, invocation) => {
    const a = invocation.args[0];
    if (!a) throw new UsageError('snapshot id must be provided');
    await using lease = await client.leases.create({ expireAfter: 24 * 3600 });
    const held = client.withLease(lease);
    const snapshots = held.snapshots(await snapshotterOf(client, invocation));
    const labels = parseLabels(invocation.strings('label'));
    if (invocation.bool('keep')) labels['containerd.io/gc.root'] = new Date().toISOString();
    const ref = invocation.string('ref');
    const settings = { mediaType: invocation.string('media-type'), labels, ...(ref ? { ref } : {}) };
    // One snapshot is compared with its parent, two from the first to the second.
    const b = invocation.args[1];
    const [lower, upper] = b ? [a, b] : [(await snapshots.stat(a)).parent, a];
    const layer = await withMounts(snapshots, lower, (left) =>
      withMounts(snapshots, upper, (right) => held.diff.compare(left, right, settings)),
    );
    for await (const piece of held.content.read(layer.digest)) await written(piece);
  }),
};

async function manifestAt(client: Client, digest: string): Promise<{ bytes: Uint8Array; mediaType: string }> {
  const bytes = await client.content.readAll(digest);
  const { mediaType } = JSON.parse(new TextDecoder().decode(bytes)) as { mediaType?: string };
  return { bytes, mediaType: mediaType ?? MediaType.OciManifest };
}

export const unpack: Command = {
  name: 'unpack',
  usage: 'unpack the layers of the image with this manifest',
  argsUsage: '[flags] <digest>',
  example: 'ctr snapshots unpack sha256:0000',
  flags: [{ name: 'sync-fs', kind: 'bool', usage: 'sync what is unpacked' }, ...snapshotterFlags],
  run: withClient(async (client, invocation) => {
    const digest = invocation.argument(0, 'manifest digest');
    const images = await client.images.list();
    const image = images.find(({ target }) => target.digest === digest);
    const { bytes, mediaType } = await manifestAt(client, digest);
    if (!isManifestType(mediaType)) throw new Error(`manifest not found: ${digest} is ${mediaType}`);
    const manifest = parseManifest(bytes, mediaType);
    const config = parseImageConfig(await client.content.readAll(manifest.config.digest));
    const descriptor: Descriptor = image?.target ?? { mediaType, digest, size: bytes.byteLength };
    print(`unpacking ${descriptor.mediaType} ${digest}...\n`);
    await unpackImage(client, { descriptor, manifest, config }, await snapshotterOf(client, invocation), {
      syncFs: invocation.bool('sync-fs'),
    });
    print('done\n');
  }),
};
