import type { Command } from '../../command.ts';
import { snapshotterFlags } from '../../run/spec-flags.ts';
import { commit, label, prepare, remove, view } from './change.ts';
import { diff, unpack } from './layers.ts';
import { info, list, mounts, tree, usage } from './look.ts';

export const snapshots: Command = {
  name: 'snapshots',
  aliases: ['snapshot'],
  usage: 'manage snapshots',
  example: 'ctr snapshots --snapshotter native ls',
  flags: snapshotterFlags,
  commands: [commit, diff, info, list, mounts, prepare, remove, label, tree, unpack, usage, view],
};
