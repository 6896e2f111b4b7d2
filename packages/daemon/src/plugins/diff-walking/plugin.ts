import { archivePool, chooseDecompressor } from '@gantry/archive';
import type { Differ } from '../../core/diff/differ.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { WalkingDiffer } from './walking-differ.ts';

/** `io.containerd.differ.v1.walking`: layers by reading every file. */
export const walkingDifferPlugin = definePlugin({
  type: PluginTypes.Differ,
  id: 'walking',
  requires: [PluginTypes.Metadata, PluginTypes.MountManager],
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({
    // Bytes that any layer may have when unpacked; 0: no limit.
    max_layer_size: field.integer(64 * 2 ** 30),
    // Larger ones may have this many times their packed size.
    max_layer_ratio: field.integer(100),
  }),
  init(context): Differ {
    const { content } = context.get(PluginTypes.Metadata);
    const { max_layer_size: most, max_layer_ratio: ratio } = context.config;
    context.log.debug(`using ${chooseDecompressor('gzip').name} for decompression`);
    return new WalkingDiffer({
      content,
      pool: archivePool(),
      temp: context.daemon.temp,
      mounts: context.get(PluginTypes.MountManager),
      log: context.log,
      processors: context.daemon.streamProcessors,
      sizeLimit: (packed) => (most > 0 ? Math.max(most, packed * ratio) : undefined),
    });
  },
});
