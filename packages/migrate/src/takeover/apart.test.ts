import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Code } from '@gantry/api';
import { assertApart } from './apart.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-apart-'));
after(() => rmSync(folder, { recursive: true }));

const theirs = {
  root: '/srv/c',
  state: '/run/c',
  contentRoot: undefined,
  snapshotterRoots: new Map([['native', '/mnt/n']]),
};
const ours = (root: string, state: string, snapshots = `${root}/s`) => ({
  root,
  state,
  contentRoot: `${root}/content`,
  snapshotterRoot: () => snapshots,
});
const refused = { code: Code.FailedPrecondition, message: /must lie apart/ };

test('two daemons have nothing in each other', () => {
  assertApart(theirs, ours('/srv/g', '/run/g'));
  assertApart(theirs, ours('/srv/c2', '/run/c2'));
  for (const [root, state, snapshots] of [
    ['/srv/c', '/run/g'],
    ['/srv/g', '/run/c'],
    ['/srv/c/g', '/run/g'],
    ['/srv', '/run/g'],
    ['/srv/g', '/run/g', '/mnt/n/x'],
  ])
    assert.throws(() => assertApart(theirs, ours(root!, state!, snapshots)), refused);
});

test('nor by a link', () => {
  mkdirSync(path.join(folder, 'c'));
  symlinkSync('c', path.join(folder, 'link'));
  const from = { ...theirs, root: path.join(folder, 'c') };
  assert.throws(() => assertApart(from, ours(path.join(folder, 'link/g'), '/run/g')), refused);
});
