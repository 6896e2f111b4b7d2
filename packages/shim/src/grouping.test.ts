import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { annotatedGroup, groupingFrom, groupPaths, groupPathsOfSocket } from './grouping.ts';

const parts = { ttrpcAddress: '/t', namespace: 'default', optionsKey: '', group: '' };

test('a group has one set of names, another group another', () => {
  const paths = groupPaths('/run/gantry/s', parts);
  assert.deepEqual(groupPaths('/run/gantry/s', { ...parts }), paths);
  assert.deepEqual(groupPathsOfSocket(paths.socket), paths);
  for (const other of [{ ttrpcAddress: '/u' }, { namespace: 'moby' }, { optionsKey: 'x' }, { group: 'pod' }])
    assert.notEqual(groupPaths('/run/gantry/s', { ...parts, ...other }).socket, paths.socket);
});

test('names fit into a unix socket address, or the directory is refused', () => {
  const paths = groupPaths(`/${'d'.repeat(80)}`, parts);
  assert.ok(paths.control.length <= 107);
  assert.throws(() => groupPaths(`/${'d'.repeat(100)}`, parts), /too long/);
});

test('the setting is one of three', () => {
  assert.equal(groupingFrom(undefined), 'shared');
  assert.equal(groupingFrom('sandbox'), 'sandbox');
  assert.throws(() => groupingFrom('pod'), /expected shared, sandbox or container/);
});

test('groups by annotation, the runtime’s own first', () => {
  const bundle = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-group-'));
  try {
    const annotations = { 'io.kubernetes.cri.sandbox-id': 'pod' };
    writeFileSync(path.join(bundle, 'config.json'), JSON.stringify({ annotations }));
    assert.equal(annotatedGroup(bundle, 'c'), 'pod');
    writeFileSync(
      path.join(bundle, 'config.json'),
      JSON.stringify({ annotations: { ...annotations, 'io.containerd.runc.v2.group': 'mine' } }),
    );
    assert.equal(annotatedGroup(bundle, 'c'), 'mine');
    writeFileSync(path.join(bundle, 'config.json'), '{}');
    assert.equal(annotatedGroup(bundle, 'c'), 'c');
  } finally {
    rmSync(bundle, { recursive: true });
  }
});
