import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { readerOf, resolveInRoot } from './root-files.ts';

const top = mkdtempSync(path.join(tmpdir(), 'gantry-ctr-'));
after(() => rmSync(top, { recursive: true }));
const root = path.join(top, 'root');
mkdirSync(path.join(root, 'etc'), { recursive: true });
mkdirSync(path.join(root, 'usr/etc'), { recursive: true });
writeFileSync(path.join(top, 'secret'), 'of the host');
writeFileSync(path.join(root, 'usr/etc/passwd'), 'of the container');
symlinkSync('/usr/etc/passwd', path.join(root, 'etc/passwd'));
symlinkSync('../../../../secret', path.join(root, 'etc/group'));
symlinkSync('loop', path.join(root, 'etc/loop'));

test('links lead to files of the root only', () => {
  assert.equal(readerOf(root)('etc/passwd'), 'of the container');
  assert.equal(readerOf(root)('etc/group'), undefined);
  assert.equal(resolveInRoot(root, '../../usr/./etc'), path.join(root, 'usr/etc'));
});

test('files that are not there, and loops', () => {
  assert.equal(readerOf(root)('etc/shadow'), undefined);
  assert.throws(() => readerOf(root)('etc/loop'), /too many links/);
});
