import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setXattr } from '@gantry/sys/fast-at.ts';
import { type DiffLayerParams, type DiffLayerResult, diffLayer } from './diff-layer.ts';
import { jobContext, listTree, makeTar, needsRoot, tempDirectory, unpack } from './testing/fixtures.ts';

const lowerScript = `
  mkdir -p etc usr/lib var/log/old same; echo 1 > etc/a; echo 2 > etc/gone; echo 3 > usr/lib/so; ln usr/lib/so usr/lib/so.1
  echo 4 > var/log/old/x; echo 5 > same/untouched; ln -s a etc/link; mknod null c 1 3; echo 6 > becomes-dir; mkdir becomes-file
  echo 7 > becomes-file/x; echo 8 > owner; touch -d @1400000000 etc/a same/untouched same usr/lib/so owner`;
const changeScript = `
  echo changed > etc/a; touch -d @1500000000 etc/a; rm etc/gone; ln usr/lib/so usr/lib/so.2; rm -r var/log/old; rm becomes-dir
  mkdir becomes-dir; echo 9 > becomes-dir/y; rm -r becomes-file; echo 10 > becomes-file; chown 5:6 owner; chmod 4711 owner
  ln -sf b etc/link; mkfifo pipe; mknod disk b 8 300; truncate -s 3M holes; echo end >> holes; truncate -s 70000 all-hole
  mkdir -p "$(printf '%090d/%090d/%090d' 1 2 3)"; echo deep > "$(printf '%090d/%090d/%090d/%090d' 1 2 3 4)"
  echo bytes > "$(printf '\\377\\376')"; echo umlaut > ü; ln -s "$(printf '%0150d' 1)" longlink; mkdir -m 1777 tmp
  touch -d @1500000001 tmp becomes-dir; touch -d @1500000002 holes pipe disk`;

/** A lower tree and a changed copy of it. */
function makeTrees(directory: string): { lower: string; upper: string } {
  const lower = path.join(directory, 'lower');
  const upper = path.join(directory, 'upper');
  mkdirSync(lower);
  execFileSync('sh', ['-ec', lowerScript], { cwd: lower });
  execFileSync('cp', ['-a', lower, upper]);
  execFileSync('sh', ['-ec', changeScript], { cwd: upper });
  setXattr(path.join(upper, 'etc/a'), 'user.note', Buffer.from([0, 61, 10, 255]));
  setXattr(path.join(upper, 'tmp'), 'trusted.note', Buffer.from('directory'));
  return { lower, upper };
}

async function diffToFile(file: string, params: Omit<DiffLayerParams, 'target'>): Promise<DiffLayerResult> {
  return await diffLayer({ ...params, target: { kind: 'file', path: file } }, jobContext());
}

function namesOf(file: string): string[] {
  return execFileSync('tar', ['-tf', file, '--quoting-style=literal'], { encoding: 'latin1' }).trim().split('\n');
}

for (const compression of ['none', 'gzip', 'zstd'] as const) {
  test(`a difference unpacks to the same tree (${compression})`, { skip: needsRoot }, async (t) => {
    const directory = tempDirectory(t);
    const { lower, upper } = makeTrees(directory);
    const file = path.join(directory, 'layer');
    const made = await diffToFile(file, { lower, upper, compression });
    assert.equal(made.size, statSync(file).size);
    const result = await unpack(readFileSync(file), { root: lower, kind: 'merged' });
    assert.equal(result.diffId, made.diffId);
    assert.equal(result.compression, compression);
    assert.deepEqual(listTree(lower), listTree(upper));
  });
}

test('only what changed is in the layer, sorted, with its parents and all names of a file', {
  skip: needsRoot,
}, async (t) => {
  const directory = tempDirectory(t);
  const { lower, upper } = makeTrees(directory);
  const file = path.join(directory, 'layer');
  await diffToFile(file, { lower, upper, compression: 'none' });
  const names = namesOf(file);
  for (const name of [
    'etc/.wh.gone',
    'var/log/.wh.old',
    'usr/lib/so',
    'usr/lib/so.1',
    'usr/lib/so.2',
    'usr/',
    'owner',
  ]) {
    assert.ok(names.includes(name), name);
  }
  for (const name of ['same/', 'same/untouched', 'null', '.wh.becomes-dir']) assert.ok(!names.includes(name), name);
  assert.ok(names.indexOf('usr/') < names.indexOf('usr/lib/so'));
  assert.ok(statSync(file).size < 1 << 20, 'holes are not written');
});

