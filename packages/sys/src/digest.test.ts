import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { poolDigest } from './digest.ts';

test('digests of the pool are those of node:crypto, also in between', async () => {
  for (const algorithm of ['sha256', 'sha384', 'sha512']) {
    const digest = poolDigest(algorithm);
    const expected = createHash(algorithm);
    assert.equal(digest.hex(), expected.copy().digest('hex'));
    for (const length of [1, 0, 63, 64, 65, 1 << 20]) {
      const bytes = randomBytes(length);
      await digest.update(bytes);
      expected.update(bytes);
      assert.equal(digest.hex(), expected.copy().digest('hex'), `${algorithm} after ${length} bytes more`);
    }
    digest.close();
  }
});

test('digests run side by side', async () => {
  const bytes = randomBytes(1 << 20);
  const one = createHash('sha256').update(bytes).update(bytes).digest('hex');
  const results = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const digest = poolDigest('sha256');
      await digest.update(bytes);
      await digest.update(bytes);
      const hex = digest.hex();
      digest.close();
      return hex;
    }),
  );
  assert.deepEqual(new Set(results), new Set([one]));
});

test('an algorithm that there is not is an error', () => {
  assert.throws(() => poolDigest('sha999'));
});

test('one closed during an update ends after it, and is not used again', async () => {
  const digest = poolDigest('sha256');
  const update = digest.update(randomBytes(1 << 20));
  assert.throws(() => digest.hex(), /busy/);
  digest.close();
  await update;
  assert.throws(() => digest.hex(), /closed/);
});
