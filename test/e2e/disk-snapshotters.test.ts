import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { makeBtrfs, missingBtrfs } from '../../packages/daemon/src/plugins/snapshot-btrfs/testing-filesystem.ts';
import { type CtrClient, CtrSession, ctrClients, keptView } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

describe('the btrfs and blockfile snapshotters', { skip: missingBtrfs() }, () => {
  const temp = makeTempDir('disk');
  let filesystem: ReturnType<typeof makeBtrfs>;
  let daemon: TestDaemon;
  let registry: TestRegistry;
  let image: string;

  before(async () => {
    filesystem = makeBtrfs();
    const scratch = path.join(temp.path, 'scratch.ext4');
    writeFileSync(scratch, '');
    truncateSync(scratch, 64 << 20);
    await run('mkfs.ext4', ['-q', scratch]);
    daemon = new TestDaemon(
      path.join(temp.path, 'd'),
      `[plugins.'io.containerd.snapshotter.v1.btrfs']
  root_path = '${filesystem.directory}'
[plugins.'io.containerd.snapshotter.v1.blockfile']
  root_path = '${temp.path}/blocks'
  scratch_file = '${scratch}'
  fs_type = 'ext4'
  mount_options = ['noatime']
`,
    );
    const layouts = await buildTestImages(path.join(temp.path, 'images'), { few: true });
    registry = await TestRegistry.start(temp.path);
    image = await registry.fill(layouts.whiteouts, 'test/whiteouts:latest');
    await daemon.start();
  });

  after(async () => {
    await daemon?.stop();
    await registry?.close();
    await eventually(
      'no process is left',
      () => (processesMentioning(temp.path).length === 0 ? true : undefined),
      10_000,
    ).catch(() => assert.deepEqual(processesMentioning(temp.path), []));
    assert.deepEqual(mountsBeneath(temp.path), []);
    const loops = await run('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']);
    assert.ok(!loops.stdout.includes(temp.path), loops.stdout);
    filesystem.remove();
    await temp.remove();
  });

  const names = { btrfs: ['active', 'view', 'snapshots'], blockfile: ['snapshots'] };
  const rootOf = (snapshotter: keyof typeof names) =>
    snapshotter === 'btrfs' ? filesystem.directory : path.join(temp.path, 'blocks');

  for (const snapshotter of ['btrfs', 'blockfile'] as const) {
    for (const [index, client] of ctrClients().entries()) {
      test(`${client.name} uses ${snapshotter}`, { skip: client.missing ?? false }, () =>
        use(client, snapshotter, `${snapshotter}-${index}`),
      );
    }
    test(`${snapshotter} keeps its snapshots over kill -9 and leaves nothing after the last`, () =>
      survive(snapshotter));
  }

  async function use(client: CtrClient, snapshotter: keyof typeof names, namespace: string): Promise<void> {
    const ctr = new CtrSession(client, daemon.address, namespace);
    const by = ['--snapshotter', snapshotter];
    assert.match(await ctr.ok('plugins', 'ls', `id==${snapshotter}`), new RegExp(`${snapshotter} +linux/\\w+ +ok`));
    await ctr.ok('images', 'pull', '--plain-http', ...client.pullFlags, ...by, image);
    const script =
      'ls /data; ls /data/opaque; test /data/a -ef /data/b && echo linked; echo new > /data/written; head -1 /proc/mounts';
    const out = await ctr.ok('run', ...by, image, 'one', 'sh', '-c', script);
    const type = snapshotter === 'btrfs' ? 'btrfs' : 'ext4';
    assert.match(out, new RegExp(`^a\nb\nopaque\nsetuid\nshown\nlinked\n/dev/loop\\d+ / ${type} rw`));
    const diff = ctr.arguments(['snapshots', ...by, 'diff', 'one']);
    const layer = await run('sh', ['-c', '"$0" "$@" | tar tz', client.file, ...diff]);
    assert.match(layer.stdout, /^data\/written$/m);
    assert.ok(!layer.stdout.includes('data/setuid'), layer.stdout);
    await ctr.ok('snapshots', ...by, 'commit', 'mine', 'one');
    const mounts = path.join(temp.path, 'm');
    mkdirSync(mounts);
    await keptView(ctr, by, 'look', 'mine');
    assert.match(await ctr.ok('snapshots', ...by, 'info', 'look'), /"Parent": "mine"/);
    await ctr.ok('snapshots', ...by, 'label', 'look', 'containerd.io/snapshot/note=x');
    assert.match(await ctr.ok('snapshots', ...by, 'info', 'look'), /"containerd.io\/snapshot\/note": "x"/);
    assert.match(await ctr.ok('snapshots', ...by, 'tree'), /mine\n.*\\_ look/);
    const commands = await ctr.ok('snapshots', ...by, 'mounts', mounts, 'look');
    await run('sh', [
      '-ec',
      `${commands}\ntest "$(cat ${mounts}/data/written)" = new\numount ${mounts}; rmdir ${mounts}`,
    ]);
    const usage = await ctr.ok('snapshots', ...by, 'usage', 'mine');
    assert.match(usage, /^mine +[1-9]/m);
    await ctr.ok('snapshots', ...by, 'rm', 'look');
    await ctr.ok('snapshots', ...by, 'rm', 'mine');
    await ctr.ok('containers', 'rm', '--keep-snapshot', 'one');
    await ctr.ok('images', 'rm', '--sync', image);
    assert.equal((await ctr.ok('snapshots', ...by, 'ls')).trim().split('\n').length, 1);
  }

  async function survive(snapshotter: keyof typeof names): Promise<void> {
    const ctr = new CtrSession(ctrClients()[0]!, daemon.address, 'kill');
    const by = ['--snapshotter', snapshotter];
    await ctr.ok('images', 'pull', '--plain-http', ...by, image);
    await daemon.kill();
    await daemon.start();
    assert.equal(await ctr.ok('run', '--rm', ...by, image, 'after', 'cat', '/data/a'), 'linked');
    await ctr.ok('images', 'rm', '--sync', image);
    for (const name of names[snapshotter]) assert.deepEqual(readdirSync(path.join(rootOf(snapshotter), name)), []);
  }
});
