// Images as directories, and the space their snapshots take.
import { statSync } from 'node:fs';
import { Code, hasCode } from '@gantry/client';
import { chainIds, defaultPlatform, formatPlatform } from '@gantry/oci';
import { activateMounts, deactivateMounts } from '../../activate.ts';
import { type Command, UsageError } from '../../command.ts';
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
  argsUsage: '[flags] <ref> <target>',
  description: 'The snapshot is kept under the name of the target; `ctr images unmount --rm` removes it.',
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
      usage: 'the collector takes the snapshot after this time; 0 means never',
      default: '1h',
    },
  ],
  run: withClient(async (client, invocation) => {
    const reference = invocation.args[0];
    if (!reference) throw new UsageError('please provide an image reference to mount');
    const target = invocation.args[1];
    if (!target) throw new UsageError('please provide a target path to mount to');
    if (!statSync(target).isDirectory()) throw new Error(`${target} is not a directory`);
    const snapshotter = await snapshotterOf(client, invocation);
    const image = await client.images.get(reference);
    const resolved = await resolveImage(client, image, platformMatcher(invocation.string('platform')));
    const chainId = await unpackImage(client, resolved, snapshotter, { syncFs: invocation.bool('sync-fs') });
    const expiration = invocation.number('expiration');
    const labels = {
      ...parseLabels(invocation.strings('label')),
      ...(expiration > 0 ? { 'containerd.io/gc.expire': new Date(Date.now() + expiration).toISOString() } : {}),
      'containerd.io/gc.root': new Date().toISOString(),
    };
    const snapshots = client.snapshots(snapshotter);
    const mounts = invocation.bool('rw')
      ? await snapshots.prepare(target, chainId, labels)
      : await snapshots.view(target, chainId, labels);
    try {
      const { mountAll } = await import('@gantry/mount');
      // Goes with the snapshot, if not before.
      const held = { [`containerd.io/gc.bref.snapshot.${snapshotter}`]: target };
      await mountAll(await activateMounts(client, target, mounts, { labels: held }), target);
    } catch (reason) {
      await deactivateMounts(client, target).catch(() => undefined);
      await snapshots.remove(target).catch(() => undefined);
      throw reason;
    }
    print(`${chainId}\n${target}\n`);
  }),
};

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
      try {
        await client.snapshots(await snapshotterOf(client, invocation)).remove(target);
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
