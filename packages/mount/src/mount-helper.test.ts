import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { accessSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { lookupMount } from '@gantry/sys';
import { mountAll, mountHelper, readonlyMounts, unmountAll } from './index.ts';

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'needs root';
  try {
    accessSync('/dev/fuse');
    execFileSync('fuse-overlayfs', ['--version'], { stdio: 'ignore' });
  } catch {
    return '/dev/fuse or fuse-overlayfs is not there';
  }
  return existsSync('/sbin/mount.fuse3') || existsSync('/usr/sbin/mount.fuse3') ? false : 'mount.fuse3 is not there';
}

test('who mounts what', () => {
  assert.deepEqual(mountHelper('fuse3.fuse-overlayfs'), { program: 'mount.fuse3', subtype: 'fuse-overlayfs' });
  assert.deepEqual(mountHelper('fuse.sshfs'), { program: 'mount.fuse', subtype: 'sshfs' });
  assert.equal(mountHelper('fuseblk'), undefined);
  assert.equal(mountHelper('overlay'), undefined);
});

test('fuse-overlayfs, writable and for reading only', { skip: missing() }, async () => {
  const dir = mkdtempSync(join(tmpdir(), 'gantry-fuse-'));
  const at = (name: string) => join(dir, name);
  for (const name of ['lower', 'upper', 'work', 'merged/inner']) mkdirSync(at(name), { recursive: true });
  writeFileSync(at('lower/below'), '');
  const options = [`lowerdir=${at('lower')}`, `upperdir=${at('upper')}`, `workdir=${at('work')}`, 'X-containerd.x=y'];
  const mount = { type: 'fuse3.fuse-overlayfs', source: 'overlay', target: 'inner', options };
  const merged = at('merged/inner');
  try {
    await mountAll([mount], at('merged'));
    assert.equal((await lookupMount(merged))?.fsType, 'fuse.fuse-overlayfs');
    writeFileSync(join(merged, 'above'), '');
    await unmountAll(merged);
    await mountAll(readonlyMounts([mount]), at('merged'));
    assert.deepEqual(readdirSync(merged).sort(), ['above', 'below']);
    assert.throws(() => writeFileSync(join(merged, 'more'), ''), /EROFS/);
  } finally {
    await unmountAll(merged);
  }
  await assert.rejects(
    mountAll([{ ...mount, options: [`lowerdir=${at('nothing')}`] }], at('merged')),
    /mount helper \[mount\.fuse3 overlay .*merged\/inner -o lowerdir=.* -t fuse-overlayfs\] failed: .*exit status/,
  );
  assert.deepEqual(readdirSync(merged), []);
  rmSync(dir, { recursive: true });
});
