import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { lookupMount, readMountInfo } from '@gantry/sys';
import { erofsHandler, mountErofsByLoop } from './erofs-handler.ts';
import type { Mount } from './mount.ts';
import { unmountAll, unmountRecursive } from './perform.ts';

const kernel = /^\s*erofs$/m.test(readFileSync('/proc/filesystems', 'utf8'));
const skip =
  process.geteuid?.() !== 0
    ? 'needs root'
    : !kernel
      ? 'the kernel has no erofs'
      : spawnSync('mkfs.erofs', ['--help']).status === 0
        ? false
        : 'no mkfs.erofs (erofs-utils)';

function image(t: TestContext): { at: (name: string) => string; mount: Mount } {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-erofs-handler-'));
  t.after(async () => {
    await unmountRecursive(directory);
    rmSync(directory, { recursive: true });
  });
  const at = (name: string) => path.join(directory, name);
  mkdirSync(at('tree'));
  writeFileSync(at('tree/file'), 'content');
  execFileSync('mkfs.erofs', ['--quiet', at('image'), at('tree')], { stdio: 'ignore' });
  return { at, mount: { type: 'erofs', source: at('image'), options: ['ro', 'loop'] } };
}

test('an image is mounted as a file, or on a loop device by a kernel that cannot', { skip }, async (t) => {
  const { at, mount } = image(t);
  const active = await erofsHandler.mount(mount, at('a/mnt'), []);
  assert.equal(readFileSync(at('a/mnt/file'), 'utf8'), 'content');
  assert.deepEqual(active.mountPoint, at('a/mnt'));
  const points = () => new Set(readMountInfo().map(({ mountPoint }) => mountPoint));
  assert.equal(await erofsHandler.isMounted(at('a/mnt'), points()), true);
  await erofsHandler.unmount(at('a/mnt'));
  assert.equal(await erofsHandler.isMounted(at('a/mnt'), points()), false);
  // What is not mounted, or not there, is well.
  await erofsHandler.unmount(at('a/mnt'));
  await erofsHandler.unmount(at('nothing'));
});

test('on a loop device, which goes with the mount', { skip }, async (t) => {
  const { at, mount } = image(t);
  mkdirSync(at('mnt'));
  const { source } = await mountErofsByLoop({ ...mount, options: ['ro'] }, at('mnt'));
  assert.match(source, /^\/dev\/loop\d+$/);
  assert.equal(lookupMount(at('mnt'))!.source, source);
  assert.equal(readFileSync(at('mnt/file'), 'utf8'), 'content');
  await unmountAll(at('mnt'));
  const attached = spawnSync('losetup', ['-j', at('image')], { encoding: 'utf8' }).stdout;
  assert.equal(attached, '');
});

test('more options than mount(2) takes', { skip }, async (t) => {
  const { at, mount } = image(t);
  const many = Array.from({ length: 200 }, () => 'cache_strategy=readaround');
  await erofsHandler.mount({ ...mount, options: ['ro', 'nosuid', ...many] }, at('mnt'), []);
  assert.equal(readFileSync(at('mnt/file'), 'utf8'), 'content');
  const { options } = lookupMount(at('mnt'))!;
  assert.ok(options.includes('ro') && options.includes('nosuid'));
});

test('refuses what it cannot mount', { skip }, async (t) => {
  const { at, mount } = image(t);
  const refused = (wanted: Mount, message: RegExp) =>
    assert.rejects(erofsHandler.mount(wanted, at('mnt'), []), (error) => {
      assert.ok(hasCode(error, Code.Unimplemented));
      assert.match((error as Error).message, message);
      return true;
    });
  await refused({ ...mount, type: 'ext4' }, /cannot mount ext4/);
  await refused({ ...mount, options: ['ro', `X-containerd.dmverity=${at('x')}`] }, /requires dm-verity/);
  writeFileSync(at('other'), Buffer.alloc(8192));
  await assert.rejects(erofsHandler.mount({ ...mount, source: at('other') }, at('mnt'), []), { code: 'EINVAL' });
});
