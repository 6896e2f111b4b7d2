import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { BatchedWrites } from './batched-writes.ts';

/** A writer that settles later than it is asked, and reads its bytes only then. */
function slowWriter(failAt = Number.POSITIVE_INFINITY) {
  const written: Buffer[] = [];
  let calls = 0;
  return {
    written,
    async write(bytes: Uint8Array): Promise<void> {
      if (calls++ === failAt) throw new Error('disk full');
      await new Promise((resolve) => setImmediate(resolve));
      written.push(Buffer.from(bytes));
    },
  };
}

test('chunks of every size come out in order, by the megabyte, and unharmed by what follows', async () => {
  const writer = slowWriter();
  const source = randomBytes(3_500_000);
  let told = 0;
  const batches = new BatchedWrites(writer, source.length, (bytes) => {
    told += bytes;
  });
  for (let at = 0, size = 1; at < source.length; at += size, size = (size * 7 + 13) % 1_500_000) {
    const chunk = Buffer.from(source.subarray(at, at + size));
    await batches.add(chunk);
    chunk.fill(0);
  }
  await batches.finish();
  assert.equal(told, source.length);
  assert.ok(Buffer.concat(writer.written).equals(source));
  assert.deepEqual(
    writer.written.map(({ length }) => length),
    [1 << 20, 1 << 20, 1 << 20, source.length - (3 << 20)],
  );
});

test('a write that fails is told of at the next one or in the end, and nothing is told as written', async () => {
  const batches = new BatchedWrites(slowWriter(0), 10, () => assert.fail('told of a failed write'));
  await batches.add(Buffer.alloc(10));
  await assert.rejects(batches.add(Buffer.alloc(10)), /disk full/);
  await assert.rejects(batches.finish(), /disk full/);
});

test('nothing comes of nothing', async () => {
  const writer = slowWriter();
  const batches = new BatchedWrites(writer, 0);
  await batches.add(Buffer.alloc(0));
  await batches.finish();
  assert.deepEqual(writer.written, []);
});
