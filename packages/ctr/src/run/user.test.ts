import assert from 'node:assert/strict';
import { test } from 'node:test';
import { additionalGroups, lookUpUser } from './user.ts';

const files: Record<string, string> = {
  'etc/passwd': '# users\nroot:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var:/bin/false\nbroken\n',
  'etc/group': 'root:x:0:\nwww-data:x:33:\nextra:x:44:www-data,other\n',
};
const read = (path: string): string | undefined => files[path];

test('users and groups by name and number', () => {
  assert.deepEqual(lookUpUser('www-data', read), { uid: 33, gid: 33 });
  assert.deepEqual(lookUpUser('33', read), { uid: 33, gid: 33 });
  assert.deepEqual(lookUpUser('12345', read), { uid: 12345, gid: 0 });
  assert.deepEqual(lookUpUser('33:44', read), { uid: 33, gid: 44 });
  assert.deepEqual(lookUpUser('www-data:extra', read), { uid: 33, gid: 44 });
  assert.deepEqual(lookUpUser('7:extra', read), { uid: 7, gid: 44 });
});

test('users that a container does not know', () => {
  assert.throws(() => lookUpUser('nobody', read), /no users found/);
  assert.throws(() => lookUpUser('33:nobody', read), /no groups found/);
  assert.throws(() => lookUpUser('a:b:c', read), /invalid USER value a:b:c/);
  assert.throws(() => lookUpUser(':33', read), /invalid USER/);
  assert.throws(() => lookUpUser('4294967296', read), /too large/);
});

test('numbers need no files', () => {
  assert.deepEqual(
    lookUpUser('5:6', () => undefined),
    { uid: 5, gid: 6 },
  );
  assert.deepEqual(
    additionalGroups('5', 6, () => undefined),
    [6],
  );
});

test('further groups come behind the own one', () => {
  assert.deepEqual(additionalGroups('www-data', 33, read), [33, 44]);
  assert.deepEqual(additionalGroups('33', 33, read), [33, 44]);
  assert.deepEqual(additionalGroups('www-data:extra', 44, read), [44]);
  assert.deepEqual(additionalGroups('root', 0, read), [0]);
});
