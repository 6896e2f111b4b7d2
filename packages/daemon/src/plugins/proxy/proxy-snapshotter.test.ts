import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { Snapshots } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { contextOf } from '../../core/request-context.ts';
import type { NamespacedSnapshotter } from '../../core/snapshots/snapshot-service.ts';
import type { Snapshotter } from '../../core/snapshots/snapshotter.ts';
import { snapshotterContract } from '../../core/snapshots/snapshotter-contract.ts';
import { snapshotsService } from '../../services/snapshots.ts';
import { OverlaySnapshotter } from '../snapshot-overlayfs/overlay-snapshotter.ts';
import { ProxyConnection } from './proxy-connection.ts';
import { ProxySnapshotter } from './proxy-snapshotter.ts';
import { TestingPeer } from './testing-peer.ts';

/** A snapshotter as a plugin's process serves it: under one name, without namespaces. */
function served(name: string, snapshotter: () => Snapshotter) {
  const flat: NamespacedSnapshotter = {
    name,
    stat: (_, key) => snapshotter().stat(key),
    update: (_, info, paths) => snapshotter().update(info, paths),
    usage: (_, key) => snapshotter().usage(key),
    mounts: (_, key) => snapshotter().mounts(key),
    prepare: (_, key, parent, options) => snapshotter().prepare(key, parent, options),
    view: (_, key, parent, options) => snapshotter().view(key, parent, options),
    commit: (_, to, key, options) => snapshotter().commit(to, key, options),
    remove: (_, key) => snapshotter().remove(key),
    list: () => snapshotter().list(),
    cleanup: async () => snapshotter().cleanup?.(),
    flush: async () => snapshotter().flush?.(),
  };
  return snapshotsService({
    names: () => [name],
    get(_, wanted) {
      assert.equal(wanted, name);
      return flat;
    },
  });
}

async function overlayPeer() {
  const root = await mkdtemp(path.join(tmpdir(), 'gantry-proxied-'));
  const start = async () =>
    OverlaySnapshotter.open(root, await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true }), {
      mountOptions: ['index=off'],
    });
  let snapshotter = await start();
  const peer = await TestingPeer.open((grpc) =>
    grpc.add(
      Snapshots,
      served('lazy', () => snapshotter),
    ),
  );
  return {
    peer,
    async restart() {
      await peer.stop();
      await snapshotter.close();
      snapshotter = await start();
      await peer.start();
    },
    async close() {
      await peer.close();
      await snapshotter.close();
      await rm(root, { recursive: true });
    },
  };
}

snapshotterContract(
  'proxy',
  async () => {
    const { peer, restart, close } = await overlayPeer();
    const proxy = new ProxySnapshotter(new ProxyConnection('lazy', peer.address), 'lazy');
    return {
      snapshotter: proxy,
      async reopen() {
        await restart();
        return proxy;
      },
      async close() {
        await proxy.close();
        await close();
      },
    };
  },
  { rebase: true },
);

it('a proxied snapshotter may be away, and is told for whom it works', async () => {
  const { peer, close } = await overlayPeer();
  const proxy = new ProxySnapshotter(new ProxyConnection('lazy', `unix://${peer.address}`), 'lazy');
  try {
    await peer.stop();
    const away = (error: unknown) =>
      hasCode(error, Code.Unavailable) &&
      /proxy plugin lazy at unix:.*peer\.sock: connection error/.test(error.message);
    await assert.rejects(proxy.stat('x'), away);
    await assert.rejects(async () => {
      for await (const _ of proxy.list()) assert.fail();
    }, away);
    await peer.start();
    peer.namespaces.length = 0;
    await proxy.prepare('k', '', {}, contextOf('tenant'));
    await proxy.remove('k');
    assert.deepEqual(peer.namespaces, ['tenant', undefined]);
    const signal = AbortSignal.abort(new Error('gave up'));
    await assert.rejects(proxy.stat('x', { namespace: 'tenant', signal }), (error) => hasCode(error, Code.Canceled));
  } finally {
    await proxy.close();
    await close();
  }
});
