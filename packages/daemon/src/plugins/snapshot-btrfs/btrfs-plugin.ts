import { mkdir, realpath } from 'node:fs/promises';
import path from 'node:path';
import { FS_MAGIC, hasErrno, lookupMountAsync, statfs } from '@gantry/sys';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { BtrfsSnapshotter } from './btrfs-snapshotter.ts';

/** `io.containerd.snapshotter.v1.btrfs`. */
export const btrfsPlugin = definePlugin({
  type: PluginTypes.Snapshotter,
  id: 'btrfs',
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({ root_path: field.string() }),
  async init(context) {
    const root = context.config.root_path || context.root;
    context.meta.exports['root'] = root;
    const there = await nearestDirectory(root);
    if (statfs(there).type !== FS_MAGIC.BTRFS) {
      const type = (await lookupMountAsync(there))?.fsType;
      throw new PluginSkip(
        `path ${root} (${type ?? 'unknown'}) must be a btrfs filesystem to be used with the btrfs snapshotter`,
      );
    }
    await mkdir(root, { recursive: true, mode: 0o700 });
    const mount = await lookupMountAsync(root);
    if (mount?.fsType !== 'btrfs') throw new PluginSkip(`path ${root}: no mount of its btrfs filesystem is to be seen`);
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
    const snapshotter = await BtrfsSnapshotter.open(await realpath(root), mount.source, store);
    context.onClose(() => snapshotter.close());
    return snapshotter;
  },
});

/** The path itself, or the directory above it that is there: a plugin that is skipped makes none. */
async function nearestDirectory(wanted: string): Promise<string> {
  for (let at = wanted; ; at = path.dirname(at)) {
    try {
      return await realpath(at);
    } catch (error) {
      if (!hasErrno(error, 'ENOENT') || at === path.dirname(at)) throw error;
    }
  }
}
