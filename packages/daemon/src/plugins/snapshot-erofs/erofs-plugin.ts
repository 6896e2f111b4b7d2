import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { failedPrecondition } from '@gantry/api';
import { archivePool } from '@gantry/archive';
import { parseSize, supportsIdmappedMounts } from '@gantry/mount';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { VerityMode } from './erofs-mounts.ts';
import { ErofsSnapshotter } from './erofs-snapshotter.ts';
import { verityProblem } from './file-flags.ts';
import { kernelHasErofs } from './layer-files.ts';
import { hasDmVerity } from './verity-format.ts';

const verityModes = ['', 'auto', 'on', 'off'];

/** `io.containerd.snapshotter.v1.erofs`, with containerd's settings. */
export const erofsPlugin = definePlugin({
  type: PluginTypes.Snapshotter,
  id: 'erofs',
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({
    root_path: field.string(),
    ovl_mount_options: field.strings([]),
    enable_fsverity: field.boolean(false),
    set_immutable: field.boolean(false),
    /** Bytes (`20GiB`) of an ext4 image for each active snapshot; '' for a directory. */
    default_size: field.string(),
    /** `auto` (also ''), `on` or `off`. */
    dmverity_mode: field.string('', (value) => (verityModes.includes(value) ? undefined : '"auto", "on", or "off"')),
  }),
  async init(context) {
    const { config, meta } = context;
    const root = config.root_path || context.root;
    const writableSize = config.default_size === '' ? 0 : parseSize(config.default_size);
    const verityMode = (config.dmverity_mode || 'auto') as VerityMode;
    if (verityMode === 'on' && !(await hasDmVerity())) {
      throw failedPrecondition("dmverity_mode is 'on' but dm-verity is not supported on this system");
    }
    await mkdir(root, { recursive: true, mode: 0o700 });
    if (!(await kernelHasErofs())) throw new PluginSkip('EROFS unsupported, please `modprobe erofs`');
    const problem = config.enable_fsverity ? await verityProblem(root) : undefined;
    if (problem !== undefined) {
      throw failedPrecondition(`fsverity is not supported on the filesystem of "${root}": ${problem}`);
    }
    meta.capabilities.push('only-remap-ids');
    const remapIds = await supportsIdmappedMounts(root);
    if (remapIds) meta.capabilities.push('remap-ids');
    meta.exports['root'] = root;
    meta.capabilities.push('rebase');
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
    const snapshotter = await ErofsSnapshotter.open(root, store, {
      overlayOptions: config.ovl_mount_options,
      writableSize,
      verityMode,
      fsverity: config.enable_fsverity,
      immutable: config.set_immutable,
      remapIds,
      pool: archivePool(),
      log: context.log,
    });
    context.onClose(() => snapshotter.close());
    return snapshotter;
  },
});
