import path from 'node:path';
import { erofsHandler, loopHandler } from '@gantry/mount';
import { MetadataMounts } from '../../core/mounts/metadata-mounts.ts';
import type { MountManager } from '../../core/mounts/mount-manager.ts';
import { definePlugin, type PluginStatus } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';

const platforms = [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`];

/** `io.containerd.mount-handler.v1.erofs`. */
export const erofsMountHandler = definePlugin({
  type: PluginTypes.MountHandler,
  id: 'erofs',
  platforms,
  init: () => erofsHandler,
});

/** `io.containerd.mount-handler.v1.loop`, which containerd documents and has in its library only. */
export const loopMountHandler = definePlugin({
  type: PluginTypes.MountHandler,
  id: 'loop',
  platforms,
  init: () => loopHandler,
});

/** Where snapshotters are that have a `root_path` of their own. */
function snapshotterRoots(plugins: readonly PluginStatus[]): string[] {
  return plugins
    .filter(({ type, error }) => type === PluginTypes.Snapshotter && !error)
    .flatMap(({ meta }) => meta.exports['root'] ?? [])
    .filter((root) => root.startsWith('/') && root.length > 1);
}

/**
 * `io.containerd.mount-manager.v1.bolt`. The id is containerd's; activations are in the metadata, their mounts in the daemon's
 * state directory.
 */
export const mountManagerPlugin = definePlugin({
  type: PluginTypes.MountManager,
  id: 'bolt',
  requires: [PluginTypes.Metadata, PluginTypes.MountHandler],
  async init(context): Promise<MountManager> {
    const metadata = context.get(PluginTypes.Metadata);
    const mounts = await MetadataMounts.open({
      store: metadata.store,
      namespaces: metadata.namespaces,
      handlers: context.all(PluginTypes.MountHandler),
      targets: path.join(context.state, 't'),
      roots: [context.daemon.root, ...snapshotterRoots(context.statuses())],
      log: context.log,
      mutated: (deletion) => metadata.gc.mutated(deletion),
    });
    metadata.onSweep(() => mounts.sweep());
    return mounts;
  },
});