test('the same trees give the same bytes; times stop at SOURCE_DATE_EPOCH', { skip: needsRoot }, async (t) => {
  const directory = tempDirectory(t);
  const { lower, upper } = makeTrees(directory);
  execFileSync('cp', ['-a', upper, `${upper}2`]);
  const [a, b, c] = ['a', 'b', 'c'].map((name) => path.join(directory, name)) as [string, string, string];
  const params = { lower, compression: 'gzip' as const, sourceDateEpoch: 1_450_000_000 };
  const first = await diffToFile(a, { ...params, upper });
  // Other times later than the epoch make no difference.
  execFileSync('touch', ['-d', '@1700000000', `${upper}2/etc/a`]);
  const second = await diffToFile(b, { ...params, upper: `${upper}2` });
  assert.deepEqual(second, first);
  assert.ok(readFileSync(a).equals(readFileSync(b)));
  const times = execFileSync('tar', ['--full-time', '--utc', '-tvf', a], { encoding: 'utf8' });
  assert.match(times, /2015-12-13 09:46:40.* etc\/a$/m);
  const none = await diffToFile(c, { lower, upper: lower, compression: 'none' });
  assert.equal(none.files, 0);
  const all = await diffToFile(c, { upper, compression: 'none' });
  const root = path.join(directory, 'root');
  mkdirSync(root);
  await unpack(readFileSync(c), { root, kind: 'merged' });
  assert.equal(all.files, listTree(upper).length);
  assert.deepEqual(listTree(root), listTree(upper));
});

test('times with a fraction tell files apart without reading; whole seconds do not', async (t) => {
  const directory = tempDirectory(t);
  execFileSync(
    'sh',
    [
      '-ec',
      'mkdir l u; for d in l u; do echo $d > $d/whole; echo $d > $d/part; done; touch -d @1400000000 ?/whole; touch -d @1400000000.5 ?/part',
    ],
    { cwd: directory },
  );
  const file = path.join(directory, 'layer');
  await diffToFile(file, { lower: path.join(directory, 'l'), upper: path.join(directory, 'u'), compression: 'none' });
  assert.deepEqual(namesOf(file), ['whole']);
});

test('an upper directory of an overlay gives what comparing the mounts gives', { skip: needsRoot }, async (t) => {
  const directory = tempDirectory(t);
  const at = (name: string) => path.join(directory, name);
  for (const name of ['low', 'up', 'work', 'mnt', 'again']) mkdirSync(at(name));
  await unpack(
    makeTar(
      { path: 'd/' },
      { path: 'd/x', content: 'x' },
      { path: 'e/' },
      { path: 'e/y', content: 'y' },
      { path: 'z', content: 'z' },
    ),
    { root: at('low'), kind: 'merged' },
  );
  const options = `lowerdir=${at('low')},upperdir=${at('up')},workdir=${at('work')}`;
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, at('mnt')]);
  try {
    execFileSync(
      'sh',
      ['-ec', 'rm -r d; mkdir d; echo new > d/new; rm z; echo more > e/more; mkdir -p f/g; echo h > f/g/h'],
      {
        cwd: at('mnt'),
      },
    );
    await diffToFile(at('layer'), { upper: at('up'), upperOnly: true, compression: 'none' });
    assert.deepEqual(namesOf(at('layer')), [
      'd/',
      'd/.wh..wh..opq',
      'd/new',
      'e/',
      'e/more',
      'f/',
      'f/g/',
      'f/g/h',
      '.wh.z',
    ]);
    await unpack(readFileSync(at('layer')), { root: at('again'), kind: 'overlay', parents: [at('low')] });
    // A whiteout's time is that of its making, here by the kernel and there by us.
    const tree = (name: string) =>
      listTree(at(name)).map((line) => (line.startsWith('z ') ? line.replace(/ time .*/, '') : line));
    assert.deepEqual(tree('again'), tree('up'));
    await unpack(readFileSync(at('layer')), { root: at('low'), kind: 'merged' });
    const merged = listTree(at('low'));
    execFileSync('umount', [at('mnt')]);
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options.replace(at('up'), at('again')), at('mnt')]);
    assert.deepEqual(listTree(at('mnt')).length, merged.length);
  } finally {
    execFileSync('umount', [at('mnt')]);
  }
  setXattr(at('up/e'), 'trusted.overlay.redirect', Buffer.from('/d'));
  await assert.rejects(diffToFile(at('layer'), { upper: at('up'), upperOnly: true, compression: 'none' }), {
    code: 'EUPPER',
  });
});
