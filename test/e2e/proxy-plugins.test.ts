import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { alreadyExists } from '@gantry/api';
import { Controller } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import { Snapshots } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import { Exchange } from '../../packages/daemon/src/core/events/event-exchange.ts';
import { LmdbStore } from '../../packages/daemon/src/core/metadata/lmdb-store.ts';
import { MemoryController } from '../../packages/daemon/src/core/sandboxes/testing-controller.ts';
import type { NamespacedSnapshotter } from '../../packages/daemon/src/core/snapshots/snapshot-service.ts';
import { TestingPeer } from '../../packages/daemon/src/plugins/proxy/testing-peer.ts';
import { OverlaySnapshotter } from '../../packages/daemon/src/plugins/snapshot-overlayfs/overlay-snapshotter.ts';
import { sandboxControllersService } from '../../packages/daemon/src/services/sandbox-controllers.ts';
import { snapshotsService } from '../../packages/daemon/src/services/snapshots.ts';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestContainerd } from '../lib/containerd.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages, busyboxLayer } from '../lib/images.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'containers need root';
const clients = ctrClients();

describe('proxy plugins', { skip }, () => {
  const temp = makeTempDir('proxy');
  let registry: TestRegistry;
  let layouts: Awaited<ReturnType<typeof buildTestImages>>;
  let image: string;

  before(async () => {
    layouts = await buildTestImages(path.join(temp.path, 'images'), { few: true });
    registry = await TestRegistry.start(temp.path);
    image = await registry.fill(layouts.whiteouts, 'test/whiteouts:latest');
  });
  after(async () => {
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

  for (const [name, make, missing] of [
    ['a second gantryd', (directory: string) => new TestDaemon(directory), false],
    ['containerd 1.6', (directory: string) => new TestContainerd(directory), TestContainerd.missing()],
  ] as const) {
    describe(`content and differ of ${name}`, { skip: missing }, () =>
      farAway(make(path.join(temp.path, `2-${name.slice(0, 1)}`))),
    );
  }

  function farAway(second: TestDaemon | TestContainerd): void {
    const first = new TestDaemon(
      `${second.directory}-front`,
      `[proxy_plugins.behind]
  type = 'content'
  address = '${second.address}'
[proxy_plugins.unpacker]
  type = 'diff'
  address = '${second.address}'
[plugins.'io.containerd.service.v1.diff-service']
  default = ['unpacker']
`,
      `disabled_plugins = ['io.containerd.content.v1.content', 'io.containerd.differ.v1.walking']`,
    );
    before(async () => {
      await second.start();
      await first.start();
    });
    after(async () => {
      await first.stop();
      await second.stop();
    });

    const used = second instanceof TestDaemon ? clients : clients.filter(({ name }) => name === 'ctr 2.3.4');
    for (const [index, client] of used.entries()) {
      test(`${client.name} pulls and runs, all bytes being there`, { skip: client.missing ?? false }, () =>
        pullAndRun(client, `far-${index}`),
      );
    }

    async function pullAndRun(client: CtrClient, namespace: string): Promise<void> {
      const ctr = new CtrSession(client, first.address, namespace);
      const behind = new CtrSession(client, second.address, namespace);
      await ctr.ok('images', 'pull', '--plain-http', ...client.pullFlags, image);
      const blobs = (await ctr.ok('content', 'ls', '-q')).trim().split('\n').sort();
      assert.equal(blobs.length, 5);
      assert.deepEqual((await behind.ok('content', 'ls', '-q')).trim().split('\n').sort(), blobs);
      assert.equal(await ctr.ok('content', 'get', blobs[0]!), await behind.ok('content', 'get', blobs[0]!));
      const out = await ctr.ok('run', '--rm', image, 'one', 'sh', '-c', 'ls /data; cat /data/opaque/shown');
      assert.equal(out, 'a\nb\nopaque\nsetuid\nshown');
      const archive = path.join(temp.path, `${namespace}.tar`);
      await ctr.ok('images', 'export', archive, image);
      assert.match((await run('tar', ['tf', archive])).stdout, /^index\.json$/m);
      await ctr.ok('images', 'rm', '--sync', image);
      assert.equal(await behind.ok('content', 'ls', '-q'), '');
    }

    test('while it is away calls fail and say so; afterwards they work', async () => {
      const ctr = new CtrSession(clients[0]!, first.address, 'away');
      await second.kill();
      const { code, stderr } = await ctr.try('images', 'pull', '--plain-http', image);
      assert.notEqual(code, 0);
      assert.match(stderr, /proxy plugin behind at .*\.sock: connection error/);
      // What needs no bytes goes on.
      assert.match(await ctr.ok('plugins', 'ls', 'id==behind'), /io\.containerd\.content\.v1 +behind +linux\/\w+ +ok/);
      await second.start();
      await ctr.ok('images', 'pull', '--plain-http', image);
      assert.equal(await ctr.ok('run', '--rm', image, 'back', 'cat', '/data/a'), 'linked');
      await ctr.ok('images', 'rm', '--sync', image);
    });
  }

  describe('a snapshotter that pulls lazily', () => {
    const root = path.join(temp.path, 'lazy-root');
    let peer: TestingPeer;
    let overlay: OverlaySnapshotter;
    let daemon: TestDaemon;
    let busybox: string;
    let ready = 0;

    before(async () => {
      busybox = await registry.fill(layouts.busybox, 'test/busybox:latest');
      mkdirSync(root);
      overlay = await OverlaySnapshotter.open(root, await LmdbStore.open({ path: path.join(root, 'db') }), {
        mountOptions: ['index=off'],
      });
      const chainId = diffIdOf(layouts.busybox);
      const lazy: NamespacedSnapshotter = {
        name: 'lazy',
        async prepare(_, key, parent, options = {}) {
          const target = options.labels?.['containerd.io/snapshot.ref'];
          const mounts = await overlay.prepare(key, parent, options);
          if (target !== chainId) return mounts;
          busyboxLayer(mounts[0]!.source);
          await overlay.commit(target, key, options);
          ready++;
          throw alreadyExists(`target snapshot "${target}": already exists`);
        },
        stat: (_, key) => overlay.stat(key),
        update: (_, info, paths) => overlay.update(info, paths),
        usage: (_, key) => overlay.usage(key),
        mounts: (_, key) => overlay.mounts(key),
        view: (_, key, parent, options) => overlay.view(key, parent, options),
        commit: (_, name, key, options) => overlay.commit(name, key, options),
        remove: (_, key) => overlay.remove(key),
        list: () => overlay.list(),
        cleanup: () => overlay.cleanup(),
        flush: async () => {},
      };
      const service = snapshotsService({ names: () => ['lazy'], get: () => lazy });
      peer = await TestingPeer.open((grpc) => grpc.add(Snapshots, service));
      daemon = new TestDaemon(
        path.join(temp.path, 'l'),
        `[proxy_plugins.lazy]
  type = 'io.containerd.snapshotter.v1'
  address = 'unix://${peer.address}'
`,
      );
      await daemon.start();
    });
    after(async () => {
      await daemon?.stop();
      await peer?.close();
      await overlay?.close();
    });

    for (const [index, client] of clients.entries()) {
      const missing = client.missing ?? (client.transfer ? false : 'unpacks by itself');
      test(`${client.name} fetches no layer that it has`, { skip: missing }, async () => {
        const ctr = new CtrSession(client, daemon.address, `lazy-${index}`);
        const before = ready;
        peer.namespaces.length = 0;
        await ctr.ok('images', 'pull', '--plain-http', '--snapshotter', 'lazy', busybox);
        assert.equal(ready, before + 1);
        assert.ok(peer.namespaces.includes(`lazy-${index}`));
        // The manifest and the configuration.
        assert.equal((await ctr.ok('content', 'ls', '-q')).trim().split('\n').length, 2);
        const snapshots = await ctr.ok('snapshots', '--snapshotter', 'lazy', 'ls');
        assert.match(snapshots, new RegExp(`^${diffIdOf(layouts.busybox)} +Committed`, 'm'));
        assert.equal(await ctr.ok('run', '--rm', '--snapshotter', 'lazy', busybox, 'lazily', 'echo', 'hi'), 'hi\n');
        await ctr.ok('images', 'rm', '--sync', busybox);
        assert.equal((await ctr.ok('snapshots', '--snapshotter', 'lazy', 'ls')).trim().split('\n').length, 1);
      });
    }
  });

  describe('a sandbox controller behind a second gantryd', () => {
    const behind = new MemoryController();
    let peer: TestingPeer;
    let first: TestDaemon;
    let second: TestDaemon;
    const proxy = (address: string) => `[proxy_plugins.shim]\n  type = 'sandbox'\n  address = '${address}'\n`;

    before(async () => {
      const service = sandboxControllersService(new Map([['shim', behind]]), new Exchange());
      peer = await TestingPeer.open((grpc) => grpc.add(Controller, service));
      second = new TestDaemon(path.join(temp.path, 's2'), proxy(peer.address));
      first = new TestDaemon(path.join(temp.path, 's1'), proxy(second.address));
      await second.start();
      await first.start();
    });
    after(async () => {
      await first?.stop();
      await second?.stop();
      await peer?.close();
    });

    for (const client of clients.filter(({ name }) => name === 'ctr 2.3.4' || name === 'our ctr'))
      test(`is used by ${client.name}`, { skip: client.missing ?? false }, () => useController(client));

    async function useController(client: CtrClient): Promise<void> {
      const ctr = new CtrSession(client, first.address, 'pods');
      const config = path.join(temp.path, 'pod.json');
      await run('sh', ['-c', `echo '{}' > ${config}`]);
      const made = await ctr.try('sandboxes', 'run', config, 'pod');
      assert.equal(made.code, 0, made.stderr);
      assert.ok(behind.sandboxes.get('pods/pod')?.started);
      assert.match(await ctr.ok('sandboxes', 'ls'), /^pod\b/m);
      await ctr.ok('sandboxes', 'rm', '--force', 'pod');
      assert.equal(behind.sandboxes.size, 0);
    }
  });
});

/** Of an image with one layer: its chain id too. */
function diffIdOf(layout: string): string {
  const read = (digest: string) =>
    JSON.parse(readFileSync(path.join(layout, 'blobs', digest.replace(':', '/')), 'utf8'));
  const index = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8'));
  return read(read(index.manifests[0].digest).config.digest).rootfs.diff_ids[0];
}
