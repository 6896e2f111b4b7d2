import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Plugin, type PluginContext, type PluginMeta, PluginSkip } from '../core/plugin/plugin.ts';
import type { Snapshotter } from '../core/snapshots/snapshotter.ts';
import { skippedSnapshotters } from './skipped-snapshotters.ts';
import { blockfilePlugin } from './snapshot-blockfile/blockfile-plugin.ts';
import { btrfsPlugin } from './snapshot-btrfs/btrfs-plugin.ts';
import { nativePlugin } from './snapshot-native/native-plugin.ts';
import { overlayfsPlugin, overlayMountOptions } from './snapshot-overlayfs/overlay-plugin.ts';

const skip = process.getuid?.() === 0 ? false : 'trying an overlay mount needs root';

describe('snapshotter plugins', { skip }, () => {
  let dir: string;
  const closers: (() => void | Promise<void>)[] = [];

  before(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'gantry-snapshot-plugins-'));
  });
  after(async () => {
    for (const close of closers) await close();
    await rm(dir, { recursive: true });
  });

  /** Starts a plugin with its defaults and these settings, as far as these plugins use their context. */
  const start = async (plugin: Plugin, settings: Record<string, unknown> = {}) => {
    const defaults = Object.entries(plugin.config?.fields ?? {}).map(([key, field]) => [key, field.default]);
    const meta: PluginMeta = { platforms: [], exports: {}, capabilities: [] };
    const context = {
      config: { ...Object.fromEntries(defaults), ...settings },
      root: path.join(dir, `${plugin.type}.${plugin.id}`),
      state: path.join(dir, `${plugin.type}.${plugin.id}-state`),
      meta,
      onClose: (fn: () => void | Promise<void>) => closers.push(fn),
    } as unknown as PluginContext<unknown>;
    return { instance: (await plugin.init(context)) as Snapshotter, meta, root: context.root };
  };

  it('start and say what they can', async () => {
    const overlay = await start(overlayfsPlugin);
    assert.equal(overlay.meta.exports['root'], overlay.root);
    assert.ok(overlay.meta.capabilities.includes('rebase'));
    assert.ok(overlay.meta.capabilities.includes('only-remap-ids'));
    const [mount] = await overlay.instance.prepare('key', '');
    assert.equal(mount?.source, path.join(overlay.root, 'snapshots/1/fs'));

    const native = await start(nativePlugin, { root_path: path.join(dir, 'elsewhere') });
    const [copy] = await native.instance.prepare('key', '');
    assert.equal(copy?.source, path.join(dir, 'elsewhere/snapshots/1'));
  });

  it('leave slow_chown to those who ask for it', async () => {
    const { meta } = await start(overlayfsPlugin, { slow_chown: true, root_path: path.join(dir, 'slow') });
    assert.ok(!meta.capabilities.includes('only-remap-ids'));
  });

  it('add only options that nobody set', async () => {
    assert.deepEqual(await overlayMountOptions(['index=on', 'volatile', 'userxattr'], dir), [
      'index=on',
      'volatile',
      'userxattr',
    ]);
  });

  it('skip where their filesystem or file is not, and leave nothing', async () => {
    const root_path = path.join(dir, 'nowhere/deep');
    const reasons = [
      [btrfsPlugin, { root_path }, /^path .*nowhere\/deep \(\w+\) must be a btrfs filesystem to be used with/],
      [blockfilePlugin, { root_path }, /^blockfile not configured, scratch_file must be given/],
    ] as const;
    for (const [plugin, settings, message] of reasons) {
      await assert.rejects(
        async () => start(plugin, settings),
        (reason) => reason instanceof PluginSkip && message.test(reason.message),
        plugin.id,
      );
    }
    assert.ok(!existsSync(path.join(dir, 'nowhere')));
    const scratch_file = path.join(dir, 'no-scratch');
    await assert.rejects(
      async () => start(blockfilePlugin, { root_path, scratch_file }),
      /failed to generate scratch file: .*no-scratch/,
    );
  });

  it('that are not built skip, with the reason', async () => {
    const expected: Record<string, RegExp> = {
      devmapper: /^devmapper not configured$/,
      zfs: /must be a zfs filesystem|gantry has no zfs snapshotter/,
    };
    for (const plugin of skippedSnapshotters) {
      await assert.rejects(
        async () => start(plugin),
        (reason) => reason instanceof PluginSkip && expected[plugin.id]!.test(reason.message),
        plugin.id,
      );
    }
    const [devmapper] = skippedSnapshotters;
    await assert.rejects(async () => start(devmapper!, { pool_name: 'pool' }), /gantry has no devmapper snapshotter/);
  });
});
