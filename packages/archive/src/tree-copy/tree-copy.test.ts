import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import { Code, hasCode } from '@gantry/api';
import { chunksFromPort } from '../port-chunks.ts';
import { tarReader } from '../tar-reader.ts';
import { jobContext, listTree, makeTar, needsRoot, tempDirectory } from '../testing/fixtures.ts';
import { type IdMaps, parseIdMap } from './id-maps.ts';
import { packTree } from './pack-tree.ts';
import { unpackTree } from './unpack-tree.ts';

/** A tree of somebody else's, with a place outside that must not be touched. */
function lab(t: TestContext) {
  const top = tempDirectory(t);
  const root = path.join(top, 'root');
  mkdirSync(root);
  mkdirSync(path.join(top, 'outside'));
  writeFileSync(path.join(top, 'outside/secret'), 'secret');
  return { top, root, outside: path.join(top, 'outside') };
}

async function pack(root: string, from: string, options: { noWalk?: boolean; ids?: IdMaps } = {}): Promise<Buffer> {
  const fd = openSync(root, 'r');
  const { port1, port2 } = new MessageChannel();
  try {
    const packing = packTree({ root: fd, path: from, port: port1, ...options }, jobContext());
    packing.catch(() => undefined);
    const parts: Buffer[] = [];
    try {
      for await (const chunk of chunksFromPort(port2)) parts.push(Buffer.from(chunk));
    } catch {
      // The job tells better.
    }
    await packing;
    return Buffer.concat(parts);
  } finally {
    closeSync(fd);
  }
}

async function unpack(
  root: string,
  to: string,
  archive: Buffer,
  options: { preserveOwnership?: boolean; ids?: IdMaps } = {},
) {
  const fd = openSync(root, 'r');
  const file = `${root}.tar`;
  writeFileSync(file, archive);
  try {
    await unpackTree({ root: fd, path: to, source: { kind: 'file', path: file }, ...options }, jobContext());
  } finally {
    closeSync(fd);
  }
}

async function names(archive: Buffer): Promise<string[]> {
  const found: string[] = [];
  for await (const { header } of tarReader(asChunks(archive))) found.push(`${header.type} ${header.path}`);
  return found;
}

async function* asChunks(bytes: Buffer) {
  yield bytes;
}

const refused = (code: Code) => (error: unknown) => hasCode(error, code) || assert.fail(String(error));

test('a directory comes out and goes in again as it was', async (t) => {
  const { root } = lab(t);
  const from = path.join(root, 'srv/data');
  mkdirSync(path.join(from, 'sub'), { recursive: true });
  writeFileSync(path.join(from, 'sub/file'), 'hello');
  chmodSync(path.join(from, 'sub/file'), 0o4711);
  writeFileSync(path.join(from, 'big'), Buffer.alloc(1_000_000, 7));
  linkSync(path.join(from, 'big'), path.join(from, 'same'));
  symlinkSync('/srv/data/big', path.join(from, 'link'));
  execFileSync('mkfifo', [path.join(from, 'fifo')]);
  utimesSync(path.join(from, 'sub'), 1_600_000_000, 1_600_000_000);
  const archive = await pack(root, '/srv/data/');
  assert.deepEqual((await names(archive)).slice(0, 2), ['5 data/', '0 data/big']);
  await unpack(root, '/copy', archive);
  assert.deepEqual(listTree(path.join(root, 'copy/data')), listTree(from));
  assert.equal(statSync(path.join(root, 'copy/data/sub')).mtimeMs, 1_600_000_000_000);
  // And over itself: directories that are there stay as they are.
  await unpack(root, '/copy', archive);
  const times = false;
  assert.deepEqual(listTree(path.join(root, 'copy/data'), { times }), listTree(from, { times }));
});

test('the root itself, a directory without what is in it, a link, and what is not there', async (t) => {
  const { root } = lab(t);
  mkdirSync(path.join(root, 'd'));
  writeFileSync(path.join(root, 'd/f'), '');
  symlinkSync('d', path.join(root, 'l'));
  assert.deepEqual(await names(await pack(root, '/')), ['5 ./', '5 d/', '0 d/f', '2 l']);
  assert.deepEqual(await names(await pack(root, 'd', { noWalk: true })), ['5 d/']);
  assert.deepEqual(await names(await pack(root, '/l')), ['2 l']);
  assert.deepEqual(await names(await pack(root, '/l/', { noWalk: true })), ['5 l/']);
  assert.deepEqual(await names(await pack(root, '/l/f')), ['0 f']);
  await assert.rejects(pack(root, '/d/f/'), refused(Code.InvalidArgument));
  await assert.rejects(pack(root, '/nope'), refused(Code.NotFound));
  await assert.rejects(pack(root, '/d/f/g'), refused(Code.InvalidArgument));
});

test('no link leads out of the tree, neither in nor out', async (t) => {
  const { root, outside } = lab(t);
  symlinkSync(outside, path.join(root, 'absolute'));
  symlinkSync('../../../../../../../../etc', path.join(root, 'relative'));
  await assert.rejects(pack(root, '/absolute/secret'), refused(Code.NotFound));
  await assert.rejects(pack(root, '/relative/passwd'), refused(Code.NotFound));
  await assert.rejects(pack(root, '/../outside/secret'), refused(Code.NotFound));
  await assert.rejects(unpack(root, '/absolute', makeTar({ path: 'new' })), refused(Code.NotFound));
  mkdirSync(path.join(root, 'etc'));
  await unpack(root, '/relative', makeTar({ path: 'new', content: 'x' }));
  assert.deepEqual([readdirSync(outside), readdirSync(path.join(root, 'etc'))], [['secret'], ['new']]);
});

