import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { it } from 'node:test';
import { DirectorySync } from './directory-sync.ts';

it('those who come while a directory is synced share the next time, and later ones start anew', async () => {
  const root = await mkdtemp(path.join(tmpdir(), 'gantry-sync-'));
  const directories = new DirectorySync();
  const first = directories.sync(root);
  const second = directories.sync(root);
  assert.notEqual(first, second);
  assert.equal(directories.sync(root), second);
  await Promise.all([first, second]);
  const later = directories.sync(root);
  assert.notEqual(later, second);
  await later;
  await rm(root, { recursive: true });
  await assert.rejects(directories.sync(root), /ENOENT/);
  await assert.rejects(Promise.all([directories.sync(root), directories.sync(root)]), /ENOENT/);
});
