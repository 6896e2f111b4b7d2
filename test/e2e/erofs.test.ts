import assert from 'node:assert/strict';
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@gantry/client';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const kernelHasErofs = /^\s*erofs$/m.test(readFileSync('/proc/filesystems', 'utf8'));
const skip =
  process.getuid?.() !== 0
    ? 'containers need root'
    : kernelHasErofs
      ? false
      : 'the kernel has no erofs (modprobe erofs)';

/** Everything of a file system that a client can see, but for what the runtime puts there. */
const listing = [
  'sh',
  '-c',
  'find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /etc/resolv.conf \\) -prune -o -print | sort | ' +
    'while read -r f; do [ "$f" = / ] || stat -c "%n %F %a %u:%g %Y %h" "$f"; [ -f "$f" ] && md5sum "$f"; done; true',
];

describe('erofs snapshotter and differ', { skip }, () => {
  const temp = makeTempDir('e2e-erofs');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const snapshots = path.join(daemon.root, 'io.containerd.snapshotter.v1.erofs/snapshots');
  const targets = path.join(daemon.state, 'io.containerd.mount-manager.v1.bolt/t');
  let registry: TestRegistry;
  const image = { busybox: '', whiteouts: '', 'many-layers': '' };

  before(async () => {
    // Root of a user namespace has to reach its root file system.
    chmodSync(temp.path, 0o711);
    const layouts = await buildTestImages(path.join(temp.path, 'images'));
    registry = await TestRegistry.start(temp.path);
    for (const name of Object.keys(image) as (keyof typeof image)[]) {
      image[name] = await registry.fill(layouts[name], `test/${name}:latest`);
    }
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await registry?.close();
    // A shim that a killed daemon had just started notices by itself that nobody comes for it.
    await eventually(
      'no process of the daemon is left',
      () => (processesMentioning(daemon.directory).length === 0 ? true : undefined),
      60_000,
    );
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  for (const client of ctrClients()) {
    // Clients before 2.2 do not know the mount manager, which these mounts need.
    const missing = client.name === 'ctr 1.6' ? 'ctr 1.6 does not know mounts with templates' : client.missing;
    describe(client.name, { skip: missing ?? false }, () => clientTests(client, client.name.replaceAll(/\W+/g, '-')));
  }

  test('kills of the daemon over pulls and runs leave nothing behind', async () => {
    const client = ctrClients()[0]!;
    const ctr = new CtrSession(client, daemon.address, 'killed');
    for (let round = 0; round < 2; round++) {
      const name = `killed-${round}`;
      const work = (async () => {
        await ctr.try('images', 'pull', '--plain-http', '--snapshotter', 'erofs', image.whiteouts);
        await ctr.try('run', '-d', '--snapshotter', 'erofs', image.whiteouts, name, 'sleep', '1000');
      })();
      await sleep(300 + round * 500);
      await daemon.kill();
      await work;
      await daemon.start();
      await ctr.ok('images', 'pull', '--plain-http', '--snapshotter', 'erofs', image.whiteouts);
    }
    for (const line of (await ctr.ok('tasks', 'ls', '-q')).split('\n').filter(Boolean)) {
      await ctr.ok('tasks', 'delete', '--force', line).catch(() => undefined);
    }
    for (const line of (await ctr.ok('containers', 'ls', '-q')).split('\n').filter(Boolean)) {
      await ctr.ok('containers', 'delete', line);
    }
    for (const line of (await ctr.ok('leases', 'ls', '-q')).split('\n').filter(Boolean)) {
      await ctr.ok('leases', 'delete', line);
    }
    await ctr.ok('images', 'rm', '--sync', image.whiteouts);
    // Clients that looked for users in an image when the daemon died could not say that they had done.
    const connection = await Client.connect({ address: daemon.address, namespace: 'killed' });
    try {
      for await (const { name } of connection.mounts.list()) {
        assert.match(name, /^ctr-/);
        await connection.mounts.deactivate(name);
      }
    } finally {
      await connection.close();
    }
    assert.deepEqual(mountsBeneath(targets), []);
    assert.equal((await ctr.ok('snapshots', '--snapshotter', 'erofs', 'ls')).trim().split('\n').length, 1);
    const left = readdirSync(snapshots).filter((id) => !existsSync(path.join(snapshots, id, 'layer.erofs')));
    assert.deepEqual(left, []);
    assert.deepEqual(readdirSync(targets), []);
  });

  function clientTests(client: CtrClient, namespace: string): void {
    const ctr = new CtrSession(client, daemon.address, namespace);
    const pull = (name: string, snapshotter: string): Promise<string> =>
      ctr.ok('images', 'pull', '--plain-http', ...client.pullFlags, '--snapshotter', snapshotter, name);

    test('pulls layers into images that fsck.erofs finds well, and runs them', async () => {
      // One client is enough for the 111 layers.
      for (const name of Object.values(image)) {
        if (client.own || name !== image['many-layers']) await pull(name, 'erofs');
      }
      const files = readdirSync(snapshots).map((id) => path.join(snapshots, id, 'layer.erofs'));
      const images = files.filter((file) => existsSync(file));
      assert.ok(images.length >= 113, `${images.length} images`);
      if (existsSync('/usr/bin/fsck.erofs')) {
        for (const file of images.slice(0, 4)) await run('fsck.erofs', [file]);
      }
      assert.equal(
        await ctr.ok('run', '--rm', '--snapshotter', 'erofs', image.busybox, 'hello', 'echo', 'hello'),
        'hello\n',
      );
      // containerd's ctr looks for users in the image by a mount of its own, whose options are one page.
      if (!client.own) return;
      const deep = [
        'run',
        '--rm',
        '--snapshotter',
        'erofs',
        image['many-layers'],
        'deep',
        'sh',
        '-c',
        'ls /layers | wc -l',
      ];
      assert.equal(await ctr.ok(...deep), '110\n');
    });

    test('shows what overlayfs shows, whiteouts and all', async () => {
      await pull(image.whiteouts, 'overlayfs');
      const shown: string[] = [];
      for (const snapshotter of ['overlayfs', 'erofs']) {
        shown.push(
          await ctr.ok('run', '--rm', '--snapshotter', snapshotter, image.whiteouts, `list-${snapshotter}`, ...listing),
        );
      }
      assert.ok(shown[0]!.length > 1000);
      assert.equal(shown[1], shown[0]);
    });

    test('maps ids of a user namespace over images', async () => {
      const map = ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536', '--remap-labels'];
      const look = ['sh', '-c', 'stat -c %u /etc/passwd; touch /new && stat -c %u /new; cat /proc/self/uid_map'];
      const shown = await ctr.ok('run', '--rm', '--snapshotter', 'erofs', ...map, image.busybox, 'mapped', ...look);
      assert.match(shown, /^0\n0\n +0 +100000 +65536\n$/);
    });

    test('a task keeps its mounts over a kill of the daemon, and leaves none when it is deleted', async () => {
      const name = 'lasting';
      await ctr.ok('run', '-d', '--snapshotter', 'erofs', image.whiteouts, name, 'sleep', '1000');
      assert.ok(mountsBeneath(targets).length >= 2);
      await daemon.kill();
      await daemon.start();
      assert.match(await ctr.ok('tasks', 'ls'), /lasting +\d+ +RUNNING/);
      assert.match(await ctr.ok('tasks', 'exec', '--exec-id', 'x', name, 'cat', '/etc/passwd'), /www-data/);
      await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', name);
      await eventually('the task has stopped', async () =>
        /lasting +\d+ +STOPPED/.test(await ctr.ok('tasks', 'ls')) ? true : undefined,
      );
      await ctr.ok('tasks', 'delete', name).catch(() => undefined);
      assert.deepEqual(mountsBeneath(targets), []);
      await ctr.ok('containers', 'delete', name);
    });
  }
});