test('no archive writes outside its destination', async (t) => {
  const { root, outside } = lab(t);
  mkdirSync(path.join(root, 'dest'));
  writeFileSync(path.join(root, 'other'), 'mine');
  await unpack(root, '/dest', makeTar({ path: '../../up', content: 'x' }, { path: '/abs', content: 'x' }));
  assert.deepEqual(readdirSync(path.join(root, 'dest')).sort(), ['abs', 'up']);
  for (const target of [outside, '/', '..', '../..', '/proc/self/root']) {
    const archive = makeTar({ path: 'l', type: '2', linkPath: target }, { path: 'l/secret', content: 'changed' });
    await assert.rejects(unpack(root, '/dest', archive), (error) => hasCode(error, Code.InvalidArgument));
    const hard = makeTar({ path: 'l', type: '2', linkPath: target }, { path: 'h', type: '1', linkPath: 'l/secret' });
    await assert.rejects(unpack(root, '/dest', hard), (error) => hasCode(error, Code.InvalidArgument));
  }
  // Through a link that is replaced by a file, nothing is written.
  await unpack(root, '/dest', makeTar({ path: 'f', type: '2', linkPath: '../other' }, { path: 'f', content: 'new' }));
  assert.equal(readFileSync(path.join(root, 'other'), 'utf8'), 'mine');
  assert.equal(readFileSync(path.join(root, 'dest/f'), 'utf8'), 'new');
  assert.equal(readFileSync(path.join(outside, 'secret'), 'utf8'), 'secret');
  // Where the destination is the root, absolute links lead where they do for who lives there.
  mkdirSync(path.join(root, 'usr/lib'), { recursive: true });
  symlinkSync('/usr/lib', path.join(root, 'lib'));
  await unpack(root, '/', makeTar({ path: 'lib/' }, { path: 'lib/new', content: 'x' }));
  assert.ok(existsSync(path.join(root, 'usr/lib/new')));
  assert.equal(readlinkSync(path.join(root, 'lib')), '/usr/lib');
});

test('what cannot be is said, and nothing is replaced that should not be', async (t) => {
  const { root } = lab(t);
  mkdirSync(path.join(root, 'd/full'), { recursive: true });
  writeFileSync(path.join(root, 'd/full/f'), '');
  const refusals: [Buffer, Code][] = [
    [makeTar({ path: 'full', content: 'x' }), Code.FailedPrecondition],
    [makeTar({ path: 'null', type: '3', devMajor: 1, devMinor: 3 }), Code.InvalidArgument],
    [Buffer.from('not an archive'.repeat(100)), Code.InvalidArgument],
    [makeTar({ path: 'f', content: 'x' }).subarray(0, 600), Code.InvalidArgument],
    [makeTar({ path: 'h', type: '1', linkPath: 'nope' }), Code.NotFound],
  ];
  for (const [archive, code] of refusals) await assert.rejects(unpack(root, '/d', archive), refused(code));
  assert.ok(existsSync(path.join(root, 'd/full/f')));
});

test('a file that is the destination gets the bytes and stays the same file', async (t) => {
  const { root } = lab(t);
  const file = path.join(root, 'hosts');
  writeFileSync(file, 'something longer than before');
  const { ino } = lstatSync(file);
  await unpack(root, '/hosts', makeTar({ path: 'anything', content: 'new' }));
  assert.deepEqual([readFileSync(file, 'utf8'), lstatSync(file).ino], ['new', ino]);
  const wrong = [makeTar(), makeTar({ path: 'd/' }), makeTar({ path: 'a', content: '1' }, { path: 'b' })];
  for (const archive of wrong) await assert.rejects(unpack(root, '/hosts', archive), refused(Code.InvalidArgument));
});

test('owners are those of the tree’s user namespace', { skip: needsRoot }, async (t) => {
  const { root } = lab(t);
  assert.equal(parseIdMap('         0          0 4294967295\n'), undefined);
  const map = parseIdMap('         0     100000      65536\n')!;
  const ids = { uid: map, gid: map };
  const owner = (name: string) => [lstatSync(path.join(root, name)).uid, lstatSync(path.join(root, name)).gid];
  const archive = makeTar({ path: 'f', uid: 33, gid: 34 }, { path: 'l', type: '2', linkPath: 'f', uid: 33, gid: 34 });
  await unpack(root, '/made/as', archive, { ids });
  for (const name of ['made', 'made/as', 'made/as/f', 'made/as/l']) assert.deepEqual(owner(name), [100_000, 100_000]);
  await unpack(root, '/made/as', archive, { ids, preserveOwnership: true });
  for (const name of ['made/as/f', 'made/as/l']) assert.deepEqual(owner(name), [100_033, 100_034]);
  for await (const { header } of tarReader(asChunks(await pack(root, '/made/as/f', { ids }))))
    assert.deepEqual([header.uid, header.gid], [33, 34]);
  const foreign = makeTar({ path: 'f', uid: 70_000 });
  await assert.rejects(unpack(root, '/', foreign, { ids, preserveOwnership: true }), refused(Code.InvalidArgument));
});

test('files of the kernel’s own are read as long as they are, and their directories not walked into', async () => {
  let text = '';
  for await (const entry of tarReader(asChunks(await pack('/', '/proc/version'))))
    text += (await entry.bytes(1 << 20)).toString();
  assert.equal(text, readFileSync('/proc/version', 'utf8'));
});
