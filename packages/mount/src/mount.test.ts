import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { lookupMount, MS, mkfifo, mount as mountCall, readMountInfo } from '@gantry/sys';
import * as room from './index.ts';
import type { Mount } from './mount.ts';

const root = process.geteuid?.() === 0 ? false : 'needs root';

// On a tmpfs of its own: whatever the machine's /tmp is, overlay upper directories and idmaps work there.
async function place(t: { after(fn: () => Promise<void>): void }): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'gantry-mount-test-'));
  await mountCall('none', dir, 'tmpfs', 0);
  t.after(async () => {
    await room.unmountRecursive(dir);
    await room.removeAllBeneath(dir);
  });
  return dir;
}

function layers(dir: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const path = join(dir, `snapshots-with-a-long-name-${index}`, 'fs');
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, `file-${index}`), String(index));
    return path;
  });
}

test('options are sorted as containerd sorts them', () => {
  const parsed = room.parseMountOptions([
    'rbind',
    'ro',
    'nosuid',
    'rw',
    'rprivate',
    'size=1k',
    'loop',
    'X-containerd.mkdir.path=/x',
    'uidmap=0:1000:10,10:5:1',
    'gidmap=0:2000:10',
    'constructor',
  ]);
  assert.deepEqual(parsed, {
    flags: MS.BIND | MS.REC | MS.NOSUID,
    data: ['size=1k', 'constructor'],
    propagation: MS.PRIVATE | MS.REC,
    losetup: true,
    idmap: {
      uid: [
        { container: 0, host: 1000, size: 10 },
        { container: 10, host: 5, size: 1 },
      ],
      gid: [{ container: 0, host: 2000, size: 10 }],
    },
  });
  assert.throws(() => room.parseMountOptions(['uidmap=0:0']), /invalid id mapping/);
  assert.throws(() => room.parseMountOptions(['uidmap=0:0:1']), /both/);
});

test('lower directories are split at colons that are not escaped', () => {
  assert.deepEqual(room.splitLowerdir('/a\\:b:/c::/d::/e'), [
    { path: '/a:b', data: false },
    { path: '/c', data: false },
    { path: '/d', data: true },
    { path: '/e', data: true },
  ]);
});

test('read-only mounts of an overlay and of a bind', () => {
  const overlay: Mount = {
    type: 'overlay',
    source: 'overlay',
    options: ['index=off', 'workdir=/w', 'upperdir=/u', 'lowerdir=/a:/b'],
  };
  const bind: Mount = { type: 'bind', source: '/s', options: ['rbind', 'rw'] };
  assert.deepEqual(room.readonlyMounts([overlay, bind]), [
    { ...overlay, options: ['index=off', 'lowerdir=/u:/a:/b'] },
    { ...bind, options: ['rbind', 'ro'] },
  ]);
});

test('a read-only bind, propagation and unmounting', { skip: root }, async (t) => {
  const dir = await place(t);
  const [source, target] = [join(dir, 'source'), join(dir, 'target')];
  mkdirSync(source);
  mkdirSync(target);
  const mount: Mount = { type: 'bind', source, options: ['rbind', 'ro', 'nodev', 'rshared'] };
  await room.mountAll([mount, mount], target);
  assert.throws(() => writeFileSync(join(target, 'x'), ''), { code: 'EROFS' });
  writeFileSync(join(source, 'x'), '');
  const info = lookupMount(target)!;
  assert.ok(info.options.includes('ro') && info.options.includes('nodev') && info.optional[0]?.startsWith('shared:'));
  await room.unmountAll(target);
  assert.equal(lookupMount(target)!.mountPoint, dir);
  await room.unmountAll(target);
  await room.unmountAll(join(dir, 'not there'));
});

