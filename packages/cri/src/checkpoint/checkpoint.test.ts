import assert from 'node:assert/strict';
import { test } from 'node:test';
import { criuVersion, requireCriu } from './criu-program.ts';
import { mergedAnnotations } from './restore.ts';

test('CRIU tells its version in more than one form', () => {
  assert.equal(criuVersion('Version: 4.1.1\n'), 40_101);
  assert.equal(criuVersion('Version: 3.16\nGitID: v3.16\n'), 31_600);
  assert.equal(criuVersion('something else'), undefined);
});

test('without CRIU, or with it turned off, nothing is frozen', async () => {
  await assert.rejects(requireCriu(false), /criu support is disabled by configuration/);
  const usual = process.env['PATH'];
  process.env['PATH'] = '/nowhere';
  try {
    await assert.rejects(requireCriu(true), /criu binary not found in shim path or system PATH/);
  } finally {
    process.env['PATH'] = usual;
  }
});

test('a restored container has its annotations, those of its new start, and no devices by them', () => {
  const before = {
    kept: '1',
    'cdi.k8s.io/x': 'v/c=d',
    'io.kubernetes.pod.uid': 'old',
    'io.kubernetes.container.hash': 'a',
  };
  const asked = {
    'io.kubernetes.container.hash': 'b',
    'io.kubernetes.container.restartCount': '3',
    'io.kubernetes.pod.uid': 'not this one',
  };
  assert.deepEqual(mergedAnnotations(before, asked, 'new'), {
    kept: '1',
    'io.kubernetes.pod.uid': 'new',
    'io.kubernetes.container.hash': 'b',
  });
});
