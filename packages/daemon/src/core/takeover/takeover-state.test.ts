import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { Code } from '@gantry/api';
import { lockFile } from '@gantry/sys/locks.ts';
import { fingerprintOf, holdTakeover, readTakeover, type TakeoverState, writeTakeover } from './takeover-state.ts';

let root = '';
let file = '';
beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), 'gantry-takeover-'));
  file = path.join(root, 'meta.db');
  writeFileSync(file, 'metadata');
});
afterEach(() => rmSync(root, { recursive: true }));

const note = (phase: TakeoverState['phase']): TakeoverState => ({
  version: 1,
  phase,
  at: '2026-01-02T03:04:05Z',
  from: { root: '/var/lib/containerd', state: '/run/containerd', address: '/a', ttrpcAddress: '/a.ttrpc' },
  metadata: { file, fingerprint: fingerprintOf(file)! },
});
const refused = (message: RegExp) => ({ code: Code.FailedPrecondition, message });

/** bbolt's own lock, as containerd has it while it runs. */
function locked(): (() => void) | undefined {
  const fd = openSync(file, 'r+');
  try {
    lockFile(fd);
    return () => closeSync(fd);
  } catch {
    closeSync(fd);
    return undefined;
  }
}

test('a root that never took anything over is free', () => {
  assert.equal(readTakeover(root), undefined);
  holdTakeover(root)();
});

test('a daemon starts on a whole takeover only', () => {
  writeTakeover(root, note('started'));
  assert.throws(() => holdTakeover(root), refused(/was cut off; run .* again/));
  writeTakeover(root, note('back'));
  assert.throws(() => holdTakeover(root), refused(/given back to containerd at 2026-01-02T03:04:05Z/));
  writeTakeover(root, note('done'));
  assert.deepEqual(readTakeover(root), note('done'));
  holdTakeover(root)();
});

test('while it runs containerd cannot, and the other way round', () => {
  writeTakeover(root, note('done'));
  const letGo = holdTakeover(root);
  assert.equal(locked(), undefined);
  letGo();
  const unlock = locked()!;
  assert.throws(() => holdTakeover(root), refused(/containerd runs on \/var\/lib\/containerd/));
  unlock();
  holdTakeover(root)();
});

test('a containerd that ran since is noticed; one that is gone is no matter', () => {
  writeTakeover(root, note('done'));
  writeFileSync(file, 'other metadata');
  assert.throws(() => holdTakeover(root), refused(/containerd has run on .* since it was taken over/));
  assert.ok(locked(), 'it kept the lock');
  rmSync(file);
  holdTakeover(root)();
});

test('a note that is none is refused', () => {
  for (const text of ['', '{', '{"version":2,"phase":"done"}', '{"version":1,"phase":"other"}']) {
    writeFileSync(path.join(root, 'takeover.json'), text);
    assert.throws(() => readTakeover(root), refused(/takeover\.json: cannot be understood/));
  }
});
