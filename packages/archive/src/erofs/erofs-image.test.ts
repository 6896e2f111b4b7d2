import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { MS, mountSync, readMountInfo, umountSync } from '@gantry/sys';
import { setXattr } from '@gantry/sys/fast-at.ts';
import { type FixtureEntry, jobContext, listTree, makeTar, needsRoot } from '../testing/fixtures.ts';
import { crc32c } from './crc32c.ts';
import { erofsFromDirectory } from './directory-to-erofs.ts';
import { type ErofsLayerParams, erofsLayer } from './erofs-layer.ts';

const kernel = /^\s*erofs$/m.test(readFileSync('/proc/filesystems', 'utf8'));
const mountable = needsRoot || (kernel ? false : 'the kernel has no erofs');
const checker = spawnSync('fsck.erofs', ['--help']).status === 0 ? false : 'no fsck.erofs (erofs-utils)';

/** A directory of the test's own; what is mounted in it goes with it. */
function place(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-erofs-'));
  t.after(() => {
    const points = readMountInfo().map(({ mountPoint }) => mountPoint);
    for (const point of points.filter((name) => name.startsWith(`${directory}/`)).reverse()) umountSync(point);
    rmSync(directory, { recursive: true });
  });
  return directory;
}

/** Makes an image of an archive; erofs-utils and the kernel have to find it well where they are there. */
async function imageOf(t: TestContext, archive: Buffer, params: Partial<ErofsLayerParams> = {}, check = true) {
  const directory = place(t);
  const tar = path.join(directory, 'layer.tar');
  const image = path.join(directory, 'layer.erofs');
  writeFileSync(tar, archive);
  const result = await erofsLayer({ image, source: { kind: 'file', path: tar }, ...params }, jobContext());
  if (check && !params.tarIndex && checker === false) execFileSync('fsck.erofs', [image]);
  return { image, result, directory };
}

function mounted(image: string): string {
  const point = `${image}.mnt`;
  mkdirSync(point);
  mountSync(image, point, 'erofs', MS.RDONLY);
  return point;
}

const failure =
  (...entries: FixtureEntry[]) =>
  async (t: TestContext) => {
    const { directory } = await imageOf(t, makeTar({ path: 'fine' }));
    const image = path.join(directory, 'other.erofs');
    const tar = path.join(directory, 'other.tar');
    writeFileSync(tar, makeTar(...entries));
    const making = erofsLayer({ image, source: { kind: 'file', path: tar } }, jobContext());
    const error = await making.then(
      () => undefined,
      (reason: Error) => reason,
    );
    assert.deepEqual(
      readdirSync(directory).filter((name) => name.startsWith('other.erofs')),
      [],
    );
    return error;
  };

test('crc32c is Castagnoli’s', () => {
  // The usual check value, before its last inversion.
  assert.equal((crc32c(Buffer.from('123456789')) ^ 0xffffffff) >>> 0, 0xe3069283);
});

for (const tarIndex of [false, true]) {
  test(`an image shows what the archive has${tarIndex ? ', by an index over it' : ''}`, {
    skip: mountable,
  }, async (t) => {
    const source = path.join(place(t), 'tree');
    mkdirSync(path.join(source, 'dir/sub'), { recursive: true });
    for (let i = 0; i < 600; i++)
      writeFileSync(path.join(source, 'dir', `a-file-with-quite-a-long-name-${i}`), i % 7 ? '' : `${i}`);
    execFileSync(
      'sh',
      [
        '-ec',
        `echo hello > hello; ln hello hard; ln -s ../nowhere sym; ln -s $(head -c 3000 /dev/zero | tr '\\0' x) long
       mknod null c 1 3; mknod disk b 259 70000; mkfifo fifo; head -c 300000 /dev/urandom > random; head -c 4096 /dev/urandom > block; : > empty
       chown 100000:70000 hello; chmod 4751 hello; touch -d @1000000000.5 hello; chmod 1777 dir/sub; printf odd > "$(printf 'f\\377\\376')"`,
      ],
      { cwd: source },
    );
    setXattr(path.join(source, 'hello'), 'user.one', Buffer.from([0, 1, 255]));
    setXattr(path.join(source, 'dir'), 'trusted.big', Buffer.alloc(3500, 'x'));
    setXattr(path.join(source, 'dir/sub'), 'trusted.a', Buffer.from('1'));
    setXattr(path.join(source, 'dir/sub'), 'security.b', Buffer.from('2'));
    const archive = execFileSync(
      'tar',
      ['--format=posix', '--xattrs', '--xattrs-include=*', '-C', source, '-cf', '-', '.'],
      { maxBuffer: 1 << 26 },
    );
    const { image, result } = await imageOf(t, archive, { tarIndex });
    const point = mounted(image);
    const tree = (root: string) => listTree(root).filter((line) => !line.startsWith('. '));
    assert.deepEqual(tree(point), tree(source));
    assert.equal(result.size, archive.length);
    const diff = spawnSync(
      'diff',
      ['-r', '--no-dereference', '-x', 'fifo', '-x', 'null', '-x', 'disk', source, point],
      { encoding: 'utf8' },
    );
    assert.equal(diff.stdout, '');
  });
}

