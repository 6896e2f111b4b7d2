import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { mountAll, unmountAll } from '@gantry/mount';
import { lookupMount } from '@gantry/sys';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { copyBlocks } from '../../core/snapshots/block-copy.ts';
import type { SnapshotterUnderTest } from '../../core/snapshots/snapshotter-contract.ts';
import { snapshotterContract } from '../../core/snapshots/snapshotter-contract.ts';
import { killSnapshotter } from '../../core/snapshots/snapshotter-crash-contract.ts';
import { BtrfsSnapshotter } from './btrfs-snapshotter.ts';
import { createSubvolume, snapshotSubvolume } from './subvolumes.ts';
import { makeBtrfs, missingBtrfs } from './testing-filesystem.ts';

const skip = missingBtrfs();

describe('btrfs', { skip }, () => {
  let filesystem: ReturnType<typeof makeBtrfs>;
  before(() => {
    filesystem = makeBtrfs();
  });
  after(() => filesystem.remove());

  const open = async () => {
    const root = mkdtempSync(path.join(filesystem.directory, 'root-'));
    const start = async () =>
      BtrfsSnapshotter.open(
        root,
        lookupMount(filesystem.directory)!.source,
        await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true }),
      );
    let snapshotter = await start();
    return {
      root,
      snapshotter,
      async reopen() {
        await snapshotter.close();
        snapshotter = await start();
        return snapshotter;
      },
      // Read-only subvolumes are in it: it goes with its filesystem.
      close: () => snapshotter.close(),
    } satisfies SnapshotterUnderTest & { root: string };
  };

  snapshotterContract('btrfs', open);

  it('takes away what a killed daemon left, and subvolumes that a container made', async () => {
    const { root, snapshotter, close } = await open();
    const inside = path.join(root, 'merged');
    mkdirSync(inside);
    await mountAll(await snapshotter.prepare('work', ''), inside);
    await createSubvolume(inside, 'nested');
    writeFileSync(path.join(inside, 'nested/file'), 'x');
    // Committed but still mounted: the subvolume that it was is gone, and nothing can be written to the committed one.
    await snapshotter.commit('done', 'work');
    assert.throws(() => writeFileSync(path.join(inside, 'late'), 'x'), /ENOENT/);
    assert.deepEqual(readdirSync(path.join(root, 'snapshots/1')), ['nested']);
    assert.deepEqual(readdirSync(path.join(root, 'active')), []);
    await unmountAll(inside);
    rmdirSync(inside);

    await snapshotSubvolume(path.join(root, 'snapshots/1'), path.join(root, 'active'), '1', false);
    await snapshotSubvolume(path.join(root, 'snapshots/1'), path.join(root, 'snapshots'), '77', true);
    await createSubvolume(path.join(root, 'view'), '78');
    await snapshotter.cleanup();
    assert.deepEqual([...readdirSync(path.join(root, 'active')), ...readdirSync(path.join(root, 'view'))], []);
    assert.deepEqual(readdirSync(path.join(root, 'snapshots')), ['1']);
    await snapshotter.remove('done');
    assert.ok(!execFileSync('btrfs', ['subvolume', 'list', root], { encoding: 'utf8' }).includes(path.basename(root)));
    await close();
  });

  it('block files share their blocks on it', () => {
    const from = path.join(filesystem.directory, 'from');
    const to = path.join(filesystem.directory, 'to');
    execFileSync('dd', ['if=/dev/urandom', `of=${from}`, 'bs=1M', 'count=4', 'status=none']);
    copyBlocks(from, to);
    execFileSync('cmp', [from, to]);
    // Total, exclusive, shared.
    const [, , , shared] = execFileSync('btrfs', ['filesystem', 'du', '--raw', '-s', to], { encoding: 'utf8' }).match(
      /(\d+) +(\d+) +(\d+) /,
    )!;
    assert.equal(Number(shared), 4 << 20);
  });

  it('survives kill -9 at any moment: no answered snapshot lost, no subvolume left after cleanup', () =>
    killSnapshotter({
      module: new URL('./testing-open.ts', import.meta.url).href,
      directory: filesystem.directory,
      onDisk: async (root) =>
        ['active', 'view', 'snapshots'].reduce((sum, name) => sum + readdirSync(path.join(root, name)).length, 0),
      viewsOnDisk: false,
      rounds: 3,
    }));
});
