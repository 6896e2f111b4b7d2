import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Code, hasCode, invalidArgument } from '@gantry/api';
import { Kind } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import type { CallContext } from '@gantry/rpc';
import type { NamespacedSnapshotter, SnapshotterRegistry } from '../core/snapshots/snapshot-service.ts';
import type { SnapshotInfo } from '../core/snapshots/snapshotter.ts';
import { snapshotsService } from './snapshots.ts';

const call = { namespace: 'test', metadata: new Map(), signal: new AbortController().signal } as unknown as CallContext;
const at = { seconds: 1n, nanos: 2 };
const info = (name: string): SnapshotInfo => ({
  name,
  kind: 'committed',
  parent: 'p',
  labels: { a: 'b' },
  createdAt: at,
  updatedAt: at,
});

/** Remembers what it was asked. */
function recorder() {
  const asked: unknown[][] = [];
  const mounts = [{ type: 'bind', source: '/x', target: '', options: ['ro'] }];
  const snapshotter = new Proxy({} as NamespacedSnapshotter, {
    get: (_, method: string) =>
      method === 'list'
        ? async function* (ctx: { namespace: string }, filters: string[]) {
            asked.push([method, ctx.namespace, filters]);
            for (let i = 0; i < 205; i++) yield info(`s${i}`);
          }
        : async (ctx: { namespace: string }, ...rest: unknown[]) => {
            asked.push([method, ctx.namespace, ...rest]);
            if (method === 'usage') return { inodes: 3, size: 4096 };
            if (method === 'stat' || method === 'update') return info('one');
            return mounts;
          },
  });
  const registry: SnapshotterRegistry = {
    names: () => ['overlayfs'],
    get(_, name) {
      if (name === 'overlayfs') return snapshotter;
      throw invalidArgument(`snapshotter not loaded: ${name}: invalid argument`);
    },
  };
  return { asked, mounts, service: snapshotsService(registry) };
}

/** A request of whatever method, with the fields that matter. */
// biome-ignore lint/suspicious/noExplicitAny: generated messages carry fields that no test needs
const request = (fields: object): any => ({ snapshotter: 'overlayfs', labels: {}, ...fields });

describe('Snapshots service', () => {
  it('passes every call on, with its options', async () => {
    const { asked, mounts, service } = recorder();
    const prepared = await service.prepare!(request({ key: 'k', parent: 'p', labels: { l: '1' } }), call);
    assert.deepEqual(prepared.mounts, mounts);
    assert.deepEqual((await service.view!(request({ key: 'v', parent: 'p' }), call)).mounts, mounts);
    assert.deepEqual((await service.mounts!(request({ key: 'k' }), call)).mounts, mounts);
    await service.commit!(request({ name: 'n', key: 'k', parent: '', labels: { l: '2' } }), call);
    await service.commit!(request({ name: 'n', key: 'k', parent: 'other' }), call);
    await service.remove!(request({ key: 'k' }), call);
    await service.cleanup!(request({}), call);
    assert.deepEqual(asked, [
      ['prepare', 'test', 'k', 'p', { labels: { l: '1' } }],
      ['view', 'test', 'v', 'p', { labels: {} }],
      ['mounts', 'test', 'k'],
      ['commit', 'test', 'n', 'k', { labels: { l: '2' } }],
      ['commit', 'test', 'n', 'k', { labels: {}, parent: 'other' }],
      ['remove', 'test', 'k'],
      ['cleanup', 'test'],
    ]);
  });

  it('tells of snapshots in wire terms', async () => {
    const { asked, service } = recorder();
    const stat = await service.stat!(request({ key: 'one' }), call);
    assert.equal(stat.info?.kind, Kind.COMMITTED);
    assert.deepEqual([stat.info?.name, stat.info?.parent, stat.info?.createdAt?.nanos], ['one', 'p', 2]);
    const usage = await service.usage!(request({ key: 'one' }), call);
    assert.deepEqual([usage.size, usage.inodes], [4096n, 3n]);
    await service.update!(
      request({ info: { name: 'one', labels: { x: 'y' } }, updateMask: { paths: ['labels.x'] } }),
      call,
    );
    assert.deepEqual(asked.at(-1), ['update', 'test', { name: 'one', labels: { x: 'y' } }, ['labels.x']]);
    await assert.rejects(
      async () => service.update!(request({}), call),
      (reason) => hasCode(reason, Code.InvalidArgument),
    );
  });

  it('lists in batches of 100', async () => {
    const { asked, service } = recorder();
    const sizes: number[] = [];
    for await (const { info } of service.list!(request({ filters: ['kind==active'] }), call)) sizes.push(info!.length);
    assert.deepEqual(sizes, [100, 100, 5]);
    assert.deepEqual(asked, [['list', 'test', ['kind==active']]]);
  });

  it('knows only snapshotters that are loaded', async () => {
    const { service } = recorder();
    await assert.rejects(async () => service.mounts!(request({ snapshotter: 'nope', key: 'k' }), call), {
      code: Code.InvalidArgument,
      message: /snapshotter not loaded: nope/,
    });
  });
});
