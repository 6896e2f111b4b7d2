import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { getXattr } from '@gantry/sys/fast-at.ts';
import { type FixtureEntry, listTree, makeTar, needsRoot, tempDirectory, unpack } from './testing/fixtures.ts';

const merged = (root: string) => ({ root, kind: 'merged' as const });

function makeRoot(t: { after(fn: () => void): void }, ...names: string[]): string {
  const root = path.join(tempDirectory(t), 'root');
  mkdirSync(root);
  for (const name of names) {
    const full = path.join(root, name);
    mkdirSync(path.dirname(full), { recursive: true });
    if (name.endsWith('/')) mkdirSync(full, { recursive: true });
    else writeFileSync(full, name);
  }
  return root;
}

test('unpacks what GNU tar packs, the same in every respect', { skip: needsRoot }, async (t) => {
  const directory = tempDirectory(t);
  const script = `
    mkdir -p a/b/c; echo one > a/one; echo two > a/b/two; ln a/one a/b/hard; ln -s ../one a/b/soft; ln -s /nowhere dangling
    mkfifo a/pipe; mknod a/null c 1 3; mknod a/disk b 7 9; truncate -s 5M a/holes; echo end >> a/holes
    chmod 4755 a/one; chmod 1777 a/b; chmod 2750 a/b/c; chown 1234:5678 a/b/two; chown -h 12:34 a/b/soft; chmod 000 a/b/two
    touch -d @1400000000 a/b/two a/one; touch -h -d @1400000001 a/b/soft; touch -d @1400000002 a/b/c; touch -d @1400000003 a/b a`;
  mkdirSync(path.join(directory, 'in'));
  execFileSync('sh', ['-ec', script], { cwd: path.join(directory, 'in') });
  for (const format of ['gnu', 'posix']) {
    const archive = execFileSync('tar', [`--format=${format}`, '-S', '-C', path.join(directory, 'in'), '-c', '.'], {
      maxBuffer: 1 << 28,
    });
    const out = path.join(directory, `out-${format}`);
    mkdirSync(out);
    const result = await unpack(archive, merged(out));
    assert.equal(result.size, archive.length);
    assert.deepEqual(listTree(out), listTree(path.join(directory, 'in')));
    assert.ok(lstatSync(path.join(out, 'a/holes')).blocks * 512 < 1 << 20, 'holes stay holes');
  }
});

test('attributes and file capabilities survive, also with an owner and hard links', { skip: needsRoot }, async (t) => {
  const root = makeRoot(t);
  const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
  const xattrs: [string, Buffer][] = [
    ['security.capability', capability],
    ['user.note', Buffer.from([1, 0, 255])],
  ];
  const common = { uid: 7, gid: 8, mode: 0o755 };
  await unpack(
    makeTar(
      { path: 'ping', xattrs, content: 'x', ...common },
      { path: 'again', type: '1', linkPath: 'ping', ...common },
    ),
    merged(root),
  );
  for (const name of ['ping', 'again']) {
    assert.deepEqual(getXattr(path.join(root, name), 'security.capability'), capability);
    assert.deepEqual(getXattr(path.join(root, name), 'user.note'), Buffer.from([1, 0, 255]));
  }
  assert.equal(lstatSync(path.join(root, 'ping')).nlink, 2);
});

test('later entries replace earlier ones of any type; directories merge', { skip: needsRoot }, async (t) => {
  const root = makeRoot(t, 'file', 'dir/inner', 'full/deep/x', 'keep/old');
  symlinkSync('file', path.join(root, 'link'));
  await unpack(
    makeTar(
      { path: 'file/' },
      { path: 'file/now-a-directory', content: '1' },
      { path: 'dir', content: 'now a file' },
      { path: 'full', type: '2', linkPath: 'keep' },
      { path: 'link', content: 'now a file' },
      { path: 'keep/' },
      { path: 'keep/new', content: '2' },
      { path: 'keep/new', content: '3' },
    ),
    merged(root),
  );
  assert.deepEqual(
    listTree(root).map((line) => line.split(' ')[0]),
    ['dir', 'file', 'file/now-a-directory', 'full', 'keep', 'keep/new', 'keep/old', 'link'],
  );
  assert.equal(readFileSync(path.join(root, 'keep/new'), 'utf8'), '3');
  assert.equal(readFileSync(path.join(root, 'link'), 'utf8'), 'now a file');
});