test('whiteouts and opaque directories become the overlay’s marks', { skip: mountable }, async (t) => {
  const { image } = await imageOf(
    t,
    makeTar(
      { path: 'a/' },
      { path: 'a/.wh.gone' },
      { path: 'opaque/' },
      { path: 'opaque/.wh..wh..opq' },
      { path: 'opaque/new', content: 'new' },
      { path: '.wh.replaced' },
      { path: 'replaced/' },
      { path: 'replaced/x', content: 'x' },
      { path: '.wh..wh.plnk/1' },
    ),
  );
  const directory = place(t);
  const at = (name: string) => path.join(directory, name);
  for (const name of ['lower/a', 'lower/opaque', 'lower/replaced', 'merged']) mkdirSync(at(name), { recursive: true });
  for (const name of ['a/gone', 'a/kept', 'opaque/hidden', 'replaced/hidden'])
    writeFileSync(at(`lower/${name}`), 'old');
  const upper = mounted(image);
  mountSync('overlay', at('merged'), 'overlay', MS.RDONLY, `lowerdir=${upper}:${at('lower')}`);
  const shown = execFileSync('find', ['.', '-type', 'f', '-printf', '%P\n'], { cwd: at('merged'), encoding: 'utf8' });
  assert.deepEqual(shown.trim().split('\n').sort(), ['a/kept', 'opaque/new', 'replaced/x']);
});

test('links in the layer are followed and never lead out; the last entry of a name counts', {
  skip: mountable,
}, async (t) => {
  const { image } = await imageOf(
    t,
    makeTar(
      { path: 'usr/lib/' },
      { path: 'lib', type: '2', linkPath: 'usr/lib' },
      { path: 'lib/one', content: 'one' },
      { path: 'out', type: '2', linkPath: '../../../etc' },
      { path: 'out/two', content: 'two' },
      { path: '../three', content: 'three' },
      { path: 'twice', content: 'first' },
      { path: 'twice', content: 'second' },
      { path: 'hard', type: '1', linkPath: '/lib/one' },
      { path: 'was-directory/' },
      { path: 'was-directory', content: 'file' },
    ),
  );
  const point = mounted(image);
  const read = (name: string) => readFileSync(path.join(point, name), 'utf8');
  assert.deepEqual(['usr/lib/one', 'etc/two', 'three', 'twice', 'hard', 'was-directory'].map(read), [
    'one',
    'two',
    'three',
    'second',
    'one',
    'file',
  ]);
});

test('sparse files stay sparse, also a terabyte', { skip: mountable }, async (t) => {
  const directory = place(t);
  const file = path.join(directory, 'sparse');
  const fd = openSync(file, 'w');
  for (const at of [0, 5000, 1 << 20, 2 ** 33 + 123]) writeSync(fd, `data at ${at}`, at);
  closeSync(fd);
  truncateSync(file, 2 ** 40);
  const archive = execFileSync('tar', ['--format=posix', '-S', '-C', directory, '-cf', '-', 'sparse']);
  const { image } = await imageOf(t, archive);
  const blocks = Number(execFileSync('stat', ['-c', '%b', image], { encoding: 'utf8' }));
  assert.ok(blocks * 512 < 400_000, `${blocks * 512} bytes on disk`);
  const copy = openSync(path.join(mounted(image), 'sparse'), 'r');
  assert.equal(fstatSync(copy).size, 2 ** 40);
  for (const at of [0, 5000, 1 << 20, 2 ** 33 + 123]) {
    const buffer = Buffer.alloc(40);
    readSync(copy, buffer, 0, 40, at);
    assert.equal(buffer.toString('latin1').replaceAll('\0', ''), `data at ${at}`);
  }
  closeSync(copy);
  const indexed = await imageOf(t, archive, { tarIndex: true }).catch((error: NodeJS.ErrnoException) => error.code);
  assert.equal(indexed, 'ESPARSE');
});

test('many headers of huge sparse files do not grow into huge maps', async (t) => {
  const script = 'truncate -s 1T f; tar --format=gnu -S -cf - f; rm f';
  const header = execFileSync('sh', ['-ec', script], { cwd: place(t) }).subarray(0, 512);
  const headers = Array.from({ length: 3000 }, (_, i) => renamed(header, `f${i}`));
  const { result } = await imageOf(t, Buffer.concat([...headers, Buffer.alloc(1024)]), {}, false);
  assert.equal(result.image.inodes, 3001);
  assert.ok(result.image.size < 64 << 20, `${result.image.size}`);
});

/** A header block with another name. */
function renamed(block: Buffer, name: string): Buffer {
  const copy = Buffer.from(block);
  copy.fill(0, 0, 100);
  copy.write(name);
  copy.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of copy.subarray(0, 512)) sum += byte;
  copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return copy;
}

