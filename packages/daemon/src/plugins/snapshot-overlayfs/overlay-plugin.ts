import path from 'node:path';
import { needsUserxattr, supportsIdmappedMounts, supportsIndex, supportsOverlay, sweepProbes } from '@gantry/mount';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { thisBoot } from '../../core/sync/this-boot.ts';
import { OverlaySnapshotter } from './overlay-snapshotter.ts';

/** `io.containerd.snapshotter.v1.overlayfs`, with containerd's settings. */
export const overlayfsPlugin = definePlugin({
  type: PluginTypes.Snapshotter,
  id: 'overlayfs',
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({
    root_path: field.string(),
    upperdir_label: field.boolean(false),
    sync_remove: field.boolean(false),
    slow_chown: field.boolean(false),
    mount_options: field.strings([]),
  }),
  async init(context) {
    const { config, meta } = context;
    const root = config.root_path || context.root;
    meta.exports['root'] = root;
    await sweepProbes(root);
    const { supported, reason } = await supportsOverlay(root);
    if (!supported) throw new PluginSkip(`path ${JSON.stringify(root)} does not support overlayfs: ${reason}`);

    // Clients read these: whether ids can be mapped by mount options, and if not, whether they may chown a copy instead.
    const remapIds = await supportsIdmappedMounts(root);
    if (remapIds) meta.capabilities.push('remap-ids');
    if (!config.slow_chown) meta.capabilities.push('only-remap-ids');
    meta.capabilities.push('rebase');

    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
    const snapshotter = await OverlaySnapshotter.open(root, store, {
      upperdirLabel: config.upperdir_label,
      syncRemove: config.sync_remove,
      remapIds,
      boot: await thisBoot(context.state),
      mountOptions: await overlayMountOptions(config.mount_options, root),
    });
    context.onClose(() => snapshotter.close());
    return snapshotter;
  },
});

/** The configured options, with `userxattr` and `index=off` where the kernel needs them and nobody said otherwise. */
export async function overlayMountOptions(configured: readonly string[], root: string): Promise<string[]> {
  const options = [...configured];
  const has = (name: string) => options.some((option) => option === name || option.startsWith(`${name}=`));
  if (!has('userxattr') && (await needsUserxattr(root))) options.push('userxattr');
  if (!has('index') && (await supportsIndex())) options.push('index=off');
  return options;
}
