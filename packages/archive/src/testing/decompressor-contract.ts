/** What every decompressor has to do, as Go's readers do it (tried with those that containerd 2.3.4 is built with). */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import zlib from 'node:zlib';
import { unpack as unpackAny } from '../decompress.ts';
import { CompressionError, type CompressionFault, type Decompressor, PIECE } from '../decompressor.ts';

const first = Buffer.concat([Buffer.alloc(1_300_000, 'first '), randomBytes(40_000)]);
const second = Buffer.alloc(50_000, 'second ');
const both = Buffer.concat([first, second]);

interface Case {
  name: string;
  bytes: Buffer;
  /** Default: there is a fault. */
  holds?: Buffer;
  fault?: CompressionFault | CompressionFault[];
}

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at < 0 ? copy.length + at : at]! ^= 0xff;
  return copy;
}

const join = (...parts: (Buffer | string)[]) => Buffer.concat(parts.map((part) => Buffer.from(part as string)));

function gzipCases(): Case[] {
  const a = zlib.gzipSync(first);
  const b = zlib.gzipSync(second);
  const flags = Buffer.from([0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 255, 5, 0]);
  const header = join(flags, 'extra', 'name\0', 'a comment\0');
  const sum = Buffer.alloc(2);
  sum.writeUInt16LE(zlib.crc32(header) & 0xffff);
  return [
    { name: 'one member', bytes: a, holds: first },
    { name: 'nothing in a member', bytes: zlib.gzipSync(''), holds: Buffer.alloc(0) },
    { name: 'members in a row', bytes: join(a, zlib.gzipSync(''), b), holds: both },
    {
      name: 'thousands of members',
      bytes: join(...Array.from({ length: 3000 }, (_, i) => zlib.gzipSync(`${i},`))),
      holds: Buffer.from(Array.from({ length: 3000 }, (_, i) => `${i},`).join('')),
    },
    { name: 'stored blocks', bytes: zlib.gzipSync(both, { level: 0 }), holds: both },
    { name: 'all that a header can have', bytes: join(header, sum, a.subarray(10)), holds: first },
    { name: 'a header whose sum is wrong', bytes: join(header, flipped(sum, 0), a.subarray(10)), fault: 'header' },
    { name: 'text after it', bytes: join(a, 'something that is no gzip'), fault: ['header', 'trailing'] },
    { name: 'zeros after it', bytes: join(a, Buffer.alloc(512)), fault: ['header', 'trailing'] },
    { name: 'zeros between members', bytes: join(a, Buffer.alloc(512), b), fault: ['header', 'trailing'] },
    { name: 'a zero after it', bytes: join(a, Buffer.alloc(1)), fault: ['header', 'truncated', 'trailing'] },
    { name: 'half a header after it', bytes: join(a, b.subarray(0, 3)), fault: 'truncated' },
    { name: 'only a header', bytes: a.subarray(0, 10), fault: 'truncated' },
    { name: 'a member cut short', bytes: a.subarray(0, -20), fault: 'truncated' },
    { name: 'a member without its sum', bytes: a.subarray(0, -8), fault: 'truncated' },
    { name: 'a sum cut short', bytes: a.subarray(0, -3), fault: 'truncated' },
    { name: 'a second member cut short', bytes: join(a, b.subarray(0, -5)), fault: 'truncated' },
    { name: 'a wrong sum', bytes: flipped(a, -8), fault: 'checksum' },
    { name: 'a wrong length', bytes: flipped(a, -1), fault: 'checksum' },
    { name: 'a changed byte', bytes: flipped(a, a.length >> 1), fault: ['checksum', 'corrupt'] },
    { name: 'no deflate', bytes: join(a.subarray(0, 10), Buffer.alloc(5000, 0xff)), fault: 'corrupt' },
  ];
}

function zstdCases(): Case[] {
  const params = { [zlib.constants.ZSTD_c_checksumFlag]: 1 };
  const a = zlib.zstdCompressSync(first, { params });
  const b = zlib.zstdCompressSync(second, { params });
  const skip = Buffer.alloc(28, 'S');
  skip.writeUInt32LE(0x184d2a5e, 0);
  skip.writeUInt32LE(20, 4);
  const wide = (log: number) => Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1, 0, 0])]);
  return [
    { name: 'one frame', bytes: a, holds: first },
    { name: 'a frame without a checksum', bytes: zlib.zstdCompressSync(first), holds: first },
    { name: 'nothing in a frame', bytes: zlib.zstdCompressSync(''), holds: Buffer.alloc(0) },
    { name: 'frames in a row', bytes: join(a, zlib.zstdCompressSync(''), b), holds: both },
    { name: 'skippable frames around', bytes: join(skip, a, skip, skip, b, skip), holds: both },
    { name: 'only a skippable frame', bytes: skip, holds: Buffer.alloc(0) },
    { name: 'a window of 512 MiB', bytes: wide(29), holds: Buffer.alloc(0) },
    { name: 'a window of 1 GiB', bytes: wide(30), fault: 'window' },
    { name: 'text after it', bytes: join(a, 'something that is no zstd'), fault: ['header', 'trailing'] },
    { name: 'a byte after it', bytes: join(a, 'x'), fault: ['truncated', 'header', 'trailing'] },
    { name: 'zeros between frames', bytes: join(a, Buffer.alloc(512), b), fault: ['header', 'trailing'] },
    { name: 'only the magic', bytes: a.subarray(0, 4), fault: 'truncated' },
    { name: 'a frame cut short', bytes: a.subarray(0, -20), fault: 'truncated' },
    { name: 'a frame that lacks a byte', bytes: a.subarray(0, -1), fault: 'truncated' },
    { name: 'a second frame cut short', bytes: join(a, b.subarray(0, -5)), fault: 'truncated' },
    { name: 'a skippable frame cut short', bytes: join(a, skip.subarray(0, -5)), fault: 'truncated' },
    { name: 'a wrong checksum', bytes: flipped(a, -1), fault: 'checksum' },
    { name: 'a changed byte', bytes: flipped(a, a.length >> 1), fault: ['checksum', 'corrupt'] },
  ];
}

