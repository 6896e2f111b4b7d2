import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode, jsonAny, TypeUrl } from '@gantry/api';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf } from '../request-context.ts';
import type { ContainerInput } from './container-store.ts';

const input = (id: string, extra: Partial<ContainerInput> = {}): ContainerInput => ({
  id,
  labels: { app: id },
  image: 'img',
  runtime: { name: 'io.containerd.runc.v2', options: jsonAny('containerd.runc.v1.Options', 'opts') },
  spec: jsonAny(TypeUrl.RuntimeSpec, '{"ociVersion":"1.2.0"}'),
  snapshotter: 'memory',
  snapshotKey: id,
  extensions: {},
  sandboxId: '',
  ...extra,
});
const withCode = (code: Code, message?: string) => (error: unknown) => {
  assert.ok(hasCode(error, code), `expected code ${code}, got ${error}`);
  if (message) assert.equal((error as Error).message, message);
  return true;
};

describe('containers', () => {
  const ctx = contextOf('ns');
  let meta: TestingMetadata;
  beforeEach(async () => {
    meta = await TestingMetadata.open();
  });
  afterEach(() => meta.close());

  it('are kept to the byte, listed by filters, deleted, each with its event', async () => {
    const extensions = { 'my.ext': jsonAny('some/type', new Uint8Array([0, 255, 128])) };
    const made = await meta.containers.create(ctx, input('one', { extensions, sandboxId: 'pod' }));
    await meta.containers.create(ctx, input('two'));
    const found = await meta.containers.get(ctx, 'one');
    assert.deepEqual(found, made);
    assert.deepEqual([...found.extensions['my.ext']!.value], [0, 255, 128]);
    const ids = async (...filters: string[]) => (await meta.containers.list(ctx, filters)).map(({ id }) => id);
    assert.deepEqual(await ids(), ['one', 'two']);
    assert.deepEqual(await ids('id~="^(one|three)$"'), ['one']);
    assert.deepEqual(await ids('sandboxid==pod'), ['one']);
    assert.deepEqual(await ids('runtime.name==io.containerd.runc.v2,snapshotter==memory,snapshotkey==two'), ['two']);
    assert.deepEqual(await ids('labels.app==two', 'image==other'), ['two']);
    await meta.containers.delete(ctx, 'one');
    assert.deepEqual(meta.topics(), ['ns /containers/create', 'ns /containers/create', 'ns /containers/delete']);
  });

  it('answer with containerd’s codes and words', async () => {
    const { containers } = meta;
    const missing = withCode(Code.NotFound, 'container "nope" in namespace "ns": not found');
    await assert.rejects(containers.get(ctx, 'nope'), missing);
    await assert.rejects(containers.delete(ctx, 'nope'), missing);
    await assert.rejects(containers.update(ctx, input('nope'), []), missing);
    await containers.create(ctx, input('taken'));
    await assert.rejects(containers.create(ctx, input('taken')), withCode(Code.AlreadyExists));
    await assert.rejects(
      containers.create(ctx, input('a/b')),
      withCode(
        Code.InvalidArgument,
        'create container failed validation: container.ID: identifier "a/b" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument',
      ),
    );
    const invalid = withCode(Code.InvalidArgument);
    await assert.rejects(containers.create(ctx, input('x'.repeat(77))), invalid);
    await assert.rejects(containers.create(ctx, input('x', { runtime: { name: '' } })), invalid);
    await assert.rejects(containers.create(ctx, input('x', { spec: undefined })), invalid);
    await assert.rejects(containers.create(ctx, input('x', { snapshotter: '' })), invalid);
    await assert.rejects(containers.create(ctx, input('x', { extensions: { '': jsonAny('t', '') } })), invalid);
    await assert.rejects(containers.create(ctx, input('x', { labels: { k: 'v'.repeat(5000) } })), invalid);
  });

  it('are updated by field mask; what is fixed cannot change', async () => {
    const made = await meta.containers.create(ctx, input('c'));
    const { containers } = meta;
    const update = (paths: string[], extra: Partial<ContainerInput>) =>
      containers.update(ctx, input('c', extra), paths);
    assert.deepEqual((await update(['labels.app'], { labels: {} })).labels, {});
    assert.deepEqual((await update(['labels'], { labels: { b: '1' } })).labels, { b: '1' });
    assert.equal((await update(['image'], { image: 'new', labels: { x: 'y' } })).image, 'new');
    const ext = { 'io.x': jsonAny('t', 'v') };
    assert.deepEqual(Object.keys((await update(['extensions.io.x'], { extensions: ext })).extensions), ['io.x']);
    assert.deepEqual(Object.keys((await update(['extensions.io.x'], {})).extensions), []);
    const spec = jsonAny(TypeUrl.RuntimeSpec, '{}');
    const changed = await update(['spec', 'snapshotkey'], { spec, snapshotKey: 'other' });
    assert.deepEqual([changed.spec, changed.snapshotKey, changed.createdAt], [spec, 'other', made.createdAt]);
    await assert.rejects(update(['runtime'], {}), withCode(Code.InvalidArgument));
    await assert.rejects(update([], { snapshotter: 'elsewhere' }), withCode(Code.InvalidArgument));
    await assert.rejects(update([], { runtime: { name: 'other' } }), withCode(Code.InvalidArgument));
    assert.equal(meta.topics().filter((topic) => topic === 'ns /containers/update').length, 6);
  });
});

describe('sandboxes', () => {
  it('are kept, listed, updated and deleted', async () => {
    const meta = await TestingMetadata.open();
    const ctx = contextOf('ns');
    try {
      await meta.namespaces.create('ns', { 'containerd.io/defaults/sandboxer': 'shim' });
      const sandbox = {
        id: 's',
        labels: { a: 'b' },
        runtime: { name: 'r' },
        sandboxer: '',
        extensions: {},
        spec: jsonAny('t', 'v'),
      };
      const made = await meta.sandboxes.create(ctx, sandbox);
      assert.equal(made.sandboxer, 'shim');
      assert.deepEqual((await meta.sandboxes.get(ctx, 's')).spec, sandbox.spec);
      await assert.rejects(meta.sandboxes.create(ctx, sandbox), withCode(Code.AlreadyExists));
      await assert.rejects(meta.sandboxes.create(ctx, { ...sandbox, id: 'a/b' }), withCode(Code.InvalidArgument));
      assert.equal((await meta.sandboxes.list(ctx, ['sandboxer==shim,labels.a==b'])).length, 1);
      assert.equal((await meta.sandboxes.list(ctx, ['id==other'])).length, 0);
      const updated = await meta.sandboxes.update(ctx, { ...sandbox, labels: {} }, ['labels.a']);
      assert.deepEqual([updated.labels, updated.createdAt], [{}, made.createdAt]);
      await assert.rejects(meta.sandboxes.update(ctx, sandbox, ['id']), withCode(Code.InvalidArgument));
      await meta.sandboxes.delete(ctx, 's');
      await assert.rejects(meta.sandboxes.get(ctx, 's'), withCode(Code.NotFound, 'sandbox "s" not found: not found'));
    } finally {
      await meta.close();
    }
  });
});
