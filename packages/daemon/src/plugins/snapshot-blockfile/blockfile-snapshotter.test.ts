import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { mountAll, unmountAll } from '@gantry/mount';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { copyBlocks } from '../../core/snapshots/block-copy.ts';
import { snapshotterContract } from '../../core/snapshots/snapshotter-contract.ts';
import { killSnapshotter } from '../../core/snapshots/snapshotter-crash-contract.ts';
import { BlockfileSnapshotter, prepareScratch } from './blockfile-snapshotter.ts';

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'mounting needs root';
  try {
    execFileSync('mkfs.ext4', ['-V'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'mkfs.ext4 is not installed';
  }
}

describe('blockfile', { skip: missing() }, () => {
  const top = mkdtempSync(path.join(tmpdir(), 'gantry-blockfile-'));
  const scratch = path.join(top, 'ext4');
  before(() => {
    writeFileSync(scratch, '');
    truncateSync(scratch, 64 << 20);
    execFileSync('mkfs.ext4', ['-q', '-O', '^has_journal', scratch]);
    // An empty filesystem is what the contract calls empty.
    mkdirSync(path.join(top, 'mnt'));
    execFileSync('mount', ['-o', 'loop', scratch, path.join(top, 'mnt')]);
    execFileSync('rmdir', [path.join(top, 'mnt/lost+found')]);
    execFileSync('umount', [path.join(top, 'mnt')]);
  });
  after(() => rmSync(top, { recursive: true }));

  snapshotterContract(
    'blockfile',
    async () => {
      const root = mkdtempSync(path.join(top, 'root-'));
      await prepareScratch(root, scratch, false);
      const start = async () =>
        BlockfileSnapshotter.open(
          root,
          await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true }),
          {
            fsType: 'ext4',
            mountOptions: ['noatime'],
          },
        );
      let snapshotter = await start();
      return {
        snapshotter,
        async reopen() {
          await snapshotter.close();
          snapshotter = await start();
          return snapshotter;
        },
        async close() {
          await snapshotter.close();
          rmSync(root, { recursive: true });
        },
      };
    },
    { layers: 8, images: true },
  );

  it('commits what is still mounted elsewhere whole, and apart from what is written there later', async () => {
    const root = mkdtempSync(path.join(top, 'held-'));
    await prepareScratch(root, scratch, false);
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true });
    const snapshotter = await BlockfileSnapshotter.open(root, store, { fsType: 'ext4', mountOptions: [] });
    const inside = path.join(root, 'mnt');
    mkdirSync(inside);
    await mountAll(await snapshotter.prepare('work', ''), inside);
    for (let i = 0; i < 200; i++) writeFileSync(path.join(inside, `file-${i}`), randomBytes(5000));
    // A container that is being made has copies of all mounts for a while, which do not go when ours do.
    const holder = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', 'echo; exec cat'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(holder.stdout, 'data');
    await unmountAll(inside);
    await snapshotter.commit('done', 'work');
    const committed = path.join(root, 'snapshots/1');
    execFileSync('e2fsck', ['-fn', committed], { stdio: 'ignore' });
    const before = readFileSync(committed);
    const ended = once(holder, 'exit');
    writeFileSync(`/proc/${holder.pid}/root${inside}/late`, 'x');
    holder.stdin.end();
    await ended;
    assert.ok(before.equals(readFileSync(committed)));
    await mountAll(await snapshotter.prepare('next', 'done'), inside);
    assert.equal(readdirSync(inside).length, 200);
    await unmountAll(inside);
    await snapshotter.close();
    assert.deepEqual(readdirSync(root).sort(), ['metadata.lmdb', 'metadata.lmdb-lock', 'mnt', 'scratch', 'snapshots']);
  });

  it('copies the scratch file once, or again if told to', async () => {
    const root = mkdtempSync(path.join(top, 'scratch-'));
    await prepareScratch(root, scratch, false);
    const first = statSync(path.join(root, 'scratch')).ino;
    await prepareScratch(root, scratch, false);
    assert.equal(statSync(path.join(root, 'scratch')).ino, first);
    await prepareScratch(root, scratch, true);
    assert.notEqual(statSync(path.join(root, 'scratch')).ino, first);
    assert.deepEqual(readdirSync(root), ['scratch']);
  });

  it('copies data, and holes as holes', () => {
    const from = path.join(top, 'sparse');
    writeFileSync(from, 'start');
    truncateSync(from, 200 << 20);
    execFileSync('dd', [
      'if=/dev/urandom',
      `of=${from}`,
      'bs=1M',
      'count=3',
      'seek=100',
      'conv=notrunc',
      'status=none',
    ]);
    copyBlocks(from, path.join(top, 'copy'));
    execFileSync('cmp', [from, path.join(top, 'copy')]);
    assert.ok(statSync(path.join(top, 'copy')).blocks * 512 < 4 << 20);
    assert.throws(() => copyBlocks(from, path.join(top, 'copy')), /EEXIST/);
    execFileSync('cmp', [from, path.join(top, 'copy')]);
  });

  it('survives kill -9 at any moment: no answered snapshot lost, no file left after cleanup', () =>
    killSnapshotter({
      module: new URL('./testing-open.ts', import.meta.url).href,
      directory: top,
      onDisk: async (root) => readdirSync(path.join(root, 'snapshots')).length,
      viewsOnDisk: false,
      rounds: 3,
    }));
});
