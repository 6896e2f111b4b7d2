import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyedLock } from './keyed-lock.ts';

test('one holder at a time, first come first served', async () => {
  const lock = new KeyedLock();
  const order: string[] = [];
  const first = await lock.acquire('a');
  const second = lock.acquire('a').then((release) => {
    order.push('second');
    release();
  });
  const third = lock.run('a', async () => void order.push('third'));
  (await lock.acquire('b'))();
  assert.deepEqual(order, []);
  first();
  await Promise.all([second, third]);
  assert.deepEqual(order, ['second', 'third']);
});

test('who gives up does not wait, and lets nobody past those before', async () => {
  const lock = new KeyedLock();
  const first = await lock.acquire('a');
  const giveUp = new AbortController();
  const second = lock.acquire('a', giveUp.signal);
  let has = false;
  const third = lock.acquire('a').then((release) => {
    has = true;
    release();
  });
  giveUp.abort(new Error('enough'));
  await assert.rejects(second, /enough/);
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!has);
  first();
  await third;
  assert.ok(has);
  await assert.rejects(lock.acquire('b', giveUp.signal), /enough/);
  (await lock.acquire('b'))();
});
