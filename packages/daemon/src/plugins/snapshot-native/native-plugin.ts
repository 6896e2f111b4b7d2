import path from 'node:path';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { NativeSnapshotter } from './native-snapshotter.ts';

/** `io.containerd.snapshotter.v1.native`. */
export const nativePlugin = definePlugin({
  type: PluginTypes.Snapshotter,
  id: 'native',
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({ root_path: field.string() }),
  async init(context) {
    const root = context.config.root_path || context.root;
    context.meta.exports['root'] = root;
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
    const snapshotter = await NativeSnapshotter.open(root, store);
    context.onClose(() => snapshotter.close());
    return snapshotter;
  },
});
