import assert from 'node:assert/strict';
import { test } from 'node:test';
import zlib from 'node:zlib';
import { detectCompression } from './compression.ts';
import { chooseDecompressor, unpack } from './decompress.ts';
import { isalAvailable } from './isal-decompressor.ts';

async function* one(...parts: (Buffer | string)[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield Buffer.from(part as string);
}

async function read(bytes: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  for await (const piece of bytes) parts.push(Buffer.from(piece));
  return Buffer.concat(parts).toString();
}

test('the first bytes tell the compression', () => {
  assert.equal(detectCompression(zlib.gzipSync('')), 'gzip');
  assert.equal(detectCompression(Buffer.from([0x1f, 0x8b])), 'none');
  assert.equal(detectCompression(Buffer.from([0x1f, 0x8b, 0x09])), 'none');
  assert.equal(detectCompression(zlib.zstdCompressSync('')), 'zstd');
  assert.equal(detectCompression(Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])), 'zstd');
  // containerd wants to see a skippable frame's length too.
  assert.equal(detectCompression(Buffer.from([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0])), 'none');
  assert.equal(detectCompression(Buffer.from([0x60, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])), 'none');
  assert.equal(detectCompression(Buffer.alloc(0)), 'none');
});

test('bytes are unpacked as they say, or as the caller knows', async () => {
  const packed = zlib.gzipSync('hello');
  const first = await unpack(one(packed.subarray(0, 2), packed.subarray(2)));
  assert.equal(first.compression, 'gzip');
  assert.equal(await read(first.bytes), 'hello');
  const second = await unpack(one(zlib.zstdCompressSync('hello')));
  assert.equal(second.compression, 'zstd');
  assert.equal(await read(second.bytes), 'hello');
  const plain = await unpack(one('hel', 'lo'));
  assert.equal(plain.compression, 'none');
  assert.equal(await read(plain.bytes), 'hello');
  const kept = await unpack(one('(', packed), 'none');
  assert.equal(kept.compression, 'none');
  assert.equal((await read(kept.bytes)).at(0), '(');
  assert.equal(await read((await unpack(one())).bytes), '');
  await assert.rejects(
    async () => read((await unpack(one('hello'), 'gzip')).bytes),
    /^CompressionError: gzip: invalid header/,
  );
});

test("containerd's variable turns the faster library off", () => {
  assert.equal(chooseDecompressor('gzip', { CONTAINERD_DISABLE_IGZIP: 'true' }).name, 'zlib');
  assert.equal(chooseDecompressor('gzip', { CONTAINERD_DISABLE_IGZIP: '0' }).name, isalAvailable() ? 'isal' : 'zlib');
  assert.equal(
    chooseDecompressor('gzip', { CONTAINERD_DISABLE_IGZIP: 'what' }).name,
    isalAvailable() ? 'isal' : 'zlib',
  );
});
