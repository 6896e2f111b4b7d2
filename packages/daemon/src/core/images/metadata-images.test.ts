import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf } from '../request-context.ts';

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;
const target = { mediaType: 'application/vnd.oci.image.index.v1+json', digest: digest('a'), size: 304 };
const withCode = (code: Code, message?: string) => (error: unknown) => {
  assert.ok(hasCode(error, code), `expected code ${code}, got ${error}`);
  if (message) assert.equal((error as Error).message, message);
  return true;
};

describe('images', () => {
  const ctx = contextOf('ns');
  let meta: TestingMetadata;
  beforeEach(async () => {
    meta = await TestingMetadata.open();
  });
  afterEach(() => meta.close());

  it('are created, found, listed by filters, deleted, each with its event', async () => {
    const labels = { a: 'b' };
    const made = await meta.images.create(ctx, { name: 'x:1', labels, target });
    assert.deepEqual(await meta.images.get(ctx, 'x:1'), made);
    assert.deepEqual(made.target, target);
    await meta.images.create(ctx, { name: 'y:1', labels: {}, target: { ...target, digest: digest('b') } });
    const names = async (...filters: string[]) => (await meta.images.list(ctx, filters)).map(({ name }) => name);
    assert.deepEqual(await names(), ['x:1', 'y:1']);
    assert.deepEqual(await names('name==x:1'), ['x:1']);
    assert.deepEqual(await names('labels.a==b', `target.digest==${digest('b')}`), ['x:1', 'y:1']);
    assert.deepEqual(await names('labels.a,target.mediatype~=index'), ['x:1']);
    assert.deepEqual(await meta.images.list(contextOf('other')), []);
    await meta.images.delete(ctx, 'x:1', { target: target.digest });
    assert.deepEqual(await names(), ['y:1']);
    assert.deepEqual(meta.topics(), ['ns /images/create', 'ns /images/create', 'ns /images/delete']);
    assert.deepEqual(await meta.namespaces.list(), ['ns']);
  });

  it('answer with containerd’s codes and words', async () => {
    await meta.images.create(ctx, { name: 'x', labels: {}, target });
    const { images } = meta;
    await assert.rejects(images.get(ctx, 'nope'), withCode(Code.NotFound, 'image "nope": not found'));
    await assert.rejects(images.delete(ctx, 'nope'), withCode(Code.NotFound, 'image "nope": not found'));
    await assert.rejects(images.delete(ctx, 'x', { target: digest('c') }), withCode(Code.NotFound));
    const create = (image: Partial<Parameters<typeof images.create>[1]>) =>
      images.create(ctx, { name: 'z', labels: {}, target, ...image });
    await assert.rejects(create({ name: 'x' }), withCode(Code.AlreadyExists, 'image "x": already exists'));
    await assert.rejects(create({ name: '' }), withCode(Code.InvalidArgument));
    await assert.rejects(create({ target: { ...target, digest: 'sha256:short' } }), withCode(Code.InvalidArgument));
    await assert.rejects(create({ target: { ...target, size: 0 } }), withCode(Code.InvalidArgument));
    await assert.rejects(create({ target: { ...target, mediaType: '' } }), withCode(Code.InvalidArgument));
    await assert.rejects(create({ labels: { k: 'v'.repeat(4096) } }), withCode(Code.InvalidArgument));
    await assert.rejects(images.list(ctx, ['name=x']), withCode(Code.InvalidArgument));
    await assert.rejects(
      images.create(contextOf('ns', 'gone'), { name: 'w', labels: {}, target }),
      withCode(Code.NotFound, 'lease "gone": not found'),
    );
    await assert.rejects(images.get(ctx, 'w'), withCode(Code.NotFound));
  });

  it('are updated by field mask', async () => {
    await meta.images.create(ctx, { name: 'x', labels: { a: '1', b: '2' }, target });
    const update = (
      paths: string[],
      labels: Record<string, string>,
      next: typeof target & { annotations?: Record<string, string> } = target,
    ) => meta.images.update(ctx, { name: 'x', labels, target: next }, paths);
    assert.deepEqual((await update(['labels.a'], { a: '9', b: '9' })).labels, { a: '9', b: '2' });
    assert.deepEqual((await update(['labels.b'], {})).labels, { a: '9' });
    assert.deepEqual((await update(['labels.x.y/z'], { 'x.y/z': '1' })).labels, { a: '9', 'x.y/z': '1' });
    const moved = await update(['target'], {}, { ...target, digest: digest('b') });
    assert.deepEqual([moved.target.digest, moved.labels], [digest('b'), { a: '9', 'x.y/z': '1' }]);
    assert.deepEqual((await update(['annotations.k'], {}, { ...target, annotations: { k: 'v' } })).target, {
      ...target,
      digest: digest('b'),
      annotations: { k: 'v' },
    });
    const replaced = await update([], { only: 'this' });
    assert.deepEqual([replaced.labels, replaced.target], [{ only: 'this' }, target]);
    await assert.rejects(update(['name'], {}), withCode(Code.InvalidArgument));
    assert.ok(replaced.createdAt.seconds > 0n);
  });

  it('keep the time they are told, and join the lease of the call', async () => {
    await meta.leases.create(ctx, { id: 'l', labels: {} });
    const createdAt = { seconds: 5n, nanos: 7 };
    const made = await meta.images.create(contextOf('ns', 'l'), { name: 'x', labels: {}, target, createdAt });
    assert.deepEqual([made.createdAt, made.updatedAt], [createdAt, createdAt]);
    assert.deepEqual(await meta.leases.listResources(ctx, 'l'), [{ type: 'images', id: 'x' }]);
  });
});