/** `bytes` in chunks of a size, all in one buffer that is written over each time. */
async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  const buffer = Buffer.alloc(Math.min(size, bytes.length));
  for (let at = 0; at < bytes.length; at += size) {
    const length = bytes.copy(buffer, 0, at, at + size);
    yield buffer.subarray(0, length);
  }
}

async function unpack(decompressor: Decompressor, source: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const piece of decompressor.decompress(source)) {
    assert.ok(piece.length <= PIECE);
    parts.push(Buffer.from(piece));
  }
  return Buffer.concat(parts);
}

export function decompressorContract(decompressor: Decompressor, skip: string | false = false): void {
  describe(`${decompressor.compression} by ${decompressor.name}`, { skip }, () => {
    for (const { name, bytes, holds, fault } of decompressor.compression === 'gzip' ? gzipCases() : zstdCases()) {
      test(name, async () => {
        for (const size of [bytes.length, 65_536, 4099, ...(bytes.length < 10_000 ? [1] : [])]) {
          const result = unpack(decompressor, pieces(bytes, Math.max(1, size)));
          if (holds) {
            assert.ok((await result).equals(holds), `in pieces of ${size}`);
            continue;
          }
          await assert.rejects(result, (error) => {
            assert.ok(error instanceof CompressionError, `in pieces of ${size}: ${error}`);
            assert.ok([fault].flat().includes(error.fault), `in pieces of ${size}: ${error.fault}`);
            return true;
          });
        }
      });
    }

    test('a failure of the source is what fails', async () => {
      const { bytes } = decompressor.compression === 'gzip' ? gzipCases()[0]! : zstdCases()[0]!;
      const failing = async function* () {
        yield bytes.subarray(0, 100);
        throw new Error('the line is cut');
      };
      await assert.rejects(unpack(decompressor, failing()), { message: 'the line is cut' });
    });

    test('neither a failure nor a reader that leaves waits for a source that stands still', async () => {
      const { bytes } = decompressor.compression === 'gzip' ? gzipCases()[0]! : zstdCases()[0]!;
      const standing = async function* (start: Buffer) {
        yield start;
        await new Promise(() => {});
      };
      const broken = Buffer.concat([bytes.subarray(0, 10), Buffer.alloc(300_000, 0xff)]);
      await assert.rejects(unpack(decompressor, standing(broken)), { code: 'ECOMPRESSION' });
      for await (const piece of decompressor.decompress(standing(bytes.subarray(0, bytes.length - 10)))) {
        assert.ok(piece.length > 0);
        break;
      }
    });

    test('the source is let go of, whether it was read to its end or not', async () => {
      const { bytes } = decompressor.compression === 'gzip' ? gzipCases()[0]! : zstdCases()[0]!;
      const closed: string[] = [];
      const tracked = async function* (name: string, content: Buffer) {
        try {
          yield* pieces(content, 4096);
        } finally {
          closed.push(name);
        }
      };
      const sources = { whole: bytes, broken: Buffer.concat([bytes.subarray(0, 10), Buffer.alloc(300_000, 0xff)]) };
      await unpack(decompressor, tracked('whole', sources.whole));
      await assert.rejects(unpack(decompressor, tracked('broken', sources.broken)));
      for await (const _ of decompressor.decompress(tracked('left', sources.whole))) break;
      const { bytes: early } = await unpackAny(tracked('early', sources.whole));
      for await (const _ of early) break;
      for (let turn = 0; turn < 100 && closed.length < 4; turn++) await setImmediate();
      assert.deepEqual(closed.sort(), ['broken', 'early', 'left', 'whole']);
    });

    test('what is packed a thousandfold comes in small pieces', async () => {
      const bomb = Buffer.alloc(64 << 20);
      const packed = decompressor.compression === 'gzip' ? zlib.gzipSync(bomb) : zlib.zstdCompressSync(bomb);
      let size = 0;
      for await (const piece of decompressor.decompress(pieces(packed, packed.length))) {
        assert.ok(piece.length <= PIECE);
        size += piece.length;
      }
      assert.equal(size, bomb.length);
    });
  });
}
