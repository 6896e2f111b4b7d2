import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryReader, SmallBlobs, smallBlob } from './small-blobs.ts';

test('holds two megabytes of what was read last', () => {
  const blobs = new SmallBlobs();
  const count = (2 << 20) / smallBlob;
  for (let number = 0; number < count; number++) blobs.add(`sha256:${number}`, new Uint8Array(smallBlob).fill(number));
  assert.equal(blobs.get('sha256:0')?.[0], 0);
  blobs.add('sha256:more', new Uint8Array(1));
  assert.equal(blobs.get('sha256:1'), undefined, 'the one not read for longest goes');
  assert.equal(blobs.get('sha256:0')?.length, smallBlob);
  blobs.add('sha256:more', new Uint8Array(2));
  blobs.delete('sha256:more');
  assert.equal(blobs.get('sha256:more'), undefined);
  blobs.add('sha256:1', new Uint8Array(smallBlob).fill(1));
  assert.equal(blobs.get('sha256:2')?.[0], 2, 'what was taken away counts no more');
});

test('a reader gives parts, and copies', async () => {
  const bytes = Buffer.from('a manifest');
  const reader = new MemoryReader(bytes, '/a/file');
  assert.equal(reader.size, 10);
  const part = await reader.read(2, 100);
  assert.equal(Buffer.from(part).toString(), 'manifest');
  part.fill(0);
  const into = new Uint8Array(20);
  const got = await reader.read(0, 4, into);
  assert.equal(got.buffer, into.buffer);
  assert.equal(Buffer.from(got).toString(), 'a ma');
  assert.equal((await reader.read(10, 5)).length, 0);
  assert.equal((await reader.read(50, 5)).length, 0);
  assert.equal(bytes.toString(), 'a manifest');
});
