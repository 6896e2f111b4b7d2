import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { lockFile, lockFileShared } from './locks.ts';

test('a lock keeps a second descriptor out until the first is closed', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-sys-'));
  const file = path.join(dir, 'lock');
  const first = openSync(file, 'a');
  const second = openSync(file, 'a');
  try {
    lockFile(first);
    assert.throws(() => lockFile(second), { code: 'EAGAIN' });
    closeSync(first);
    lockFile(second);
  } finally {
    closeSync(second);
    rmSync(dir, { recursive: true });
  }
});

test('a shared lock keeps out only who wants it alone', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-sys-'));
  const file = path.join(dir, 'lock');
  const alone = openSync(file, 'a');
  const readers = [openSync(file, 'r'), openSync(file, 'r')];
  try {
    for (const reader of readers) lockFileShared(reader);
    assert.throws(() => lockFile(alone), { code: 'EAGAIN' });
    for (const reader of readers.splice(0)) closeSync(reader);
    lockFile(alone);
    readers.push(openSync(file, 'r'));
    assert.throws(() => lockFileShared(readers[0]!), { code: 'EAGAIN' });
  } finally {
    for (const fd of [alone, ...readers]) closeSync(fd);
    rmSync(dir, { recursive: true });
  }
});
