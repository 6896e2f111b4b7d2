// Images as directories, and the space their snapshots take.
import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { type Client, Code, hasCode, type Lease, type Mount } from '@gantry/client';
import { chainIds, defaultPlatform, formatPlatform } from '@gantry/oci';
import { activateMounts, deactivateMounts } from '../../activate.ts';
import { type Command, type Invocation, UsageError } from '../../command.ts';
import { platformMatcher, resolveImage } from '../../image-content.ts';
import { print, printTable } from '../../output.ts';
import { registryFlags } from '../../registry-options.ts';
import { snapshotterFlags } from '../../run/spec-flags.ts';
import { withClient } from '../../session.ts';
import { narrow } from '../../table.ts';
import { binarySize, parseLabels } from '../../units.ts';
import { snapshotterOf, unpackImage } from '../../unpack.ts';

export const mount: Command = {
  name: 'mount',
  usage: 'mount an image on a directory',
  argsUsage: '[flags] <ref> [<target>]',
  description:
    'A lease and a snapshot are kept under the name of the target; `ctr images unmount --rm` removes both. Without a target the\n' +
    'directory of the snapshot is printed, where it is one directory.',
  example: 'ctr images mount docker.io/library/busybox:latest /mnt',
  flags: [
    ...registryFlags,
    ...snapshotterFlags,
    { name: 'label', kind: 'strings', usage: 'labels of the snapshot: key=value' },
    { name: 'rw', kind: 'bool', usage: 'writable' },
    { name: 'platform', kind: 'string', usage: 'for this platform', default: formatPlatform(defaultPlatform()) },
    { name: 'sync-fs', kind: 'bool', usage: 'sync what is unpacked' },
    {
      name: 'expiration',
      aliases: ['x'],
      kind: 'duration',
      usage: 'the collector may take the snapshot after this time; 0 means never',
      default: '1h',
    },
  ],
  run: withClient(async (client, invocation) => {
    const [reference, target] = invocation.args;
    if (!reference) throw new UsageError('please provide an image reference to mount');
    if (target && !statSync(target).isDirectory()) throw new Error(`${target} is not a directory`);
    const key = target || `ctr-images-mount-${Date.now()}-${randomBytes(3).toString('base64url')}`;
    const expiration = invocation.number('expiration');
    const expireAfter = expiration > 0 ? { expireAfter: expiration / 1000 } : {};
    let lease: Lease | undefined;
    try {
      lease = await client.leases.create({ id: key, ...expireAfter });
    } catch (reason) {
      // Of an earlier mount on the same place.
      if (!hasCode(reason, Code.AlreadyExists)) throw reason;
    }
    try {
      const { chainId, place } = await mountImage(client.withLease(lease ?? key), invocation, reference, key, target);
      print(`${chainId}\n${place}\n`);
    } catch (reason) {
      await lease?.delete().catch(() => undefined);
      throw reason;
    }
  }),
};

/** Mounts under the lease that the client works with. Without a target the snapshot has to be a directory of its own. */
async function mountImage(
  client: Client,
  invocation: Invocation,
  reference: string,
  key: string,
  target: string | undefined,
): Promise<{ chainId: string; place: string }> {
  const snapshotter = await snapshotterOf(client, invocation);
  const image = await client.images.get(reference);
  const resolved = await resolveImage(client, image, platformMatcher(invocation.string('platform')));
  const chainId = await unpackImage(client, resolved, snapshotter, { syncFs: invocation.bool('sync-fs') });
  const labels = parseLabels(invocation.strings('label'));
  const snapshots = client.snapshots(snapshotter);
  let mounts: Mount[];
  let isNew = true;
  try {
    mounts = await (invocation.bool('rw')
      ? snapshots.prepare(key, chainId, labels)
      : snapshots.view(key, chainId, labels));
  } catch (reason) {
    if (!hasCode(reason, Code.AlreadyExists)) throw reason;
    mounts = await snapshots.mounts(key);
    isNew = false;
  }
  try {
    const { mountAll } = await import('@gantry/mount');
    // Goes with the snapshot, if not before.
    const held = { [`containerd.io/gc.bref.snapshot.${snapshotter}`]: key };
    const system = await activateMounts(client, key, mounts, { labels: held });
    if (target) {
      await mountAll(system, target);
      return { chainId, place: target };
    }
    const [only, more] = system;
    if (!only || more || only.type !== 'bind')
      throw new UsageError(
        `a target path must be provided: the snapshot is not one directory, but ${JSON.stringify(system)}`,
      );
    return { chainId, place: only.source };
  } catch (reason) {
    if (isNew) {
      await deactivateMounts(client, key).catch(() => undefined);
      await snapshots.remove(key).catch(() => undefined);
    }
    throw reason;
  }
}

export const unmount: Command = {
  name: 'unmount',
  usage: 'unmount an image',
  argsUsage: '[flags] <target>',
  example: 'ctr images unmount --rm /mnt',
  flags: [
    ...registryFlags,
    ...snapshotterFlags,
    { name: 'label', kind: 'strings', usage: 'not used' },
    { name: 'rm', kind: 'bool', usage: 'remove the snapshot' },
  ],
  run: withClient(async (client, invocation) => {
    const target = invocation.args[0];
    if (!target) throw new UsageError('please provide a target path to unmount from');
    const { unmountAll } = await import('@gantry/mount');
    await unmountAll(target);
    await deactivateMounts(client, target);
    if (invocation.bool('rm')) {
      const snapshots = client.snapshots(await snapshotterOf(client, invocation));
      for (const remove of [() => client.leases.delete(target), () => snapshots.remove(target)])
        try {
          await remove();
        } catch (reason) {
          if (!hasCode(reason, Code.NotFound)) throw reason;
        }
    }
    print(`${target}\n`);
  }),
};

export const usage: Command = {
  name: 'usage',
  usage: "print the space that an image's snapshots take",
  argsUsage: '[flags] <ref>',
  example: 'ctr images usage docker.io/library/busybox:latest',
  flags: snapshotterFlags,
  run: withClient(async (client, invocation) => {
    const reference = invocation.args[0];
    if (!reference) throw new UsageError('please provide an image reference to mount');
    const snapshotter = await snapshotterOf(client, invocation);
    const { config } = await resolveImage(client, await client.images.get(reference));
    const rows: string[][] = [];
    for (const id of chainIds(config.rootfs?.diff_ids ?? []).reverse()) {
      const { size, inodes } = await client.snapshots(snapshotter).usage(id);
      rows.push([id, binarySize(size), String(inodes), '']);
    }
    printTable([['KEY', 'SIZE', 'INODES', ''], ...rows], narrow);
  }),
};
