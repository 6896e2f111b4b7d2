import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { removeEmptyCgroup } from './remove-empty.ts';

test('empty groups go from every hierarchy, others stay', async () => {
  const root = mkdtempSync(path.join(os.tmpdir(), 'gantry-cgroups-'));
  try {
    for (const folder of ['memory/ns', 'pids/ns/busy', 'unified/ns', 'memory/other'])
      mkdirSync(path.join(root, folder), { recursive: true });
    await removeEmptyCgroup('/ns', root);
    assert.equal(existsSync(path.join(root, 'memory/ns')), false);
    assert.equal(existsSync(path.join(root, 'unified/ns')), false);
    assert.equal(existsSync(path.join(root, 'pids/ns/busy')), true);
    await removeEmptyCgroup('/../memory/other', path.join(root, 'pids'));
    await removeEmptyCgroup('', root);
    assert.equal(existsSync(path.join(root, 'memory/other')), true);
    await removeEmptyCgroup('/ns', path.join(root, 'nowhere'));
  } finally {
    rmSync(root, { recursive: true });
  }
});
