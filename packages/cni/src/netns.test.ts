import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { MNT, MS, mountSync, umount } from '@gantry/sys';
import { createNetns, netnsAlive, newNetnsPath, removeNetns } from './netns.ts';

const skip = process.getuid?.() === 0 ? false : 'namespaces need root';

test('a namespace goes even where a copy of the directory was laid over it, as ip netns does', { skip }, async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'netns-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = newNetnsPath(directory);
  createNetns(file);
  mountSync(directory, directory, '', MS.BIND | MS.REC);
  assert.equal(netnsAlive(file), true);
  await removeNetns(file);
  assert.equal(netnsAlive(file), false);
  // Once the copy is gone so is what kept the rest.
  await umount(directory, MNT.DETACH);
  await removeNetns(file);
  assert.equal(existsSync(file), false);
});
