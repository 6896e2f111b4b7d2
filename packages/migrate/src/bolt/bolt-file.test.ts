import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { Code, StatusError } from '@gantry/api';
import { lockFile, lockFileShared } from '@gantry/sys/locks.ts';
import { BoltFile } from './bolt-file.ts';
import type { BoltBucket } from './bucket.ts';
import { branch, bucketAt, inlineBucket, leaf, type MadeElement, madeFile, meta, pageSize } from './made-file.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-bolt-'));
after(() => rmSync(folder, { recursive: true }));

let number = 0;
function write(bytes: Buffer): string {
  const file = path.join(folder, `${number++}.db`);
  writeFileSync(file, bytes);
  return file;
}

/** All that is in a bucket: texts, and objects for buckets. */
function contents(bucket: BoltBucket): Record<string, unknown> {
  return Object.fromEntries(
    Array.from(bucket.entries(), ({ key, value, bucket: inner }) => [
      key.toString(),
      inner ? contents(inner) : value?.toString(),
    ]),
  );
}

function readAll(file: string): Record<string, unknown> {
  using open = new BoltFile(file);
  return contents(open.root);
}

function refuses(bytes: Buffer, message: RegExp): void {
  const file = write(bytes);
  assert.throws(
    () => readAll(file),
    (error) => {
      assert.ok(error instanceof StatusError, String(error));
      assert.equal(error.code, Code.FailedPrecondition);
      assert.ok(error.message.includes(file), error.message);
      assert.match(error.message, message);
      return true;
    },
  );
}

const texts = (from: number, to: number): MadeElement[] =>
  Array.from({ length: to - from }, (_, index) => ({ key: `key-${from + index}`, value: `value ${from + index}` }));

/** A bucket of two leaves below a branch, one of them longer than a page, and an inline bucket in the other. */
function sample(): Buffer {
  const long = 'x'.repeat(3 * pageSize);
  return madeFile([
    leaf([{ key: 'top', value: bucketAt(4), bucket: true }], 3),
    branch(
      [
        { key: 'key-10', page: 5 },
        { key: 'key-50', page: 6 },
      ],
      4,
    ),
    leaf(texts(10, 50), 5),
    leaf(
      [
        ...texts(50, 90),
        { key: 'long', value: long },
        { key: 'small', value: inlineBucket(texts(1, 3)), bucket: true },
      ],
      6,
    ),
  ]);
}

describe('a sound file', () => {
  test('all of it is read: branches, pages that run on, inline buckets', () => {
    const { top } = readAll(write(sample())) as { top: Record<string, unknown> };
    assert.equal(Object.keys(top).length, 82);
    assert.equal(top['key-49'], 'value 49');
    assert.equal(top['long'], 'x'.repeat(3 * pageSize));
    assert.deepEqual(top['small'], { 'key-1': 'value 1', 'key-2': 'value 2' });
  });

  test('keys are found without a walk, and what is not there is not', () => {
    using file = new BoltFile(write(sample()));
    const top = file.root.bucket('top');
    for (const key of ['key-10', 'key-49', 'key-50', 'key-89']) {
      assert.equal(top?.value(key)?.toString(), key.replace('key-', 'value '));
    }
    for (const key of ['', 'a', 'key-1', 'key-499', 'zzz', 'small']) assert.equal(top?.value(key), undefined, key);
    assert.equal(top?.bucket('long'), undefined);
    assert.equal(file.root.descend('top', 'small')?.value('key-2')?.toString(), 'value 2');
    assert.equal(file.root.descend('none', 'small'), undefined);
  });

  test('the later transaction counts, and the earlier one if the later is torn', () => {
    const older = leaf([{ key: 'state', value: inlineBucket([{ key: 'is', value: 'old' }]), bucket: true }], 3);
    const newer = leaf([{ key: 'state', value: inlineBucket([{ key: 'is', value: 'new' }]), bucket: true }], 4);
    for (const late of [0, 1]) {
      const bytes = madeFile([older, newer]);
      meta({ id: late, root: 4, highWater: 5, transaction: 9 }).copy(bytes, late * pageSize);
      meta({ id: 1 - late, root: 3, highWater: 5, transaction: 8 }).copy(bytes, (1 - late) * pageSize);
      assert.deepEqual(readAll(write(bytes)), { state: { is: 'new' } });
      bytes.writeUInt8(bytes.readUInt8(late * pageSize + 16 + 48) ^ 1, late * pageSize + 16 + 48);
      assert.deepEqual(readAll(write(bytes)), { state: { is: 'old' } });
    }
  });

  test('it is neither written nor held longer than it is open', () => {
    const bytes = sample();
    const file = write(bytes);
    const other = openSync(file, 'r+');
    try {
      {
        using open = new BoltFile(file);
        assert.throws(() => lockFile(other), { code: 'EAGAIN' });
        contents(open.root);
      }
      lockFile(other);
      assert.throws(() => new BoltFile(file), { code: Code.FailedPrecondition, message: /in use/ });
      lockFileShared(other);
      readAll(file);
    } finally {
      closeSync(other);
    }
    assert.ok(readFileSync(file).equals(bytes));
  });
});

