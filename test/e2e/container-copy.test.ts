// Files into and out of containers: our ctr and client through the daemon, which has the shim do it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, Code, hasCode } from '@gantry/client';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const root = process.getuid?.() === 0 ? false : 'containers need root';
const image = 'x/busybox:1';
const namespace = 'copies';

describe('copies into and out of containers', { skip: root }, () => {
  const temp = makeTempDir('copy');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const ctr = new CtrSession(ctrClients()[0]!, daemon.address, namespace);
  const here = (...names: string[]) => path.join(temp.path, ...names);
  const inside = (...args: string[]) => ctr.ok('tasks', 'exec', '--exec-id', 'look', 'c', ...args);
  const cp = (...args: string[]) => ctr.ok('tasks', 'cp', ...args);
  let client: Client;

  before(async () => {
    mkdirSync(here('volume'));
    writeFileSync(here('volume/v'), 'in a volume');
    writeFileSync(here('outside'), 'secret of the host');
    const archive = await busyboxArchive(temp.path, image);
    await daemon.start();
    await ctr.ok('images', 'import', archive);
    const mount = `type=bind,src=${here('volume')},dst=/vol,options=rbind:rw`;
    const fixed = `type=bind,src=${here('volume')},dst=/fixed,options=rbind:ro`;
    await ctr.ok('run', '-d', '--mount', mount, '--mount', fixed, image, 'c', 'sleep', '1000');
    client = await Client.connect({ address: daemon.address, namespace });
  });

  after(async () => {
    await client[Symbol.asyncDispose]();
    await ctr.try('tasks', 'rm', '-f', 'c');
    await daemon.stop();
    await temp.remove();
  });

  test('a file and a directory, under their own names and others', async () => {
    mkdirSync(here('src/sub'), { recursive: true });
    writeFileSync(here('src/sub/f'), 'deep');
    symlinkSync('sub/f', here('src/l'));
    await cp(here('src'), 'c:/tmp');
    assert.equal(await inside('cat', '/tmp/src/l'), 'deep');
    await cp(here('src'), 'c:/made/under/another');
    assert.equal(await inside('cat', '/made/under/another/sub/f'), 'deep');
    await cp(here('src/sub/f'), 'c:/tmp/src/sub/f2');
    assert.equal(await inside('cat', '/tmp/src/sub/f2'), 'deep');
    await cp('c:/tmp/src', here('back'));
    assert.deepEqual(readdirSync(here('back')).sort(), ['l', 'sub']);
    assert.equal(readFileSync(here('back/sub/f2'), 'utf8'), 'deep');
    await cp('c:/tmp/src/sub/f', here('back'));
    assert.equal(readFileSync(here('back/f'), 'utf8'), 'deep');
  });

  test('an archive on stdin and stdout; a large file comes through whole', async () => {
    const [command, ...args] = [ctr.client.file, ...ctr.arguments(['tasks', 'cp'])];
    const big = Buffer.alloc(20_000_000, 'x');
    writeFileSync(here('big'), big);
    const tar = spawnSync('tar', ['-C', temp.path, '-c', 'big'], { maxBuffer: 1 << 26 }).stdout;
    assert.equal(spawnSync(command!, [...args, '-', 'c:/in'], { input: tar }).status, 0);
    const out = spawnSync(command!, [...args, 'c:/in/big', '-'], { maxBuffer: 1 << 26 }).stdout;
    const unpacked = spawnSync('tar', ['-xO'], { input: out, maxBuffer: 1 << 26 }).stdout;
    assert.ok(unpacked.equals(big));
  });

  test('what is mounted in the container is what is copied, and what is read-only there stays', async () => {
    await cp('c:/vol/v', here('v'));
    assert.equal(readFileSync(here('v'), 'utf8'), 'in a volume');
    await cp(here('v'), 'c:/vol/w');
    assert.equal(readFileSync(here('volume/w'), 'utf8'), 'in a volume');
    const refused = await ctr.try('tasks', 'cp', here('v'), 'c:/fixed/w2');
    assert.match(refused.stderr, /EROFS/);
    assert.equal(existsSync(here('volume/w2')), false);
  });

  test('links in the container lead nowhere else', async () => {
    await inside(
      'sh',
      '-c',
      `ln -s ${temp.path} /tmp/abs; ln -s ../../../../../../../.. /tmp/up; ln -s /proc/1/root /tmp/magic`,
    );
    for (const link of ['abs/outside', `up${here('outside')}`, `magic${here('outside')}`])
      assert.match((await ctr.try('tasks', 'cp', `c:/tmp/${link}`, here('stolen'))).stderr, /ENOENT|ELOOP/);
    assert.equal(existsSync(here('stolen')), false);
    const stolen = await ctr.try('tasks', 'cp', here('v'), 'c:/tmp/abs/outside');
    assert.notEqual(stolen.code, 0);
    assert.equal(readFileSync(here('outside'), 'utf8'), 'secret of the host');
  });

  test('owners: root’s of the container, or those that the files had', async () => {
    writeFileSync(here('mine'), '');
    spawnSync('chown', ['1234:1234', here('mine')]);
    await cp(here('mine'), 'c:/tmp/as-root');
    await cp('-a', here('mine'), 'c:/tmp/kept');
    assert.equal(await inside('busybox', 'stat', '-c', '%u', '/tmp/as-root', '/tmp/kept'), '0\n1234\n');
    await cp('-a', 'c:/tmp/kept', here('kept'));
    await cp('c:/tmp/kept', here('own'));
    assert.deepEqual([statSync(here('kept')).uid, statSync(here('own')).uid], [1234, 0]);
  });

  test('a stopped container’s files, a missing one’s, and a client that goes away', async () => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of client.transfer.fromContainer('c', '/etc/passwd')) chunks.push(chunk);
    assert.match(Buffer.concat(chunks).toString('latin1'), /^passwd/);
    const missing = async (id: string, at: string) => {
      for await (const _ of client.transfer.fromContainer(id, at));
    };
    await assert.rejects(missing('nobody', '/'), (error) => hasCode(error, Code.NotFound));
    await assert.rejects(missing('c', '/nope'), (error) => hasCode(error, Code.NotFound));
    // Taken once, then left: the shim's thread and descriptors are free for the next.
    for await (const _ of client.transfer.fromContainer('c', '/in/big')) break;
    await assert.rejects(
      client.transfer.toContainer('c', '/tmp/broken', failing()),
      (error) => (error as Error).message === 'the source broke',
    );
    await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'c');
    await cp('c:/tmp/kept', here('after'));
    assert.equal(statSync(here('after')).size, 0);
  });

  async function* failing(): AsyncGenerator<Uint8Array> {
    yield Buffer.alloc(512);
    throw new Error('the source broke');
  }
});
