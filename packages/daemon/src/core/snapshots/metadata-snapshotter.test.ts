import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { alreadyExists, Code, hasCode } from '@gantry/api';
import { dropLostSnapshots } from '../metadata/recover.ts';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf } from '../request-context.ts';

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const withCode = (code: Code, message?: RegExp) => (error: unknown) => {
  assert.ok(hasCode(error, code), `expected code ${code}, got ${error}`);
  if (message) assert.match((error as Error).message, message);
  return true;
};

describe('namespaced snapshots', () => {
  const ctx = contextOf('ns');
  let meta: TestingMetadata;
  beforeEach(async () => {
    meta = await TestingMetadata.open();
  });
  afterEach(() => meta.close());
  const backendKeys = () => [...meta.bytesBelow.snapshots.keys()];

  it('are prepared, committed, viewed and removed, with events', async () => {
    const { snapshotter } = meta;
    const mounts = await snapshotter.prepare(ctx, 'work', '', {
      labels: { mine: 'x', 'containerd.io/snapshot/y': 'z' },
    });
    assert.equal(mounts.length, 1);
    assert.deepEqual(Object.values(meta.bytesBelow.snapshots.get(backendKeys()[0]!)!.labels), ['z']);
    assert.equal((await snapshotter.stat(ctx, 'work')).kind, 'active');
    await snapshotter.commit(ctx, 'base', 'work', { labels: { l: '1' } });
    await assert.rejects(
      snapshotter.stat(ctx, 'work'),
      withCode(Code.NotFound, /^snapshot work does not exist: not found$/),
    );
    await snapshotter.view(ctx, 'look', 'base');
    await snapshotter.prepare(ctx, 'next', 'base');
    assert.deepEqual(
      (await collect(snapshotter.list(ctx))).map(({ name, kind, parent }) => [name, kind, parent]),
      [
        ['base', 'committed', ''],
        ['look', 'view', 'base'],
        ['next', 'active', 'base'],
      ],
    );
    assert.deepEqual((await collect(snapshotter.list(ctx, ['kind==view', 'labels.l==1']))).length, 2);
    assert.deepEqual((await collect(snapshotter.list(ctx, ['parent==base,name==next']))).length, 1);
    const updated = await snapshotter.update(ctx, { name: 'base', labels: { l: '2' } }, ['labels.l']);
    assert.deepEqual(updated.labels, { l: '2' });
    assert.deepEqual(await snapshotter.usage(ctx, 'base'), { inodes: 1, size: 4096 });
    await assert.rejects(
      snapshotter.remove(ctx, 'base'),
      withCode(Code.FailedPrecondition, /cannot remove snapshot with child/),
    );
    for (const key of ['look', 'next', 'base']) await snapshotter.remove(ctx, key);
    assert.deepEqual(backendKeys(), []);
    assert.deepEqual(meta.topics(), [
      'ns /snapshot/prepare',
      'ns /snapshot/commit',
      'ns /snapshot/prepare',
      ...Array<string>(3).fill('ns /snapshot/remove'),
    ]);
  });

  it('answer with containerd’s codes, leaving nothing behind below', async () => {
    const { snapshotter } = meta;
    await meta.layer(ctx, 'base');
    const before = backendKeys();
    await assert.rejects(snapshotter.prepare(ctx, 'k', 'nope'), withCode(Code.NotFound));
    await assert.rejects(snapshotter.prepare(ctx, 'base', ''), withCode(Code.AlreadyExists));
    await assert.rejects(snapshotter.prepare(contextOf('ns', 'gone'), 'k', ''), withCode(Code.NotFound, /^lease/));
    await assert.rejects(snapshotter.commit(ctx, 'x', 'base'), withCode(Code.FailedPrecondition));
    await assert.rejects(snapshotter.commit(ctx, 'x', 'nope'), withCode(Code.NotFound));
    await assert.rejects(snapshotter.remove(ctx, 'nope'), withCode(Code.NotFound));
    await assert.rejects(snapshotter.mounts(ctx, 'nope'), withCode(Code.NotFound));
    await assert.rejects(
      snapshotter.update(ctx, { name: 'base', labels: {} }, ['parent']),
      withCode(Code.InvalidArgument),
    );
    assert.deepEqual(backendKeys(), before);
    await snapshotter.prepare(ctx, 'k', '');
    await assert.rejects(snapshotter.prepare(ctx, 'j', 'k'), withCode(Code.InvalidArgument));
    await assert.rejects(snapshotter.commit(ctx, 'base', 'k'), withCode(Code.AlreadyExists));
  });

  it('may have one key in every namespace, and one winner when several are at the same', async () => {
    await meta.layer(ctx, 'base');
    await meta.layer(contextOf('other'), 'base');
    assert.deepEqual(await meta.layers('other'), ['base']);
    const tries = await Promise.allSettled([1, 2, 3, 4].map(() => meta.snapshotter.prepare(ctx, 'same', 'base')));
    assert.equal(tries.filter(({ status }) => status === 'fulfilled').length, 1);
    assert.equal(backendKeys().length, 3);
  });

  it('say that a target is there, recorded or only below', async () => {
    const labels = { 'containerd.io/snapshot.ref': 'target' };
    const { snapshotter, bytesBelow } = meta;
    // What a lazy-pulling snapshotter does: it has the target, commits it under the key, and refuses.
    const prepare = bytesBelow.prepare.bind(bytesBelow);
    bytesBelow.prepare = async (key, parent, options) => {
      if (options?.labels?.['containerd.io/snapshot.ref'] !== 'target') return prepare(key, parent, options);
      await prepare(key, parent, options);
      await bytesBelow.commit(`remote-${key}`, key, { labels: options.labels });
      throw alreadyExists('target snapshot "target": already exists');
    };
    await assert.rejects(snapshotter.prepare(ctx, 'extract', '', { labels }), withCode(Code.AlreadyExists));
    assert.equal((await snapshotter.stat(ctx, 'target')).kind, 'committed');
    await assert.rejects(snapshotter.stat(ctx, 'extract'), withCode(Code.NotFound));
    await assert.rejects(
      snapshotter.prepare(ctx, 'again', '', { labels }),
      withCode(Code.AlreadyExists, /^target snapshot "target": already exists$/),
    );
    await snapshotter.prepare(ctx, 'on top', 'target');
  });

  it('as steps are noted above and below at once: one without the other is taken back', async () => {
    const { snapshotter, bytesBelow } = meta;
    Object.assign(bytesBelow, { flush: async () => {} });
    const step = { ...ctx, step: true };
    await meta.layer(ctx, 'base');
    const before = backendKeys();
    await assert.rejects(
      snapshotter.prepare({ ...contextOf('ns', 'gone'), step: true }, 'k', 'base'),
      withCode(Code.NotFound),
    );
    assert.deepEqual(backendKeys(), before);
    const prepare = bytesBelow.prepare.bind(bytesBelow);
    bytesBelow.prepare = () => Promise.reject(alreadyExists('no room below'));
    await assert.rejects(snapshotter.prepare(step, 'k', 'base'), withCode(Code.AlreadyExists, /^no room below$/));
    await assert.rejects(snapshotter.stat(ctx, 'k'), withCode(Code.NotFound));
    bytesBelow.prepare = prepare;
    assert.equal(meta.topics().filter((topic) => topic === 'ns /snapshot/prepare').length, 1);
    await snapshotter.prepare(step, 'k', 'base');
    assert.equal((await snapshotter.stat(ctx, 'k')).parent, 'base');
    assert.equal(backendKeys().length, before.length + 1);
    await snapshotter.remove(ctx, 'k');
    await snapshotter.remove(ctx, 'base');
    assert.deepEqual(backendKeys(), []);
  });

  it('lose their record at start if the snapshotter does not have them', async () => {
    await meta.layer(ctx, 'base');
    await meta.snapshotter.prepare(ctx, 'lost', 'base');
    await meta.bytesBelow.remove(backendKeys().at(-1)!);
    await dropLostSnapshots(meta.store, meta.snapshotter, meta.log);
    assert.deepEqual(await meta.layers('ns'), ['base']);
    await meta.snapshotter.remove(ctx, 'base');
  });
});
