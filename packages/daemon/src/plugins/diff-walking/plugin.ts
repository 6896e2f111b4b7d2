import { archivePool } from '@gantry/archive';
import type { Differ } from '../../core/diff/differ.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { WalkingDiffer } from './walking-differ.ts';

/** `io.containerd.differ.v1.walking`: layers by reading every file. */
export const walkingDifferPlugin = definePlugin({
  type: PluginTypes.Differ,
  id: 'walking',
  requires: [PluginTypes.Metadata],
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  init(context): Differ {
    const { content } = context.get(PluginTypes.Metadata);
    return new WalkingDiffer({ content, pool: archivePool(), temp: context.daemon.temp, log: context.log });
  },
});
