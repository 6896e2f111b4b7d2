import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { decompressed } from './decompress.ts';

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function all(bytes: Buffer, size = 7): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const part of await decompressed(pieces(bytes, size))) parts.push(part);
  return Buffer.concat(parts).toString();
}

describe('taking compression off', () => {
  const text = 'a layer '.repeat(1000);

  it('goes by the first bytes', async () => {
    for (const size of [1, 3, 100_000]) {
      assert.equal(await all(gzipSync(text), size), text);
      assert.equal(await all(zstdCompressSync(text), size), text);
      assert.equal(await all(Buffer.from(text), size), text);
    }
    assert.equal(await all(Buffer.alloc(0)), '');
    assert.equal(await all(Buffer.from('ab')), 'ab');
  });

  it('reads several members on end', async () => {
    assert.equal(await all(Buffer.concat([gzipSync('one '), gzipSync('two')])), 'one two');
  });

  it('refuses what is cut short, broken or followed by something else', async () => {
    for (const size of [5, 100_000]) {
      await assert.rejects(all(gzipSync(text).subarray(0, 40), size));
      await assert.rejects(all(zstdCompressSync(text).subarray(0, 20), size));
      await assert.rejects(
        all(Buffer.concat([gzipSync(text), Buffer.from('garbage')]), size),
        /bytes follow|incorrect header/,
      );
    }
  });

  it('passes on what the source throws, and leaves it when nobody reads on', async () => {
    let left = 0;
    async function* source(fails: boolean): AsyncGenerator<Buffer> {
      try {
        yield gzipSync(text).subarray(0, 20);
        if (fails) throw new Error('the connection broke');
        yield gzipSync(text).subarray(20);
      } finally {
        left++;
      }
    }
    await assert.rejects(async () => {
      for await (const _ of await decompressed(source(true)));
    }, /the connection broke/);
    for await (const _ of await decompressed(source(false))) break;
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(left, 2);
  });
});
