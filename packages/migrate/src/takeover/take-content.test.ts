import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { takeContent } from './take-content.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-blobs-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const at = (place: string, digest: string) => path.join(place, 'blobs', digest.replace(':', '/'));

function blob(text: string): string {
  const digest = `sha256:${createHash('sha256').update(text).digest('hex')}`;
  const file = at(path.join(folder, 'from'), digest);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text, { mode: 0o444 });
  utimesSync(file, 1000, 2000);
  return digest;
}

test('blobs are shared on one filesystem, and taken once', async () => {
  const digests = [blob('one'), blob('two')];
  const to = path.join(folder, 'to');
  mkdirSync(to);
  writeFileSync(path.join(to, 'takeover.new'), 'left by one that was killed');
  const from = path.join(folder, 'from');
  const { cloned, linked, copied, there } = await takeContent(digests, from, to);
  assert.deepEqual([cloned + linked, copied, there], [2, 0, 0]);
  for (const digest of digests) {
    const [old, taken] = [statSync(at(from, digest)), statSync(at(to, digest))];
    assert.deepEqual([taken.size, taken.mtimeMs, taken.mode], [old.size, old.mtimeMs, old.mode]);
    if (linked > 0) assert.equal(taken.ino, old.ino);
  }
  assert.deepEqual(readdirSync(to), ['blobs']);
  assert.equal((await takeContent([...digests, blob('three')], from, to)).there, 2);
  // Ours goes; theirs stays.
  rmSync(at(to, digests[0]!));
  assert.equal(readFileSync(at(from, digests[0]!), 'utf8'), 'one');
});

test('a half of a blob is replaced', async () => {
  const digest = blob('whole');
  const to = path.join(folder, 'to');
  mkdirSync(path.dirname(at(to, digest)), { recursive: true });
  writeFileSync(at(to, digest), 'who');
  await takeContent([digest], path.join(folder, 'from'), to);
  assert.equal(readFileSync(at(to, digest), 'utf8'), 'whole');
  assert.equal(readFileSync(at(path.join(folder, 'from'), digest), 'utf8'), 'whole');
});

const elsewhere = '/dev/shm';
const differs = existsSync(elsewhere) && statSync(elsewhere).dev !== statSync(os.tmpdir()).dev;

test('blobs are copied to another filesystem', { skip: differs ? false : 'no other filesystem here' }, async () => {
  const digest = blob('far');
  const to = mkdtempSync(path.join(elsewhere, 'gantry-blobs-'));
  try {
    assert.deepEqual(await takeContent([digest], path.join(folder, 'from'), to), {
      cloned: 0,
      linked: 0,
      copied: 1,
      there: 0,
    });
    const { mode, mtimeMs } = statSync(at(to, digest));
    assert.deepEqual([readFileSync(at(to, digest), 'utf8'), mode & 0o777, mtimeMs], ['far', 0o444, 2_000_000]);
  } finally {
    rmSync(to, { recursive: true });
  }
});