test('ten thousand directories deep', async (t) => {
  const deep = makeTar({ path: `${'d/'.repeat(10_000)}file`, content: 'x' });
  // fsck.erofs goes down by recursion, and falls.
  const { result } = await imageOf(t, deep, {}, false);
  assert.equal(result.image.inodes, 10_002);
});

test('a layer that needs those below says so, or takes them over', { skip: mountable }, async (t) => {
  const lower = path.join(place(t), 'lower');
  mkdirSync(path.join(lower, 'dir/private'), { recursive: true });
  execFileSync(
    'sh',
    ['-ec', 'chmod 0700 dir/private; chown 7:8 dir/private; echo below > dir/file; chmod 0640 dir/file'],
    { cwd: lower },
  );
  const archive = makeTar(
    { path: 'dir/private/new', content: 'new' },
    { path: 'link', type: '1', linkPath: 'dir/file', mode: 0o640 },
  );
  for (const params of [{ standalone: true }, {}]) {
    const made = await imageOf(t, archive, params).catch((error: NodeJS.ErrnoException) => error.code);
    assert.equal(made, 'EBELOW');
  }
  const { image } = await imageOf(t, archive, { lowers: [lower] });
  const point = mounted(image);
  assert.deepEqual(
    execFileSync('stat', ['-c', '%n %a %u:%g %h', 'dir', 'dir/private', 'dir/file', 'link'], {
      cwd: point,
      encoding: 'utf8',
    }),
    'dir 755 0:0 3\ndir/private 700 7:8 2\ndir/file 640 0:0 2\nlink 640 0:0 2\n',
  );
  assert.equal(readFileSync(path.join(point, 'link'), 'utf8'), 'below\n');
});

test('the same layer gives the same image', async (t) => {
  const archive = makeTar(
    { path: 'b/' },
    { path: 'a', content: 'a' },
    { path: 'b/c', xattrs: [['user.x', Buffer.from('1')]] },
  );
  const uuid = '00112233-4455-6677-8899-aabbccddeeff';
  const [one, two] = [await imageOf(t, archive, { uuid }), await imageOf(t, archive, { uuid })];
  assert.ok(readFileSync(one.image).equals(readFileSync(two.image)));
});

test('what is malformed is refused and leaves nothing', async (t) => {
  const cases: [string, RegExp, ...FixtureEntry[]][] = [
    ['under a file', /ENOTDIR|not a directory/i, { path: 'f', content: 'x' }, { path: 'f/g', content: 'y' }],
    ['link loop', /ELOOP|too many/i, { path: 'l', type: '2', linkPath: 'l' }, { path: 'l/x' }],
    ['whiteout of dot', /invalid whiteout/, { path: '.wh...' }],
    ['link to a directory', /EPERM|not permitted/i, { path: 'd/' }, { path: 'h', type: '1', linkPath: 'd' }],
    ['link to nothing', /does not have/, { path: 'h', type: '1', linkPath: 'nothing' }],
    ['long name', /ENAMETOOLONG|too long/i, { path: 'n'.repeat(256) }],
    ['long link', /ENAMETOOLONG|too long/i, { path: 's', type: '2', linkPath: 'x/'.repeat(2100) }],
    [
      'too many attributes',
      /E2BIG|too long/i,
      { path: 'x', xattrs: [1, 2, 3, 4, 5].map((n) => [`user.${n}`, Buffer.alloc(60_000)]) },
    ],
    ['unknown type', /unhandled tar header/, { path: 'x', type: 'V' }],
  ];
  for (const [what, message, ...entries] of cases) {
    const error = await failure(...entries)(t);
    assert.ok(error, what);
    assert.match(`${error.message} ${(error as NodeJS.ErrnoException).code}`, message, what);
  }
});

test('an upper directory becomes a layer that shows the same', { skip: mountable }, async (t) => {
  const directory = place(t);
  const at = (name: string) => path.join(directory, name);
  // On a file system of its own: whatever the machine's /tmp is, overlays work there.
  mkdirSync(at('fs'));
  mountSync('none', at('fs'), 'tmpfs', 0);
  const script = `mkdir lower upper work merged again
    cd lower; mkdir -p dir/sub opaque; echo 1 > gone; echo 2 > dir/sub/kept; echo 3 > opaque/hidden; cd ..
    mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
    cd merged; rm gone; rm -r opaque; mkdir opaque; echo 4 > opaque/new; echo 5 > dir/more; ln dir/more dir/hard; ln -s x link
    truncate -s 10M sparse; echo end >> sparse; chown 5:6 dir/more; chmod 0711 .; cd ..`;
  execFileSync('sh', ['-ec', script], { cwd: at('fs') });
  const image = at('layer.erofs');
  await erofsFromDirectory({ directory: at('fs/upper'), image }, jobContext());
  if (checker === false) execFileSync('fsck.erofs', [image]);
  const point = mounted(image);
  mountSync('overlay', at('fs/again'), 'overlay', MS.RDONLY, `lowerdir=${point}:${at('fs/lower')}`);
  assert.deepEqual(listTree(at('fs/again')), listTree(at('fs/merged')));
  assert.ok(!existsSync(at('fs/again/gone')));
});
