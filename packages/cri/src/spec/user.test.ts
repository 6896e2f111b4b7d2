import assert from 'node:assert/strict';
import { test } from 'node:test';
import { processUser, resolveUser } from './user.ts';

const files = {
  passwd: '# comment\nroot:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n',
  group: 'root:x:0:\nstaff:x:50:alice,bob\nusers:x:100:bob\nalice:x:1001:\n',
};

test('users are found by name and number, with or without a group', () => {
  assert.deepEqual(resolveUser('', files), { uid: 0, gid: 0 });
  assert.deepEqual(resolveUser('alice', files), { uid: 1000, gid: 1001 });
  assert.deepEqual(resolveUser('1000', files), { uid: 1000, gid: 1001 });
  assert.deepEqual(resolveUser('2000', files), { uid: 2000, gid: 0 });
  assert.deepEqual(resolveUser('alice:users', files), { uid: 1000, gid: 100 });
  assert.deepEqual(resolveUser('7:8', { passwd: '', group: '' }), { uid: 7, gid: 8 });
  assert.throws(() => resolveUser('nobody', files), /unable to find user nobody/);
  assert.throws(() => resolveUser('alice:none', files), /unable to find group none/);
  assert.throws(() => resolveUser('4294967296', files), /out of range/);
});

test('groups of the image are added, or with the strict policy only those asked for', () => {
  const merged = processUser({ user: '1000', supplemental: [7n], strict: false }, files);
  assert.deepEqual(merged.additionalGids, [7, 50, 1001]);
  const strict = processUser({ user: '1000', supplemental: [7n], strict: true }, files);
  assert.deepEqual(strict.additionalGids, [7, 1001]);
  for (const group of [-5n, 1n << 40n])
    assert.throws(() => processUser({ user: '0', supplemental: [group], strict: true }, files), /out of range/);
  assert.throws(() => resolveUser('2147483648', files), /uid out of range/);
  assert.throws(() => resolveUser('1:-1', files), /gid out of range/);
});
