import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { endProcess, eventually, processesMentioning, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const program = path.resolve(import.meta.dirname, '../../.cache/go-bin/containerd-fuse-overlayfs-grpc');

/** Why the snapshotter that nobody here wrote cannot run here, if it cannot. */
function missing(): string | false {
  if (process.getuid?.() !== 0) return 'containers need root';
  if (!existsSync(program))
    return 'containerd-fuse-overlayfs-grpc is not in .cache/go-bin (npm test does it when Go is there)';
  try {
    accessSync('/dev/fuse');
  } catch {
    return 'there is no /dev/fuse';
  }
  return existsSync('/usr/bin/fuse-overlayfs') ? false : 'fuse-overlayfs is not installed';
}

describe('the fuse-overlayfs snapshotter behind a proxy plugin', { skip: missing() }, () => {
  const temp = makeTempDir('fuse');
  const socket = path.join(temp.path, 'fuse-overlayfs.sock');
  const daemon = new TestDaemon(
    path.join(temp.path, 'd'),
    `[proxy_plugins.fuse-overlayfs]
  type = 'snapshot'
  address = '${socket}'
  capabilities = ['mine']
  exports = {root = '/somewhere'}
`,
  );
  let registry: TestRegistry;
  let image: string;
  let snapshotter: ChildProcess | undefined;

  const startSnapshotter = async () => {
    snapshotter = spawn(program, [socket, path.join(temp.path, 'fuse-root')], { stdio: 'ignore' });
    await eventually('the snapshotter listens', async () => (existsSync(socket) ? true : undefined));
  };

  before(async () => {
    const layouts = await buildTestImages(path.join(temp.path, 'images'), { few: true });
    registry = await TestRegistry.start(temp.path);
    image = await registry.fill(layouts.whiteouts, 'test/whiteouts:latest');
    // Nobody listens at the address yet.
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    if (snapshotter) await endProcess(snapshotter);
    await registry?.close();
    await eventually(
      'no process is left',
      () => (processesMentioning(temp.path).length === 0 ? true : undefined),
      10_000,
    ).catch(() => assert.deepEqual(processesMentioning(temp.path), []));
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  test('is listed before its process runs, and says that it does not', async () => {
    const ctr = new CtrSession(ctrClients()[0]!, daemon.address, 'early');
    for (const client of ctrClients().filter(({ missing }) => !missing)) {
      const session = new CtrSession(client, daemon.address, 'early');
      const details = await session.ok('plugins', 'ls', '-d', 'id==fuse-overlayfs');
      assert.match(details, /Type: +io\.containerd\.snapshotter\.v1\nID: +fuse-overlayfs\n/);
      assert.match(details, /Platforms: +linux\/\w+\n/);
      assert.match(details, new RegExp(`address +${socket}\n`));
      assert.match(details, /root +\/somewhere\n/);
      assert.match(details, /Capabilities:\s+mine/);
    }
    const { code, stderr } = await ctr.try('images', 'pull', '--plain-http', '--snapshotter', 'fuse-overlayfs', image);
    assert.notEqual(code, 0);
    assert.match(stderr, /proxy plugin fuse-overlayfs at .*fuse-overlayfs\.sock: connection error: connect ENOENT/);
    await startSnapshotter();
  });

  for (const [index, client] of ctrClients().entries()) {
    describe(client.name, { skip: client.missing ?? false }, () => tests(client, `fuse-${index}`));
  }

  function tests(client: CtrClient, namespace: string): void {
    const ctr = new CtrSession(client, daemon.address, namespace);
    const fuse = ['--snapshotter', 'fuse-overlayfs'];

    test('pulls, runs, commits, diffs and removes', async () => {
      await ctr.ok('images', 'pull', '--plain-http', ...client.pullFlags, ...fuse, image);
      const script = 'ls /data; ls /data/opaque; echo new > /data/written; head -1 /proc/mounts';
      const out = await ctr.ok('run', ...fuse, image, 'one', 'sh', '-c', script);
      assert.match(out, /^a\nb\nopaque\nsetuid\nshown\n(?:\S+) \/ fuse\.fuse-overlayfs rw/);
      await ctr.ok('snapshots', ...fuse, 'commit', 'mine', 'one');
      const diff = ctr.arguments(['snapshots', ...fuse, 'diff', 'mine']);
      const layer = await run('sh', ['-c', '"$0" "$@" | tar tz', client.file, ...diff]);
      assert.match(layer.stdout, /^data\/written$/m);
      await ctr.ok('containers', 'rm', '--keep-snapshot', 'one');
      const again = await ctr.ok('run', '--rm', ...fuse, image, 'two', 'cat', '/data/a');
      assert.equal(again, 'linked');
      await ctr.ok('snapshots', ...fuse, 'rm', 'mine');
      await ctr.ok('images', 'rm', '--sync', image);
      assert.equal((await ctr.ok('snapshots', ...fuse, 'ls')).trim().split('\n').length, 1);
    });
  }

  test('comes back after it was away', async () => {
    const ctr = new CtrSession(ctrClients()[0]!, daemon.address, 'again');
    await ctr.ok('images', 'pull', '--plain-http', '--snapshotter', 'fuse-overlayfs', image);
    await endProcess(snapshotter!, 'SIGKILL');
    const { code, stderr } = await ctr.try('run', '--rm', '--snapshotter', 'fuse-overlayfs', image, 'away', 'true');
    assert.notEqual(code, 0);
    assert.match(stderr, /proxy plugin fuse-overlayfs at .*: connection error/);
    await startSnapshotter();
    await ctr.ok('run', '--rm', '--snapshotter', 'fuse-overlayfs', image, 'back', 'true');
    await ctr.ok('images', 'rm', '--sync', image);
    assert.deepEqual(readdirSync(path.join(temp.path, 'fuse-root/snapshots')), []);
  });

  test('a filesystem whose process was killed is taken away with its container', async () => {
    const ctr = new CtrSession(ctrClients()[0]!, daemon.address, 'dead');
    const fuse = ['--snapshotter', 'fuse-overlayfs'];
    await ctr.ok('images', 'pull', '--plain-http', ...fuse, image);
    await ctr.ok('run', '-d', ...fuse, image, 'victim', 'sleep', '1000');
    const serving = processesMentioning(temp.path).filter(({ command }) => /fuse-overlayfs .*\/rootfs/.test(command));
    assert.equal(serving.length, 1, JSON.stringify(serving));
    process.kill(serving[0]!.pid, 'SIGKILL');
    await ctr.try('tasks', 'kill', '-s', 'KILL', 'victim');
    // It ends with the status of the task, which may have been faster: a page of its program that cannot be had is SIGBUS.
    const { code, stderr } = await ctr.try('tasks', 'rm', '--force', 'victim');
    assert.ok(code === 137 || code === 135, `${code}: ${stderr}`);
    await ctr.ok('containers', 'rm', 'victim');
    assert.equal(await ctr.ok('run', '--rm', ...fuse, image, 'next', 'cat', '/data/a'), 'linked');
    await ctr.ok('images', 'rm', '--sync', image);
    assert.deepEqual(mountsBeneath(temp.path), []);
  });
});
