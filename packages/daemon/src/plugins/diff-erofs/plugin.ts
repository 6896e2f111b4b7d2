import { archivePool } from '@gantry/archive';
import type { Differ } from '../../core/diff/differ.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { WalkingDiffer } from '../diff-walking/walking-differ.ts';
import { kernelHasErofs } from '../snapshot-erofs/layer-files.ts';
import { ErofsDiffer } from './erofs-differ.ts';

/** `io.containerd.differ.v1.erofs`, with containerd's settings. Images are written here; mkfs.erofs is not needed. */
export const erofsDifferPlugin = definePlugin({
  type: PluginTypes.Differ,
  id: 'erofs',
  requires: [PluginTypes.Metadata, PluginTypes.MountManager],
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({
    /** Options of mkfs.erofs, which is not run: they are named in a warning. */
    mkfs_options: field.strings([]),
    enable_tar_index: field.boolean(false),
    enable_dmverity: field.boolean(false),
    // As the walking differ's.
    max_layer_size: field.integer(64 * 2 ** 30),
    max_layer_ratio: field.integer(100),
  }),
  async init(context): Promise<Differ> {
    const { config, log } = context;
    if (!(await kernelHasErofs())) throw new PluginSkip('EROFS unsupported, please `modprobe erofs`');
    if (config.enable_dmverity) throw new PluginSkip('dm-verity is not yet built in gantry');
    if (config.mkfs_options.length > 0) {
      log.warn('mkfs_options have no effect: images are written without mkfs.erofs', { options: config.mkfs_options });
    }
    const { content } = context.get(PluginTypes.Metadata);
    const mounts = context.get(PluginTypes.MountManager);
    const pool = archivePool();
    const { max_layer_size: most, max_layer_ratio: ratio } = config;
    return new ErofsDiffer({
      content,
      pool,
      mounts,
      walking: new WalkingDiffer({ content, pool, mounts, temp: context.daemon.temp, log }),
      tarIndex: config.enable_tar_index,
      processors: context.daemon.streamProcessors,
      sizeLimit: (packed) => (most > 0 ? Math.max(most, packed * ratio) : undefined),
      log,
    });
  },
});
