import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fieldNumber, TarError, type TarHeader } from './tar-header.ts';
import { TarParser } from './tar-parser.ts';
import { makeTar, tempDirectory } from './testing/fixtures.ts';

interface Parsed {
  header: TarHeader;
  content: Buffer;
}

/** Parses in pieces of `step` bytes; a sparse file's holes are filled. */
function parse(archive: Buffer, step = archive.length): Parsed[] {
  const found: Parsed[] = [];
  const parser = new TarParser({
    entry: (header) => found.push({ header, content: Buffer.alloc(header.size) }),
    data: (bytes, start, end, at) => bytes.copy(found.at(-1)!.content, at, start, end),
    entryEnd() {},
  });
  for (let at = 0; at < archive.length; at += step) parser.write(archive.subarray(at, at + step));
  parser.end();
  return found;
}

function gnuTar(directory: string, ...args: string[]): Buffer {
  return execFileSync('tar', ['--numeric-owner', '--sort=name', '-cf', '-', '-C', directory, ...args, '.'], {
    maxBuffer: 1 << 28,
  });
}

test('reads the same entries whatever the size of the pieces', () => {
  const archive = makeTar(
    { path: 'dir/' },
    { path: 'dir/file', content: 'hello' },
    { path: `${'long/'.repeat(60)}name`, content: Buffer.alloc(1500, 'y') },
    { path: 'link', type: '2', linkPath: 'x'.repeat(150) },
  );
  const whole = parse(archive);
  assert.deepEqual(
    whole.map(({ header, content }) => [header.path, header.type, header.linkPath.length, content.length]),
    [
      ['dir/', '5', 0, 0],
      ['dir/file', '0', 0, 5],
      [`${'long/'.repeat(60)}name`, '0', 0, 1500],
      ['link', '2', 150, 0],
    ],
  );
  for (const step of [1, 7, 511, 512, 513, 4096]) assert.deepEqual(parse(archive, step), whole, `step ${step}`);
});

for (const format of ['v7', 'ustar', 'gnu', 'oldgnu', 'posix']) {
  test(`reads what GNU tar writes as ${format}`, (t) => {
    const directory = tempDirectory(t);
    mkdirSync(path.join(directory, 'sub'));
    writeFileSync(path.join(directory, 'sub', 'file'), 'content');
    // v7 has no room for long names.
    const longName = format === 'v7' ? 'n'.repeat(90) : 'n'.repeat(format === 'ustar' ? 95 : 240);
    writeFileSync(path.join(directory, longName), 'long');
    writeFileSync(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0x66, 0xff, 0xfe])]), 'bytes');
    const entries = parse(gnuTar(directory, `--format=${format}`, '--mtime=@1500000000'));
    const byPath = new Map(entries.map((entry) => [entry.header.path, entry]));
    assert.equal(byPath.get('./sub/')?.header.type, '5');
    assert.equal(byPath.get('./sub/file')?.content.toString(), 'content');
    assert.equal(byPath.get(`./${longName}`)?.content.toString(), 'long');
    assert.equal(byPath.get('./f\xff\xfe')?.content.toString(), 'bytes');
    assert.ok(entries.every(({ header }) => header.mtime === 1_500_000_000));
  });
}

for (const sparse of ['gnu', '0.0', '0.1', '1.0']) {
  test(`reads sparse files as GNU tar writes them (${sparse})`, (t) => {
    const directory = tempDirectory(t);
    const file = path.join(directory, 'sparse');
    const fd = openSync(file, 'w');
    // More segments than a header, or a block of the 1.0 map, can list.
    for (let i = 0; i < 300; i++) writeSync(fd, `data ${i}`, i * 32768);
    closeSync(fd);
    truncateSync(file, 20 << 20);
    const options = sparse === 'gnu' ? ['--format=gnu'] : ['--format=posix', `--sparse-version=${sparse}`];
    const archive = gnuTar(directory, '--sparse', ...options);
    assert.ok(archive.length < 5 << 20, 'tar found the holes');
    for (const step of [archive.length, 1000]) {
      const entry = parse(archive, step).find(({ header }) => header.path === './sparse');
      assert.ok(entry?.content.equals(readFileSync(file)));
    }
  });
}

test('reads times with a fraction, large numbers and attributes from PAX headers', (t) => {
  const directory = tempDirectory(t);
  writeFileSync(path.join(directory, 'f'), '');
  const archive = gnuTar(directory, '--format=posix', '--mtime=@1500000000.25', '--owner=3000000000', '--group=4');
  const { header } = parse(archive).find((entry) => entry.header.path === './f')!;
  assert.deepEqual(
    [header.mtime, header.mtimeNanos, header.uid, header.gid],
    [1_500_000_000, 250_000_000, 3_000_000_000, 4],
  );
  const value = Buffer.from([0, 1, 0xff, 0x0a]);
  const [entry] = parse(makeTar({ path: 'x', xattrs: [['user.key=odd', value]] }));
  // The first "=" ends the key, as POSIX has it.
  assert.deepEqual([...entry!.header.xattrs!], [['user.key', Buffer.concat([Buffer.from('odd='), value])]]);
});

test('reads base-256 numbers', () => {
  const block = Buffer.alloc(12);
  block[0] = 0x80;
  block.writeBigUInt64BE(1n << 40n, 4);
  assert.equal(fieldNumber(block, 0, 12), 2 ** 40);
  block.fill(0xff);
  assert.equal(fieldNumber(block, 0, 12), -1);
  block[0] = 0x80;
  assert.throws(() => fieldNumber(block, 0, 12), TarError);
});

test('a global header is skipped', () => {
  const global = makeTar({ path: 'g', type: 'g', content: '19 path=everywhere\n' }).subarray(0, 1024);
  const [entry] = parse(Buffer.concat([global, makeTar({ path: 'mine' })]));
  assert.equal(entry?.header.path, 'mine');
});

test('an empty input, and one without end marker, are whole', () => {
  assert.deepEqual(parse(Buffer.alloc(0)), []);
  assert.deepEqual(parse(Buffer.alloc(1024)), []);
  assert.equal(parse(makeTar({ path: 'a', content: 'x' }).subarray(0, 1024)).length, 1);
});

test('refuses what is malformed', () => {
  const good = makeTar({ path: 'a', content: 'some content' });
  const flipped = Buffer.from(good);
  flipped[0]! ^= 1;
  const record = (text: string) => makeTar({ path: 'p', type: 'x', content: text }, { path: 'f' }).subarray();
  const cases: Record<string, Buffer> = {
    'cut in a header': good.subarray(0, 100),
    'cut in data': good.subarray(0, 515),
    'cut in padding': good.subarray(0, 700),
    'wrong checksum': flipped,
    'data after a zero block': Buffer.concat([Buffer.alloc(512), good]),
    'not a tar': Buffer.alloc(2048, 'x'),
    'extension without entry': makeTar({ path: 'p', type: 'x', content: '12 path=abc\n' }).subarray(0, 1024),
    'extension too large': makeTar({ path: 'p', type: 'x', size: 1 << 30 }),
    'record too long': record('99 path=a\n'),
    'record too short': record('3 path=a\n'),
    'record without length': record('path=a\n'),
    'record without newline': record('9 path=a '),
    'NUL in a path': record('11 path=a\0b\n'),
    'bad size': record('11 size=-1\n\n'),
    'sparse map beyond the file': record('28 GNU.sparse.map=100,100000\n22 GNU.sparse.size=10\n'),
  };
  for (const [what, archive] of Object.entries(cases)) assert.throws(() => parse(archive), TarError, what);
});
