import { existsSync } from 'node:fs';
import path from 'node:path';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { BlockfileSnapshotter, prepareScratch } from './blockfile-snapshotter.ts';

/** `io.containerd.snapshotter.v1.blockfile`, with containerd's settings. */
export const blockfilePlugin = definePlugin({
  type: PluginTypes.Snapshotter,
  id: 'blockfile',
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({
    root_path: field.string(),
    scratch_file: field.string(),
    fs_type: field.string(),
    mount_options: field.strings([]),
    recreate_scratch: field.boolean(false),
  }),
  async init(context) {
    const { config } = context;
    const root = config.root_path || context.root;
    context.meta.exports['root'] = root;
    if (!config.scratch_file && !existsSync(path.join(root, 'scratch'))) {
      throw new PluginSkip('blockfile not configured, scratch_file must be given');
    }
    await prepareScratch(root, config.scratch_file, config.recreate_scratch);
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
    const snapshotter = await BlockfileSnapshotter.open(root, store, {
      fsType: config.fs_type || 'ext4',
      mountOptions: config.mount_options,
    });
    context.onClose(() => snapshotter.close());
    return snapshotter;
  },
});