describe('what is no file of bbolt', () => {
  test('nothing, a folder, a link and a FIFO', () => {
    assert.throws(() => new BoltFile(path.join(folder, 'none')), { code: Code.NotFound });
    assert.throws(() => new BoltFile(folder), { code: Code.FailedPrecondition, message: /not a regular file/ });
    const link = path.join(folder, 'link');
    symlinkSync(write(sample()), link);
    assert.throws(() => new BoltFile(link), /ELOOP/);
    const fifo = path.join(folder, 'fifo');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    assert.throws(() => new BoltFile(fifo), { code: Code.FailedPrecondition, message: /not a regular file/ });
  });

  test('an empty file, text, and a file of another kind of machine', () => {
    refuses(Buffer.alloc(0), /no meta page is whole \(the first: too short\)/);
    refuses(Buffer.from('hello '.repeat(10_000)), /no meta page is whole/);
    const other = sample();
    for (const at of [16, pageSize + 16]) other.subarray(at, at + 4).reverse();
    refuses(other, /big-endian/);
  });

  test('both meta pages are broken', () => {
    const bytes = sample();
    bytes.writeUInt8(7, 16 + 20);
    bytes.writeUInt8(7, pageSize + 16 + 20);
    refuses(bytes, /wrong checksum/);
  });
});

describe('corrupt pages', () => {
  const one = (value: Buffer) => [leaf([{ key: 'top', value, bucket: true }], 3)];

  test('a file that is cut off anywhere', () => {
    const bytes = sample();
    for (const length of [100, pageSize, 3 * pageSize, bytes.length - pageSize, bytes.length - 1])
      refuses(bytes.subarray(0, length), /cut off|no meta page/);
  });

  test('pages that are outside, the wrong one, of no kind, or too long', () => {
    for (const page of [0, 1, 4, 1000, Number.MAX_SAFE_INTEGER]) {
      const value = bucketAt(page === 0 ? 3 : page);
      refuses(
        madeFile(one(page === 0 ? Buffer.alloc(3) : value)),
        page === 0 ? /without a header/ : /page \d+ of 4 is named/,
      );
    }
    refuses(madeFile([...one(bucketAt(4)), leaf(texts(1, 3), 9)]), /page 4 says that it is page 9/);
    const noKind = leaf(texts(1, 3), 4);
    noKind.writeUInt16LE(0, 8);
    refuses(madeFile([...one(bucketAt(4)), noKind]), /page 4 is neither branch nor leaf/);
    const tooLong = leaf(texts(1, 3), 4);
    tooLong.writeUInt32LE(0xffffffff, 12);
    refuses(madeFile([...one(bucketAt(4)), tooLong]), /page 4 runs on/);
  });

  test('elements outside of their page, more than there is room for, or out of order', () => {
    for (const at of [16 + 4, 16 + 8, 16 + 12]) {
      const page = leaf(texts(1, 3), 4);
      page.writeUInt32LE(0xffffff00, at);
      refuses(madeFile([...one(bucketAt(4)), page]), /an element of page 4 lies outside/);
    }
    const full = leaf(texts(1, 3), 4);
    full.writeUInt16LE(0xffff, 10);
    refuses(madeFile([...one(bucketAt(4)), full]), /65535 elements/);
    refuses(madeFile([...one(bucketAt(4)), leaf(texts(1, 3).reverse(), 4)]), /out of order/);
    refuses(madeFile([...one(bucketAt(4)), branch([], 4)]), /without children/);
  });

  test('an inline bucket that is cut off, or no leaf', () => {
    const inline = inlineBucket(texts(1, 3));
    refuses(madeFile(one(inline.subarray(0, inline.length - 1))), /an inline bucket lies outside/);
    refuses(madeFile(one(inline.subarray(0, 20))), /an inline bucket is cut off/);
    inline.writeUInt16LE(1, 16 + 8);
    refuses(madeFile(one(inline)), /an inline bucket/);
  });

  test('circles of branches and of buckets end', () => {
    refuses(madeFile([...one(bucketAt(4)), branch([{ key: 'a', page: 4 }], 4)]), /page 4 stands in a tree twice/);
    const twice = [
      { key: 'key-1', page: 5 },
      { key: 'key-2', page: 5 },
    ];
    refuses(madeFile([...one(bucketAt(4)), branch(twice, 4), leaf(texts(1, 2), 5)]), /page 5 stands in a tree twice/);
    refuses(madeFile(one(bucketAt(3))), /more than 32 deep/);
    using circle = new BoltFile(write(madeFile([...one(bucketAt(4)), branch([{ key: 'a', page: 4 }], 4)])));
    assert.throws(() => circle.root.bucket('top')?.value('b'), /more than 40 levels/);
  });

  test('a file that names its pages again and again is given up', () => {
    const many = (page: number) =>
      Array.from({ length: 90 }, (_, index) => ({ key: `b${10 + index}`, value: bucketAt(page), bucket: true }));
    refuses(
      madeFile([leaf(many(4), 3), leaf(many(5), 4), leaf(many(6), 5), leaf(texts(1, 3), 6)]),
      /more pages are named than it has/,
    );
  });

  test('any byte may be wrong: an answer or a clear error, never a crash', () => {
    const sound = sample();
    for (let at = 0; at < sound.length; at += at % pageSize < 120 ? 3 : 251) {
      const bytes = Buffer.from(sound);
      bytes[at] = bytes[at]! ^ 0xff;
      const file = path.join(folder, 'flipped.db');
      writeFileSync(file, bytes);
      try {
        readAll(file);
      } catch (error) {
        assert.ok(error instanceof StatusError && error.code === Code.FailedPrecondition, `byte ${at}: ${error}`);
      }
    }
  });
});
