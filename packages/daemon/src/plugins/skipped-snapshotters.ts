import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { FS_MAGIC, statfs } from '@gantry/sys';
import { field, schema } from '../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { Snapshotter } from '../core/snapshots/snapshotter.ts';

// Snapshotters that containerd has and Gantry does not. They are in the list of plugins, so that their tables in
// a configuration are known, and say why they do not run: first what the machine or the configuration lacks.

const platforms = [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`];

export const devmapperPlugin = definePlugin({
  type: PluginTypes.Snapshotter,
  id: 'devmapper',
  platforms,
  config: schema({
    root_path: field.string(),
    pool_name: field.string(),
    base_image_size: field.string(),
    async_remove: field.boolean(false),
    discard_blocks: field.boolean(false),
    fs_type: field.string(),
    fs_options: field.string(),
  }),
  init({ config }): Snapshotter {
    if (!config.pool_name) throw new PluginSkip('devmapper not configured');
    throw new PluginSkip('devmapper is configured, but gantry has no devmapper snapshotter');
  },
});

export const zfsPlugin = definePlugin({
  type: PluginTypes.Snapshotter,
  id: 'zfs',
  platforms,
  config: schema({ root_path: field.string() }),
  async init(context): Promise<Snapshotter> {
    throw await onFilesystem('zfs', FS_MAGIC.ZFS, context.config.root_path || context.root);
  },
});

async function onFilesystem(name: string, magic: number, root: string): Promise<PluginSkip> {
  const parent = path.dirname(root);
  await mkdir(parent, { recursive: true });
  if (statfs(parent).type !== magic) {
    return new PluginSkip(`path ${root} must be a ${name} filesystem to be used with the ${name} snapshotter`);
  }
  return new PluginSkip(`${root} is on ${name}, but gantry has no ${name} snapshotter`);
}

/** All of them. */
export const skippedSnapshotters = [devmapperPlugin, zfsPlugin];
