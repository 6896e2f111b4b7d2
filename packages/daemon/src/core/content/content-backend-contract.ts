import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import type { BackendWriter, ContentBackend } from './content-store.ts';

/** How the contract gets at an implementation. */
export interface ContentBackendUnderTest {
  backend: ContentBackend;
  /** Closes it and opens it again on the same data, as a restarted daemon does. */
  reopen(): Promise<ContentBackend>;
  close(): Promise<void>;
}

const digestOf = (bytes: Uint8Array, algorithm = 'sha256') =>
  `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
const withCode = (code: Code, message?: RegExp) => (reason: unknown) => {
  assert.ok(hasCode(reason, code), `expected code ${code}, got ${reason}`);
  if (message) assert.match((reason as Error).message, message);
  return true;
};

/** What every ContentBackend has to do. Call it in a test file with a way to open a fresh, empty one. */
export function contentBackendContract(name: string, open: () => Promise<ContentBackendUnderTest>): void {
  describe(`content backend contract: ${name}`, () => {
    let under: ContentBackendUnderTest;
    let backend: ContentBackend;

    beforeEach(async () => {
      under = await open();
      backend = under.backend;
    });
    afterEach(() => under.close());

    const put = async (bytes: Uint8Array, ref = 'put') => {
      const writer = await backend.writer({ ref });
      await writer.write(bytes);
      return writer.commit();
    };
    const get = async (digest: string) => {
      await using reader = await backend.reader(digest);
      return Buffer.from(await reader.read(0, reader.size));
    };
    const writeAll = async (writer: BackendWriter, bytes: Uint8Array, step: number) => {
      for (let at = 0; at < bytes.length; at += step) await writer.write(bytes.subarray(at, at + step));
    };

    it('gives back what was written, of any size, in any steps', async () => {
      for (const [size, step] of [
        [0, 1],
        [1, 1],
        [65536, 65536],
        [65537, 1000],
        [3_000_001, 700_000],
        [5 << 20, 3 << 20],
      ] as const) {
        const bytes = randomBytes(size);
        const writer = await backend.writer({ ref: `size-${size}` });
        await writeAll(writer, bytes, step);
        assert.equal(await writer.digest(), digestOf(bytes));
        assert.equal(writer.status().offset, size);
        const done = await writer.commit({ size, expected: digestOf(bytes) });
        assert.deepEqual(done, { digest: digestOf(bytes), size });
        assert.deepEqual(await get(done.digest), bytes);
        assert.equal((await backend.info(done.digest)).size, size);
      }
      assert.deepEqual(await backend.listStatuses(), []);
    });

    it('takes sha384 and sha512, told first or at commit', async () => {
      for (const algorithm of ['sha384', 'sha512']) {
        const early = randomBytes(200_000);
        const first = await backend.writer({ ref: 'early', expected: digestOf(early, algorithm) });
        await first.write(early);
        assert.equal((await first.commit({ expected: digestOf(early, algorithm) })).digest, digestOf(early, algorithm));
        const late = randomBytes(100);
        const second = await backend.writer({ ref: 'late' });
        await second.write(late);
        assert.equal((await second.commit({ expected: digestOf(late, algorithm) })).digest, digestOf(late, algorithm));
        assert.deepEqual(await get(digestOf(late, algorithm)), late);
      }
    });

    it('puts a small blob in one step, where it can, again and again', async (t) => {
      if (!backend.put) return t.skip('this backend cannot');
      for (const bytes of [Buffer.from('small'), randomBytes(60_000)]) {
        const digest = digestOf(bytes);
        await Promise.all([backend.put!(digest, bytes), backend.put!(digest, bytes)]);
        assert.deepEqual(await get(digest), bytes);
        await put(bytes).catch(withCode(Code.AlreadyExists));
        backend = await under.reopen();
        assert.deepEqual(await get(digest), bytes);
      }
      const digest = digestOf(Buffer.from('by sha512'), 'sha512');
      await backend.put!(digest, Buffer.from('by sha512'));
      assert.equal((await backend.info(digest)).size, 9);
      assert.deepEqual(await backend.listStatuses(), []);
    });

    it('reads a part', async () => {
      const bytes = randomBytes(10_000);
      const { digest } = await put(bytes);
      await using reader = await backend.reader(digest);
      assert.equal(reader.size, 10_000);
      assert.deepEqual(Buffer.from(await reader.read(9_000, 5_000)), bytes.subarray(9_000));
      assert.deepEqual(Buffer.from(await reader.read(10, 20)), bytes.subarray(10, 30));
      assert.equal((await reader.read(10_000, 1)).length, 0);
    });

    it('keeps reading a blob that is deleted meanwhile', async () => {
      const bytes = randomBytes(1000);
      const { digest } = await put(bytes);
      await using reader = await backend.reader(digest);
      await backend.delete(digest);
      assert.deepEqual(Buffer.from(await reader.read(0, 1000)), bytes);
      await assert.rejects(backend.reader(digest), withCode(Code.NotFound));
    });

    it('resumes an ingest under the same ref, also after a restart', async () => {
      const bytes = randomBytes(400_000);
      const first = await backend.writer({ ref: 'resume', size: bytes.length });
      await first.write(bytes.subarray(0, 100_000));
      await first.close();
      await first.close();
      assert.equal((await backend.status('resume')).offset, 100_000);
      const second = await backend.writer({ ref: 'resume' });
      assert.equal(second.status().offset, 100_000);
      assert.equal(second.status().total, 400_000);
      await second.write(bytes.subarray(100_000, 300_000));
      await second.close();
      backend = await under.reopen();
      const statuses = await backend.listStatuses();
      assert.deepEqual(
        statuses.map(({ ref, offset, total }) => ({ ref, offset, total })),
        [{ ref: 'resume', offset: 300_000, total: 400_000 }],
      );
      const third = await backend.writer({ ref: 'resume', size: bytes.length });
      assert.equal(await third.digest(), digestOf(bytes.subarray(0, 300_000)));
      await third.write(bytes.subarray(300_000));
      assert.equal((await third.commit({ size: bytes.length })).digest, digestOf(bytes));
      assert.deepEqual(await get(digestOf(bytes)), bytes);
      await assert.rejects(backend.status('resume'), withCode(Code.NotFound));
    });

    it('starts over after truncate(0)', async () => {
      const writer = await backend.writer({ ref: 'truncate' });
      await writer.write(randomBytes(100_000));
      await writer.truncate(0);
      assert.equal(writer.status().offset, 0);
      const bytes = Buffer.from('again');
      await writer.write(bytes);
      assert.equal((await writer.commit()).digest, digestOf(bytes));
    });

    it('gives a ref to one writer at a time', async () => {
      const first = await backend.writer({ ref: 'locked' });
      await assert.rejects(
        backend.writer({ ref: 'locked' }),
        withCode(Code.Unavailable, /ref locked locked for .*since/),
      );
      const other = await backend.writer({ ref: 'other' });
      await other.close();
      await first.close();
      const second = await backend.writer({ ref: 'locked' });
      await second.close();
    });

    it('lets go of the ref when a commit fails, and keeps the ingest', async () => {
      const writer = await backend.writer({ ref: 'bad' });
      await writer.write(Buffer.from('abc'));
      await assert.rejects(
        writer.commit({ size: 4 }),
        withCode(Code.FailedPrecondition, /unexpected commit size 3, expected 4/),
      );
      const again = await backend.writer({ ref: 'bad' });
      assert.equal(again.status().offset, 3);
      const wrong = digestOf(Buffer.from('other'));
      await assert.rejects(
        again.commit({ expected: wrong }),
        withCode(Code.FailedPrecondition, /unexpected commit digest sha256:.*, expected sha256:/),
      );
      await assert.rejects(backend.info(wrong), withCode(Code.NotFound));
      await assert.rejects(backend.info(digestOf(Buffer.from('abc'))), withCode(Code.NotFound));
      await backend.abort('bad');
      await assert.rejects(backend.status('bad'), withCode(Code.NotFound));
      await assert.rejects(backend.abort('bad'), withCode(Code.NotFound));
    });

    it('refuses a closed writer', async () => {
      const writer = await backend.writer({ ref: 'closed' });
      await writer.close();
      await assert.rejects(writer.write(Buffer.from('x')), withCode(Code.FailedPrecondition));
      await assert.rejects(writer.commit(), withCode(Code.FailedPrecondition));
    });

    it('says AlreadyExists for a blob that is there, at the opening and at the commit', async () => {
      const bytes = randomBytes(500);
      const early = await backend.writer({ ref: 'second' });
      await early.write(bytes);
      const { digest } = await put(bytes);
      await assert.rejects(backend.writer({ ref: 'third', expected: digest }), withCode(Code.AlreadyExists));
      await assert.rejects(early.commit(), withCode(Code.AlreadyExists));
      assert.deepEqual(await backend.listStatuses(), []);
    });

    it('lets many writers of the same bytes race to one blob', async () => {
      const bytes = randomBytes(300_000);
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, async (_, i) => {
          const writer = await backend.writer({ ref: `race-${i}` });
          await writeAll(writer, bytes, 50_000);
          return writer.commit({ expected: digestOf(bytes) });
        }),
      );
      assert.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
      for (const result of results) if (result.status === 'rejected') withCode(Code.AlreadyExists)(result.reason);
      assert.deepEqual(await get(digestOf(bytes)), bytes);
    });

    it('lists blobs in order of digest, and deletes', async () => {
      const digests = [];
      for (let i = 0; i < 5; i++) digests.push((await put(Buffer.from(`blob ${i}`), `list-${i}`)).digest);
      const listed = await collect(backend.list());
      assert.deepEqual(
        listed.map((info) => info.digest),
        digests.toSorted(),
      );
      assert.ok(listed.every((info) => info.size === 6 && info.createdAt.seconds > 1_500_000_000n));
      await backend.delete(digests[0]!);
      assert.equal((await collect(backend.list())).length, 4);
      await assert.rejects(backend.delete(digests[0]!), withCode(Code.NotFound, /not found/));
      await assert.rejects(backend.info(digests[0]!), withCode(Code.NotFound));
    });

    it('takes only digests that are digests', async () => {
      for (const bad of ['', 'sha256', 'sha256:../../x', `sha256:${'A'.repeat(64)}`, `md5:${'0'.repeat(32)}`]) {
        await assert.rejects(backend.info(bad), withCode(Code.InvalidArgument), bad);
      }
    });

    it('takes an ingest that somebody else wrote, where it has a path', async (t) => {
      const writer = await backend.writer({ ref: 'adopt' });
      if (!writer.adopt || !writer.path) {
        await writer.close();
        t.skip('this backend has no local files');
        return;
      }
      const bytes = randomBytes(250_000);
      const { appendFile } = await import('node:fs/promises');
      await appendFile(writer.path, bytes);
      writer.adopt(bytes.length, digestOf(bytes));
      assert.equal(await writer.digest(), digestOf(bytes));
      const more = Buffer.from('more');
      await writer.write(more);
      assert.equal((await writer.commit()).digest, digestOf(Buffer.concat([bytes, more])));
    });
  });
}