test('a mount whose target leads out stays inside, and a failure undoes the rest', { skip: root }, async (t) => {
  const dir = await place(t);
  const target = join(dir, 'rootfs');
  mkdirSync(join(target, 'etc'), { recursive: true });
  mkdirSync(join(dir, 'etc'));
  symlinkSync('/etc', join(target, 'absolute'));
  symlinkSync('../../../etc', join(target, 'relative'));
  const tmpfs: Mount = { type: 'tmpfs', source: 'tmpfs', options: [] };
  for (const name of ['absolute', 'relative', '../../etc']) {
    await room.mountAll([{ ...tmpfs, target: name }], target);
    assert.equal(lookupMount(join(target, 'etc'))!.mountPoint, join(target, 'etc'));
    await room.unmountRecursive(target);
  }
  await assert.rejects(room.mountAll([tmpfs, { type: 'bind', source: '/nonexistent', options: ['bind'] }], target), {
    code: 'ENOENT',
  });
  assert.deepEqual(
    readMountInfo().filter((info) => info.mountPoint.startsWith(target)),
    [],
  );
  await room.mountAll([{ ...tmpfs, target: 'etc' }], 'rootfs', dir);
  assert.equal(lookupMount(join(target, 'etc'))!.mountPoint, join(target, 'etc'));
});

for (const way of ['context', 'descriptors'] as const) {
  test(`an overlay of 130 layers by ${way}`, { skip: root }, async (t) => {
    const dir = await place(t);
    const paths = layers(dir, 130);
    for (const name of ['upper', 'work', 'merged']) mkdirSync(join(dir, name));
    const options = [`upperdir=${dir}/upper`, `workdir=${dir}/work`, `lowerdir=${paths.join(':')}`];
    assert.ok(options.join(',').length > 4096);
    await room.mountLongOverlay(join(dir, 'merged'), MS.NOSUID, options, way);
    assert.equal(readdirSync(join(dir, 'merged')).length, 130);
    writeFileSync(join(dir, 'merged/new'), 'x');
    assert.equal(readFileSync(join(dir, 'upper/new'), 'utf8'), 'x');
    assert.ok(lookupMount(join(dir, 'merged'))!.options.includes('nosuid'));
  });
}

test('a long overlay, read-only, for the length of a function', { skip: root }, async (t) => {
  const dir = await place(t);
  const mount: Mount = { type: 'overlay', source: 'overlay', options: [`lowerdir=${layers(dir, 130).join(':')}`] };
  let where = '';
  const count = await room.withTempMount([mount], join(dir, 'temporary'), async (path) => {
    where = path;
    return readdirSync(path).length;
  });
  assert.equal(count, 130);
  assert.equal(existsSync(where), false);
  const failure = room.withTempMount([mount], join(dir, 'temporary'), () => Promise.reject(new Error('mine')));
  await assert.rejects(failure, /mine/);
  assert.deepEqual(readdirSync(join(dir, 'temporary')), []);
  await room.mountAll([mount], mkdtempSync(join(dir, 'temporary', 'gantry-mount-')));
  await room.sweepTempMounts(join(dir, 'temporary'));
  assert.deepEqual(readdirSync(join(dir, 'temporary')), []);
});

test('a volatile overlay, for the length of a function, can be mounted again', { skip: root }, async (t) => {
  const dir = await place(t);
  const [lower] = layers(dir, 1);
  for (const name of ['upper', 'work', 'merged']) mkdirSync(join(dir, name));
  const directories = [`lowerdir=${lower}`, `upperdir=${dir}/upper`, `workdir=${dir}/work`];
  const mount: Mount = { type: 'overlay', source: 'overlay', options: ['volatile', ...directories] };
  await room.withTempMount([mount], join(dir, 'temporary'), async (path) => writeFileSync(join(path, 'new'), 'x'));
  await room.mountAll([mount], join(dir, 'merged'));
  assert.equal(readFileSync(join(dir, 'merged/new'), 'utf8'), 'x');
});

test('idmapped binds and overlays', { skip: root }, async (t) => {
  const dir = await place(t);
  if (!(await room.supportsIdmappedMounts(dir))) return t.skip('tmpfs cannot be idmapped on this kernel');
  const [low] = layers(dir, 1);
  for (const name of ['bind', 'upper', 'work', 'merged']) mkdirSync(join(dir, name));
  const map = ['uidmap=0:1000:100', 'gidmap=0:2000:100'];
  await room.mountAll([{ type: 'bind', source: low!, options: ['rbind', 'ro', ...map] }], join(dir, 'bind'));
  const owner = statSync(join(dir, 'bind', 'file-0'));
  assert.deepEqual([owner.uid, owner.gid], [1000, 2000]);
  assert.ok(lookupMount(join(dir, 'bind'))!.options.includes('ro'));
  const options = [`lowerdir=${low}`, `upperdir=${dir}/upper`, `workdir=${dir}/work`, ...map];
  await room.mountAll([{ type: 'overlay', source: 'overlay', options }], join(dir, 'merged'));
  assert.equal(statSync(join(dir, 'merged', 'file-0')).uid, 1000);
  assert.equal(readMountInfo().filter((info) => info.mountPoint.includes('gantry-idmap-')).length, 0);
});