test('merged: whiteouts remove, opaque directories keep only what the layer brings', async (t) => {
  const root = makeRoot(t, 'gone', 'tree/a/b', 'o/old', 'o/sub/old', 'o/other/old', 'late/old');
  await unpack(
    makeTar(
      { path: '.wh.gone' },
      { path: '.wh.tree' },
      { path: '.wh.never-there' },
      { path: 'o/.wh..wh..opq' },
      { path: 'o/new', content: '1' },
      // Opaque after its directory's entries, and with a parent that has no entry of its own.
      { path: 'late/fresh/new', content: '2' },
      { path: 'late/.wh..wh..opq' },
      { path: '.wh..wh.plnk/1.2', content: 'aufs' },
    ),
    merged(root),
  );
  const names = listTree(root).map((line) => line.split(' ')[0]);
  assert.deepEqual(names, ['late', 'late/fresh', 'late/fresh/new', 'o', 'o/new']);
});

test('overlay: marks are the ones overlayfs reads, and parents are like the ones below', {
  skip: needsRoot,
}, async (t) => {
  const directory = tempDirectory(t);
  const at = (name: string) => path.join(directory, name);
  for (const name of ['upper', 'work', 'lower1/etc', 'lower2/etc/conf', 'lower2/var/gone', 'lower2/usr/lib', 'mnt']) {
    mkdirSync(at(name), { recursive: true });
  }
  for (const name of [
    'lower2/etc/conf/old',
    'lower2/var/gone/x',
    'lower2/whited',
    'lower2/usr/lib/so',
    'lower2/etc/stay',
  ]) {
    writeFileSync(at(name), 'old');
  }
  symlinkSync('usr/lib', at('lower2/lib'));
  execFileSync(
    'sh',
    ['-ec', 'chmod 1770 lower2/etc/conf; chown 3:4 lower2/etc/conf; touch -d @1300000000 lower2/etc/conf'],
    {
      cwd: directory,
    },
  );
  const result = await unpack(
    makeTar(
      { path: '.wh.whited' },
      { path: 'var/.wh.gone' },
      { path: 'var/gone/' },
      { path: 'var/gone/new', content: '1' },
      { path: 'etc/conf/new', content: '1' },
      { path: 'usr/.wh..wh..opq' },
      { path: 'usr/bin/x', content: '1' },
      { path: 'run/' },
      { path: 'var/run', type: '2', linkPath: '/run2' },
      { path: 'var/run/pid', content: '1' },
      { path: 'evil/', xattrs: [['trusted.overlay.redirect', Buffer.from('/etc')]] },
    ),
    { root: at('upper'), kind: 'overlay', parents: [at('lower1'), at('lower2')] },
  );
  assert.equal(result.files, 8);
  const conf = lstatSync(at('upper/etc/conf'));
  assert.deepEqual([conf.mode & 0o7777, conf.uid, conf.gid, conf.mtimeMs], [0o1770, 3, 4, 1_300_000_000_000]);
  assert.ok(lstatSync(at('upper/whited')).isCharacterDevice());
  const lower = `${at('lower1')}:${at('lower2')}`;
  const options = `lowerdir=${lower},upperdir=${at('upper')},workdir=${at('work')}`;
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, at('mnt')]);
  try {
    const names = listTree(at('mnt')).map((line) => line.split(' ')[0]);
    assert.deepEqual(names, [
      'etc',
      'etc/conf',
      'etc/conf/new',
      'etc/conf/old',
      'etc/stay',
      'evil',
      'lib',
      'run',
      'run2',
      'run2/pid',
      'usr',
      'usr/bin',
      'usr/bin/x',
      'var',
      'var/gone',
      'var/gone/new',
      'var/run',
    ]);
  } finally {
    execFileSync('umount', [at('mnt')]);
  }
});

