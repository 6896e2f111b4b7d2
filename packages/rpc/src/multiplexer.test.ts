import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { Multiplexer } from './multiplexer.ts';

test('connections over one trunk: bytes of each in order, in frames of number and length', async () => {
  const [here, there] = duplexPair();
  const [one, other] = [new Multiplexer(here), new Multiplexer(there)];
  const sent = [randomBytes(9 << 20), randomBytes(100_000)];
  const got: Buffer[][] = [[], []];
  for (const number of [1, 2]) other.open(number).on('data', (chunk: Buffer) => got[number - 1]!.push(chunk));
  const written = [1, 2].map((number) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    one.open(number).write(sent[number - 1], () => resolve());
    return promise;
  });
  await Promise.all(written);
  one.open(9).write('nobody opened this on the other side');
  while (got.flat().reduce((sum, chunk) => sum + chunk.length, 0) < sent[0]!.length + sent[1]!.length) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (const index of [0, 1]) assert.ok(Buffer.concat(got[index]!).equals(sent[index]!));
  const closed = once(other.open(1), 'close');
  one.close();
  await closed;
});

test('no frame is larger than the reference reads: the first of a message through a buffer of 4096, the rest in one piece', async () => {
  const [here, there] = duplexPair();
  const frames: Buffer[] = [];
  there.on('data', (chunk: Buffer) => frames.push(chunk));
  const message = randomBytes(100_000);
  await new Promise((resolve) => new Multiplexer(here).open(1).write(message, resolve));
  const all = Buffer.concat(frames);
  const lengths = [4096, 100_000 - 4096];
  assert.deepEqual([all.readUInt32BE(4), all.readUInt32BE(8 + 4096 + 4)], lengths);
  const payload = Buffer.concat([all.subarray(8, 8 + 4096), all.subarray(8 + 4096 + 8)]);
  assert.ok(payload.equals(message));
});

test('what the frames look like, in pieces of any size, and lengths that are none', async () => {
  const [here, there] = duplexPair();
  const multiplexer = new Multiplexer(here);
  const branch = multiplexer.open(0x01020304);
  const frames: Buffer[] = [];
  there.on('data', (chunk: Buffer) => frames.push(chunk));
  await new Promise((resolve) => branch.write('abc', resolve));
  const all = Buffer.concat(frames);
  assert.equal(all.toString('hex'), '0102030400000003616263');
  for (const byte of all) there.write(Buffer.of(byte));
  let text = '';
  for await (const chunk of branch) {
    text += String(chunk);
    if (text.length === 3) break;
  }
  assert.equal(text, 'abc');
  const second = new Multiplexer(duplexPair()[0]);
  second.close();
  const [a, b] = duplexPair();
  const third = new Multiplexer(a);
  const closed = once(third.open(1), 'close');
  b.write(Buffer.from('00000001ffffffff', 'hex'));
  await closed;
});
