import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { lockFile } from './locks.ts';

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