test('a file through a loop device', { skip: root }, async (t) => {
  const dir = await place(t);
  try {
    execFileSync('mkfs.ext4', ['-q', join(dir, 'image'), '1M'], { stdio: 'ignore' });
  } catch {
    return t.skip('no mkfs.ext4');
  }
  mkdirSync(join(dir, 'mnt'));
  const mount: Mount = { type: 'ext4', source: join(dir, 'image'), options: ['loop', 'ro'] };
  await room.mountAll([mount], join(dir, 'mnt'));
  const info = lookupMount(join(dir, 'mnt'))!;
  assert.match(info.source, /^\/dev\/loop\d+$/);
  await room.unmountAll(join(dir, 'mnt'));
  assert.ok(existsSync(join(dir, 'image')));
});

test('overlay is probed', { skip: root }, async (t) => {
  const dir = await place(t);
  assert.deepEqual(await room.supportsOverlay(dir), { supported: true });
  assert.equal(await room.needsUserxattr(dir), false);
  assert.equal(await room.supportsIndex('/nonexistent'), false);
  assert.deepEqual(readdirSync(dir), []);
});

test('what a killed prober left mounted is swept, through a link to the directory too', { skip: root }, async (t) => {
  const dir = await place(t);
  for (const via of [dir, `${dir}-link`]) {
    const left = join(dir, 'gantry-probe-abc123/merged');
    mkdirSync(left, { recursive: true });
    mkdirSync(join(dir, 'kept'), { recursive: true });
    await room.mountAll([{ type: 'tmpfs', source: 'none', options: [] }], left);
    writeFileSync(join(left, 'file'), '');
    if (via !== dir) {
      symlinkSync(dir, via);
      t.after(() => rmSync(via));
    }
    await room.sweepProbes(via);
    assert.ok(!readMountInfo().some(({ mountPoint }) => mountPoint === left));
    assert.deepEqual(readdirSync(dir), ['kept']);
  }
  await room.sweepProbes(join(dir, 'nonexistent'));
});

test('the recursive delete stops at a mount and at links', { skip: root }, async (t) => {
  const dir = await place(t);
  const tree = join(dir, 'tree');
  mkdirSync(join(tree, 'a/b/mounted'), { recursive: true });
  mkdirSync(join(dir, 'outside'));
  writeFileSync(join(dir, 'outside/kept'), '');
  symlinkSync(join(dir, 'outside'), join(tree, 'a/link'));
  mkfifo(join(tree, 'fifo'), 0o600);
  await room.mountAll([{ type: 'bind', source: join(dir, 'outside'), options: ['bind'] }], join(tree, 'a/b/mounted'));
  await assert.rejects(room.removeAllBeneath(tree), { code: 'EXDEV' });
  assert.ok(existsSync(join(dir, 'outside/kept')));
  await room.unmountRecursive(tree);
  await room.removeAllBeneath(tree);
  assert.equal(existsSync(tree), false);
  assert.ok(existsSync(join(dir, 'outside/kept')));
  await room.removeAllBeneath(tree);
  await room.removeAllBeneath(join(dir, 'outside'), { keep: true });
  assert.deepEqual(readdirSync(join(dir, 'outside')), []);
});

test('the recursive delete of a tree deeper than any path', { skip: root }, async (t) => {
  const dir = await place(t);
  const script = `const fs = require('fs'); for (let i = 0; i < 3000; i++) { fs.mkdirSync('x'); process.chdir('x'); fs.writeFileSync('f', ''); }`;
  execFileSync(process.execPath, ['-e', script], { cwd: dir });
  await room.removeAllBeneath(join(dir, 'x'));
  assert.deepEqual(readdirSync(dir), []);
});
