import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf } from '../request-context.ts';

const withCode = (code: Code, message?: RegExp) => (error: unknown) => {
  assert.ok(hasCode(error, code), `expected code ${code}, got ${error}`);
  if (message) assert.match((error as Error).message, message);
  return true;
};

describe('namespaces', () => {
  let meta: TestingMetadata;
  beforeEach(async () => {
    meta = await TestingMetadata.open();
  });
  afterEach(() => meta.close());

  it('are created, labelled, listed and deleted, each with its event', async () => {
    await meta.namespaces.create('n2', { k: 'v' });
    assert.deepEqual(await meta.namespaces.labels('n2'), { k: 'v' });
    assert.deepEqual(await meta.namespaces.update('n2', { k: '', z: '1' }, ['labels.k', 'labels.z']), { z: '1' });
    assert.deepEqual(await meta.namespaces.update('n2', { y: '2' }, []), { y: '2', z: '1' });
    await meta.namespaces.create('n1', {});
    assert.deepEqual(await meta.namespaces.list(), ['n1', 'n2']);
    await meta.namespaces.delete('n2');
    assert.deepEqual(await meta.namespaces.list(), ['n1']);
    assert.deepEqual(
      meta.topics().filter((topic) => topic.startsWith('n2 ')),
      ['n2 /namespaces/create', 'n2 /namespaces/update', 'n2 /namespaces/update', 'n2 /namespaces/delete'],
    );
  });

  it('answer with containerd’s codes', async () => {
    await meta.namespaces.create('a', {});
    await assert.rejects(
      meta.namespaces.create('a', {}),
      withCode(Code.AlreadyExists, /^namespace "a": already exists$/),
    );
    await assert.rejects(meta.namespaces.create('BAD!', {}), withCode(Code.InvalidArgument, /must match/));
    await assert.rejects(meta.namespaces.create('', {}), withCode(Code.InvalidArgument));
    const missing = withCode(Code.NotFound, /^namespace "b": not found$/);
    await assert.rejects(meta.namespaces.delete('b'), missing);
    assert.deepEqual(await meta.namespaces.labels('b'), {}, 'as with containerd: no labels, and no error');
    assert.ok(!(await meta.namespaces.list()).includes('b'), 'asking does not make one');
    await meta.namespaces.update('b', { made: 'by its label' }, ['labels.made']);
    assert.deepEqual(await meta.namespaces.labels('b'), { made: 'by its label' });
    await assert.rejects(meta.namespaces.update('BAD!', {}, []), withCode(Code.InvalidArgument, /must match/));
  });

  it('are not deleted while anything is left in them, and take their leases along', async () => {
    const ctx = contextOf('full');
    await meta.leases.create(ctx, { id: 'l', labels: {} });
    const held = contextOf('full', 'l');
    const digest = await meta.blob(held, 'blob');
    await meta.layer(held, 'snap');
    const target = { mediaType: 'x', digest, size: 1 };
    await meta.images.create(ctx, { name: 'img', labels: {}, target });
    await assert.rejects(
      meta.namespaces.delete('full'),
      withCode(
        Code.FailedPrecondition,
        /^namespace "full" must be empty, but it still has images, blobs, snapshots on "memory" snapshotter: failed precondition$/,
      ),
    );
    await meta.images.delete(ctx, 'img');
    await meta.content.delete(ctx, digest);
    await meta.snapshotter.remove(ctx, 'snap');
    await meta.namespaces.delete('full');
    await meta.namespaces.create('full', {});
    assert.deepEqual(await meta.leases.list(ctx), []);
  });

  it('choose the snapshotter for those who name none', async () => {
    assert.throws(
      () => meta.snapshotters.get(contextOf('a'), ''),
      withCode(Code.InvalidArgument, /^snapshotter not loaded: overlayfs: invalid argument$/),
    );
    await meta.namespaces.create('a', { 'containerd.io/defaults/snapshotter': 'memory' });
    assert.equal(meta.snapshotters.get(contextOf('a'), '').name, 'memory');
    assert.deepEqual(meta.snapshotters.names(), ['memory']);
  });
});

describe('leases', () => {
  it('hold resources until deleted', async () => {
    const meta = await TestingMetadata.open();
    const ctx = contextOf('ns');
    try {
      const { leases } = meta;
      await leases.create(ctx, { id: 'l', labels: { a: 'b' } });
      await assert.rejects(leases.create(ctx, { id: 'l', labels: {} }), withCode(Code.AlreadyExists));
      await leases.create(ctx, { id: 'm', labels: {} });
      assert.deepEqual(
        (await leases.list(ctx, ['labels.a==b'])).map(({ id }) => id),
        ['l'],
      );
      assert.deepEqual(
        (await leases.list(ctx, ['id==m', 'labels.a'])).map(({ id }) => id),
        ['l', 'm'],
      );
      const resources = [
        { type: 'content', id: 'sha256:1' },
        { type: 'ingests', id: 'ref' },
        { type: 'snapshots/memory', id: 'key' },
      ];
      for (const resource of resources) await leases.addResource(ctx, 'l', resource);
      await leases.addResource(ctx, 'l', resources[0]!);
      assert.deepEqual(await leases.listResources(ctx, 'l'), resources);
      await leases.deleteResource(ctx, 'l', resources[1]!);
      assert.deepEqual(await leases.listResources(ctx, 'l'), [resources[0], resources[2]]);
      for (const type of ['snapshots', 'snapshots/', 'content/x', 'what', '']) {
        await assert.rejects(leases.addResource(ctx, 'l', { type, id: 'x' }), withCode(Code.InvalidArgument));
      }
      const missing = withCode(Code.NotFound, /^lease "nope": not found$/);
      await assert.rejects(leases.addResource(ctx, 'nope', resources[0]!), missing);
      await assert.rejects(leases.listResources(ctx, 'nope'), missing);
      await assert.rejects(leases.delete(ctx, 'nope'), missing);
      await leases.delete(ctx, 'l', { synchronous: true });
      await leases.create(ctx, { id: 'l', labels: {} });
      assert.deepEqual(await leases.listResources(ctx, 'l'), []);
    } finally {
      await meta.close();
    }
  });
});
