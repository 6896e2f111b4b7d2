import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { endGroup } from './end-group.ts';

test('what was made before a moment stays, with its group, and so does whoever asks', async () => {
  const root = mkdtempSync(path.join(os.tmpdir(), 'gantry-end-group-'));
  try {
    const group = path.join(root, 'memory/parent/one');
    mkdirSync(group, { recursive: true });
    writeFileSync(path.join(group, 'cgroup.procs'), '1\n');
    assert.deepEqual(await endGroup('/parent/one', { root, since: 1e9 }), []);
    writeFileSync(path.join(group, 'cgroup.procs'), `${process.pid}\n`);
    assert.deepEqual(await endGroup('/parent/one', { root }), []);
    assert.deepEqual(readdirSync(group), ['cgroup.procs']);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('empty groups go from every hierarchy, those beneath first; the hierarchies themselves and what is not there are well', async () => {
  const root = mkdtempSync(path.join(os.tmpdir(), 'gantry-end-group-'));
  try {
    for (const hierarchy of ['cpu', 'memory'])
      mkdirSync(path.join(root, hierarchy, 'parent/one/beneath'), { recursive: true });
    assert.deepEqual(await endGroup('/parent/one', { root }), []);
    for (const hierarchy of ['cpu', 'memory']) assert.deepEqual(readdirSync(path.join(root, hierarchy, 'parent')), []);
    for (const group of ['/', '/..', '/../cpu', '/parent/none']) assert.deepEqual(await endGroup(group, { root }), []);
    assert.deepEqual(readdirSync(root).sort(), ['cpu', 'memory']);
  } finally {
    rmSync(root, { recursive: true });
  }
});
