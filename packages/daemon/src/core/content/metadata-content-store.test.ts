import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { sha256 } from '../metadata/testing-backends.ts';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf } from '../request-context.ts';

const withCode = (code: Code, message?: RegExp) => (error: unknown) => {
  assert.ok(hasCode(error, code), `expected code ${code}, got ${error}`);
  if (message) assert.match((error as Error).message, message);
  return true;
};
const bytes = Buffer.from('hello');
const digest = sha256(bytes);

describe('namespaced content', () => {
  const a = contextOf('a');
  const b = contextOf('b');
  const test = (name: string, policy: 'shared' | 'isolated', fn: (meta: TestingMetadata) => Promise<void>) =>
    it(name, async () => {
      const meta = await TestingMetadata.open(policy);
      try {
        await fn(meta);
      } finally {
        await meta.close();
      }
    });
  const text = async (meta: TestingMetadata, ctx = a) => {
    await using reader = await meta.content.reader(ctx, digest);
    return Buffer.from(await reader.read(0, reader.size)).toString();
  };

  test('is written, read, labelled, listed and deleted, with events', 'shared', async (meta) => {
    await meta.blob(a, 'hello', { k: 'v' });
    const info = await meta.content.info(a, digest);
    assert.deepEqual([info.size, info.labels], [5, { k: 'v' }]);
    assert.equal(await text(meta), 'hello');
    const updated = await meta.content.update(a, { digest, labels: { x: 'y', k: '' } }, ['labels.x', 'labels.k']);
    assert.deepEqual([updated.labels, updated.createdAt], [{ x: 'y' }, info.createdAt]);
    await assert.rejects(meta.content.update(a, { digest, labels: {} }, ['size']), withCode(Code.InvalidArgument));
    const list = async (...filters: string[]) => {
      const found: string[] = [];
      for await (const item of meta.content.list(a, filters)) found.push(item.digest);
      return found;
    };
    assert.deepEqual(await list('labels.x==y'), [digest]);
    assert.deepEqual(await list('size==5'), [digest]);
    assert.deepEqual(await list('labels.k'), []);
    await meta.content.delete(a, digest);
    await assert.rejects(
      meta.content.info(a, digest),
      withCode(Code.NotFound, /^content digest sha256:\w+: not found$/),
    );
    await assert.rejects(meta.content.reader(a, digest), withCode(Code.NotFound));
    await assert.rejects(meta.content.delete(a, digest), withCode(Code.NotFound));
    assert.deepEqual(meta.topics(), ['a /content/create', 'a /content/delete']);
  });

  test('of a small blob is recorded when it is whole, and held by the lease from then on', 'shared', async (meta) => {
    await meta.leases.create(a, { id: 'l', labels: {} });
    const leased = contextOf('a', 'l');
    const open = async () =>
      (await meta.content.wholeWriter(leased, { ref: 'r', size: 5, expected: digest })) ?? assert.fail('no writer');
    const broken = await open();
    await broken.write(Buffer.from('hal'));
    await assert.rejects(
      broken.write(bytes),
      withCode(Code.FailedPrecondition, /^unexpected commit size 8, expected 5/),
    );
    await broken.write(Buffer.from('lo'));
    await assert.rejects(broken.commit({ size: 5 }), withCode(Code.FailedPrecondition, /^unexpected commit digest/));
    const short = await open();
    await short.write(Buffer.from('hel'));
    await assert.rejects(short.commit(), withCode(Code.FailedPrecondition, /^unexpected commit size 3, expected 5/));
    assert.deepEqual([await meta.content.listStatuses(a), meta.backend.blobs.size, meta.events], [[], 0, []]);

    const [writer, other] = [await open(), await open()];
    for (const one of [writer, other]) {
      await one.write(Buffer.from('hel'));
      await one.write(Buffer.from('lo'));
    }
    const outcomes = await Promise.allSettled([
      writer.commit({ labels: { k: 'v' } }),
      other.commit(),
      // It must not take the bytes before their record is there.
      meta.gc.collect(),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    );
    assert.ok(hasCode((outcomes[1] as PromiseRejectedResult).reason, Code.AlreadyExists));
    assert.deepEqual((await meta.content.info(a, digest)).labels, { k: 'v' });
    assert.equal(await text(meta), 'hello');
    await meta.gc.collect();
    assert.deepEqual(await meta.digests('a'), [digest]);
    await meta.leases.delete(a, 'l');
    await meta.gc.collect();
    assert.deepEqual([await meta.digests('a'), meta.backend.blobs.size], [[], 0]);
  });

  test('has no such writer for what is there, was begun, is large or not known', 'isolated', async (meta) => {
    const writer = (options: object, ctx = a) => meta.content.wholeWriter(ctx, { ref: 'r', ...options });
    const known = { size: 5, expected: digest };
    assert.equal(await writer({ size: 5 }), undefined);
    assert.equal(await writer({ expected: digest }), undefined);
    assert.equal(await writer({ size: 1 << 20, expected: digest }), undefined);
    assert.ok(await writer(known));
    await (await meta.content.writer(a, { ref: 'r', ...known })).close();
    assert.equal(await writer(known), undefined);
    await meta.blob(b, 'hello');
    assert.equal(await writer({ ...known, ref: 'other' }), undefined);
  });

  test('is not seen by another namespace', 'shared', async (meta) => {
    await meta.blob(a, 'hello');
    await assert.rejects(meta.content.info(b, digest), withCode(Code.NotFound));
    await assert.rejects(meta.content.reader(b, digest), withCode(Code.NotFound));
    assert.deepEqual(await meta.digests('b'), []);
  });

  test('is there at once for whoever names the digest, if sharing is allowed', 'shared', async (meta) => {
    await meta.blob(a, 'hello');
    const writer = await meta.content.writer(b, { ref: 'r', expected: digest, size: 5 });
    assert.equal(writer.status().offset, 5);
    assert.equal(await writer.digest(), digest);
    await writer.commit({ expected: digest, size: 5, labels: { mine: 'yes' } });
    await writer.close();
    assert.equal(await text(meta, b), 'hello');
    assert.deepEqual((await meta.content.info(b, digest)).labels, { mine: 'yes' });
    assert.deepEqual(await meta.content.listStatuses(b), []);
  });

  test('has to be brought where namespaces are isolated, but for shareable ones', 'isolated', async (meta) => {
    await meta.blob(a, 'hello');
    const writer = await meta.content.writer(b, { ref: 'r', expected: digest, size: 5 });
    assert.equal(writer.status().offset, 0);
    await assert.rejects(writer.commit({ expected: digest, size: 5 }), withCode(Code.FailedPrecondition));
    await writer.write(bytes);
    await writer.commit({ expected: digest, size: 5 });
    await writer.close();
    assert.equal(await text(meta, b), 'hello');
    await meta.namespaces.update('a', { 'containerd.io/namespace.shareable': 'true' }, []);
    const shared = await meta.content.writer(contextOf('c'), { ref: 'r', expected: digest });
    assert.equal(shared.status().offset, 5);
    await shared.close();
  });

  test('opens no writer for what the namespace has; the lease of the call holds it then', 'shared', async (meta) => {
    await meta.blob(a, 'hello');
    await meta.leases.create(a, { id: 'l', labels: {} });
    await assert.rejects(
      meta.content.writer(contextOf('a', 'l'), { ref: 'again', expected: digest }),
      withCode(Code.AlreadyExists, /already exists$/),
    );
    assert.deepEqual(await meta.leases.listResources(a, 'l'), [{ type: 'content', id: digest }]);
    await meta.gc.collect();
    assert.equal(await text(meta), 'hello');
    assert.deepEqual(await meta.content.listStatuses(a), []);
  });

  test('says so at commit if it came meanwhile, and ends the ingest', 'shared', async (meta) => {
    const writer = await meta.content.writer(a, { ref: 'slow' });
    await writer.write(bytes);
    await meta.blob(a, 'hello');
    await assert.rejects(writer.commit({ expected: digest }), withCode(Code.AlreadyExists));
    await writer.close();
    assert.deepEqual(await meta.content.listStatuses(a), []);
    assert.equal(meta.backend.ingests.size, 0);
  });

  test('resumes ingests by ref, apart for each namespace', 'shared', async (meta) => {
    for (const [ctx, part] of [
      [a, 'hel'],
      [b, 'other'],
    ] as const) {
      const writer = await meta.content.writer(ctx, { ref: 'same', size: 5 });
      await writer.write(Buffer.from(part));
      await writer.close();
    }
    const status = await meta.content.status(a, 'same');
    assert.deepEqual([status.ref, status.offset, status.total], ['same', 3, 5]);
    assert.deepEqual(
      (await meta.content.listStatuses(b, ['ref==same'])).map(({ offset }) => offset),
      [5],
    );
    assert.deepEqual(await meta.content.listStatuses(b, ['ref==else']), []);
    const writer = await meta.content.writer(a, { ref: 'same' });
    await assert.rejects(meta.content.writer(a, { ref: 'same' }), withCode(Code.Unavailable));
    await writer.write(Buffer.from('lo'));
    assert.equal((await writer.commit()).digest, digest);
    await writer.close();
    await meta.content.abort(b, 'same');
    await assert.rejects(meta.content.status(b, 'same'), withCode(Code.NotFound, /^reference same: not found$/));
    await assert.rejects(meta.content.abort(b, 'same'), withCode(Code.NotFound));
    assert.equal(meta.backend.ingests.size, 0);
  });

  test('refuses what is no digest, and a lease that is not there, leaving nothing', 'shared', async (meta) => {
    for (const bad of ['', 'sha256', 'sha256:xyz', `md5:${'a'.repeat(32)}`, `sha256:${'A'.repeat(64)}`]) {
      await assert.rejects(meta.content.info(a, bad), withCode(Code.InvalidArgument));
    }
    await assert.rejects(meta.content.writer(contextOf('a', 'gone'), { ref: 'r' }), withCode(Code.NotFound, /^lease/));
    assert.deepEqual(await meta.content.listStatuses(a), []);
  });
});