test('hostile: nothing is written outside the root, whatever the names and links', async (t) => {
  const directory = tempDirectory(t);
  const root = path.join(directory, 'root');
  mkdirSync(root);
  mkdirSync(path.join(directory, 'outside'));
  writeFileSync(path.join(directory, 'outside/secret'), 'secret');
  const before = readdirSync(directory).sort();
  const outside = path.join(directory, 'outside');
  const attacks: FixtureEntry[][] = [
    [{ path: '../../outside/a', content: 'x' }],
    [{ path: '/../outside/a', content: 'x' }],
    [{ path: `${outside}/a`, content: 'x' }],
    [
      { path: 'l1', type: '2', linkPath: '../outside' },
      { path: 'l1/a', content: 'x' },
    ],
    [
      { path: 'l2', type: '2', linkPath: outside },
      { path: 'l2/a', content: 'x' },
    ],
    [
      { path: 'l3', type: '2', linkPath: '..' },
      { path: 'l4', type: '2', linkPath: 'l3/..' },
      { path: 'l4/outside/a', content: 'x' },
    ],
    [
      { path: 'l5', type: '2', linkPath: `${outside}/a` },
      { path: 'l5', content: 'x' },
    ],
    [{ path: 'l6', type: '2', linkPath: outside }, { path: 'l6/.wh.secret' }],
    [{ path: 'l7', type: '2', linkPath: outside }, { path: 'l7/.wh..wh..opq' }],
    [
      { path: 'cwd', type: '2', linkPath: '/proc/self/cwd' },
      { path: 'cwd/a', content: 'x' },
    ],
  ];
  for (const attack of attacks) await unpack(makeTar(...attack), merged(root));
  assert.deepEqual(readdirSync(directory).sort(), before);
  assert.deepEqual(readdirSync(outside), ['secret']);
  const refused: [FixtureEntry[], RegExp][] = [
    [[{ path: 'h1', type: '1', linkPath: '../outside/secret' }], /no such file or directory/],
    [[{ path: 'h2', type: '1', linkPath: `${outside}/secret` }], /no such file or directory/],
    [[{ path: 'h3', type: '1', linkPath: '..' }], /operation not permitted/],
    [[{ path: '.wh...' }], /whiteout/],
    [[{ path: 'd/.wh..' }], /whiteout/],
    [[{ path: 'd/.wh.' }], /whiteout/],
    [
      [
        { path: 'f', content: '' },
        { path: 'f/under', content: '' },
      ],
      /not a directory/,
    ],
    [
      [
        { path: 'loop', type: '2', linkPath: 'loop' },
        { path: 'loop/x', content: '' },
      ],
      /too many levels of symbolic links/,
    ],
    [[{ path: 'x'.repeat(400), content: '' }], /open x{140}…x{140}: file name too long/],
    [[{ path: `a\x1b[2J\n/${'x'.repeat(256)}`, content: '' }], /open a\\x1b\[2J\\x0a\/x+: file name too long/],
    [[{ path: 'odd', type: 'Q' }], /unhandled tar header type 81/],
  ];
  for (const [attack, reason] of refused) {
    const fresh = makeRoot(t);
    await assert.rejects(unpack(makeTar(...attack), merged(fresh)), reason, attack.at(-1)!.path);
  }
  assert.equal(readFileSync(path.join(outside, 'secret'), 'utf8'), 'secret');
  assert.equal(lstatSync(path.join(outside, 'secret')).nlink, 1);
});

test('a link in the tree leads within the root, as in a container', async (t) => {
  const root = makeRoot(t, 'usr/lib/a');
  symlinkSync('/usr/lib', path.join(root, 'lib'));
  await unpack(makeTar({ path: 'lib/b', content: 'x' }, { path: 'c', type: '1', linkPath: 'lib/a' }), merged(root));
  assert.deepEqual(readdirSync(path.join(root, 'usr/lib')).sort(), ['a', 'b']);
  assert.equal(readlinkSync(path.join(root, 'lib')), '/usr/lib');
  assert.equal(lstatSync(path.join(root, 'c')).nlink, 2);
});

test('directories ten thousand deep, and their removal', async (t) => {
  const root = makeRoot(t);
  const deep = 'd/'.repeat(10_000);
  const result = await unpack(makeTar({ path: `${deep}file`, content: 'x' }), merged(root));
  assert.equal(result.files, 1);
  await unpack(makeTar({ path: `${deep}.wh.file` }, { path: `${'d/'.repeat(5_000)}x`, content: '' }), merged(root));
  await unpack(makeTar({ path: '.wh.d' }), merged(root));
  assert.ok(!existsSync(path.join(root, 'd')));
});

test('a limit on the unpacked size stops a bomb', async (t) => {
  const directory = tempDirectory(t);
  const root = path.join(directory, 'root');
  mkdirSync(root);
  const { applyLayer } = await import('./apply-layer.ts');
  const { jobContext } = await import('./testing/fixtures.ts');
  const { gzipSync } = await import('node:zlib');
  const file = path.join(directory, 'bomb');
  writeFileSync(file, gzipSync(makeTar({ path: 'zeros', content: Buffer.alloc(20 << 20) })));
  const params = { source: { kind: 'file' as const, path: file }, target: merged(root), maxSize: 1 << 20 };
  await assert.rejects(applyLayer(params, jobContext()), /larger than 1048576 bytes/);
  assert.ok(lstatSync(path.join(root, 'zeros')).size <= 1 << 20);
});
