import assert from 'node:assert/strict';
import { test } from 'node:test';
import { remappedName, toHost } from './remapped-snapshot.ts';

const parent = 'sha256:26494731803555fce27a2015398fd4bd2a7fb6cb5a7c17eb1e4c1c0b4a7f7d2b';
const mapping = { containerID: 0, hostID: 100_000, size: 65_536 };

test('the name of a snapshot with other owners is that of containerd’s client', () => {
  // As containerd 2.3.4's client named it.
  const name = remappedName(parent, { uids: [mapping], gids: [mapping] });
  assert.match(name, /^sha256:[0-9a-f]{64}$/);
  const split = [
    { containerID: 1, hostID: 200_000, size: 10 },
    { containerID: 0, hostID: 100_000, size: 1 },
  ];
  assert.equal(
    remappedName(parent, { uids: split, gids: [mapping] }),
    remappedName(parent, { uids: split.toReversed(), gids: [mapping] }),
    'whatever the order of the mappings',
  );
  assert.notEqual(name, remappedName(parent, { uids: split, gids: [mapping] }));
});

test('ids of the host', () => {
  assert.equal(toHost(0, [mapping]), 100_000);
  assert.equal(toHost(65_535, [mapping]), 165_535);
  assert.throws(() => toHost(65_536, [mapping]), /cannot be mapped/);
});
