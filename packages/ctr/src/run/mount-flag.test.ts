import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMount } from './mount-flag.ts';

test('mounts', () => {
  assert.deepEqual(parseMount('type=bind,src=/tmp,dst=/host,options=rbind:ro'), {
    type: 'bind',
    source: '/tmp',
    destination: '/host',
    options: ['rbind', 'ro'],
  });
  assert.deepEqual(parseMount('type=tmpfs,destination=/x'), { type: 'tmpfs', destination: '/x' });
  assert.deepEqual(parseMount('"src=/a,b",dst=/c'), { source: '/a,b', destination: '/c' });
});

test('what is no mount', () => {
  assert.throws(() => parseMount('bind'), /expected key=val/);
  assert.throws(() => parseMount('type=bind,where=/x'), /mount option "where" not supported/);
});
