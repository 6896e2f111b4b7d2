import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { listTree } from '@gantry/archive/testing/fixtures.ts';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { type BuiltLayer, writeImage } from '../lib/images.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'devices and mounts need root';
  for (const program of ['/usr/bin/umoci', '/usr/bin/setfattr', '/usr/sbin/setcap']) {
    const name = path.basename(program);
    if (![program, `/sbin/${name}`, `/bin/${name}`].some(existsSync)) return `${name} is not installed`;
  }
  return false;
}

/** All that a layer can hold. */
const first = `
umask 022
mkdir -p etc bin dev/sub opt/hidden/deep opt/kept gone/with/much sticky setgid 'a folder'
echo one > etc/one; echo two > etc/two; ln etc/one etc/hard; ln etc/one opt/kept/hard
ln -s one etc/link; ln -s /nonexistent etc/dangling; ln -s ../etc opt/up
mknod dev/null c 1 3; mknod dev/sub/disk b 8 17; mkfifo -m 0640 dev/fifo
printf x > "$(printf 'etc/caf\\351')"; printf x > "$(printf 'etc/\\377\\376')"; printf x > 'etc/wëb'; printf x > "a folder/a
line"
printf s > bin/setuid; chmod 4755 bin/setuid; printf s > bin/setgid; chmod 2711 bin/setgid; printf s > bin/none; chmod 0000 bin/none
chmod 1777 sticky; chmod 2775 setgid
printf c > bin/capable; setcap cap_net_raw+ep bin/capable
setfattr -n user.note -v value etc/two; setfattr -n user.binary -v 0x00ff0a00 etc/two; setfattr -n user.folder -v x opt/kept
setfattr -n trusted.secret -v t etc/two
chown 1000:1001 etc/two; chown -h 7:8 etc/link; chown 70000:4294967294 opt/kept; chown 12:34 dev/fifo
truncate -s 10M opt/sparse; printf end >> opt/sparse
echo hidden > opt/hidden/file; echo deep > opt/hidden/deep/file; echo g > gone/with/much/file; echo kept > opt/kept/file
dd if=/dev/urandom of=opt/random bs=64k count=20 2>/dev/null
touch -h -d @1234567890 etc/link; touch -d @0 etc/two; touch -d '2038-01-20 00:00:00Z' opt/random; touch -d @1500000000.123456789 opt/kept/file
n=0; while [ $n -lt 60 ]; do mkdir -p "$(printf 'deep/%0100d' $n)"; n=$((n+20)); done
touch -d @1400000000 gone opt/hidden opt/kept etc bin dev sticky setgid deep
`;

/** Changes of every kind, made in a mounted snapshot. */
const second = `
echo changed > etc/one
rm -r gone; rm etc/hard; rm -r opt/hidden; mkdir opt/hidden; echo new > opt/hidden/new
rm bin/setuid; mkdir bin/setuid; echo f > bin/setuid/file
rm -r 'a folder'; echo now a file > 'a folder'
rm dev/null; mknod dev/null c 1 5; mkfifo dev/another; ln dev/another dev/sub/another
ln opt/kept/file opt/linked; ln etc/dangling etc/dangling-too
chmod 0711 sticky; chown 5:6 setgid; chmod 2750 setgid
setfattr -n user.note -v other etc/two; setfattr -x user.binary etc/two; setfattr -n user.more -v x opt/kept
printf c > bin/also; setcap cap_chown+ep bin/also
printf y > "$(printf 'etc/\\200new')"; rm "$(printf 'etc/caf\\351')"
touch -d @1300000000 opt/kept/file opt bin; touch -h -d @1350000000 etc/dangling
`;

describe('umoci unpacks what we export as we unpack it', { skip: missing() }, () => {
  const temp = makeTempDir('umoci');
  const at = (...names: string[]) => path.join(temp.path, ...names);
  const daemon = new TestDaemon(at('d'));
  const client = ctrClients()[0]!;
  const ctr = new CtrSession(client, daemon.address, 'umoci');

  before(() => daemon.start());

  after(async () => {
    await daemon.stop();
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

  function addLayer(layout: string, tar: Buffer): BuiltLayer {
    mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
    const packed = gzipSync(tar);
    writeFileSync(path.join(layout, 'blobs/sha256', sha256(packed)), packed);
    const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
    const descriptor = { mediaType, digest: `sha256:${sha256(packed)}`, size: packed.length };
    return { descriptor, diffId: `sha256:${sha256(tar)}` };
  }

  async function importImage(layers: readonly Buffer[], name: string): Promise<string> {
    const layout = at(name);
    writeImage(
      layout,
      layers.map((tar) => addLayer(layout, tar)),
      {},
    );
    await run('tar', ['-C', layout, '-cf', at(`${name}.tar`), '.']);
    await ctr.ok('images', 'import', '--base-name', `example.com/${name}`, at(`${name}.tar`));
    return `example.com/${name}:latest`;
  }

  /** Shows an image's files, as our snapshotter mounts them. */
  async function mounted<T>(reference: string, look: (root: string) => T): Promise<T> {
    const target = at('mounted');
    mkdirSync(target);
    await ctr.ok('images', 'mount', reference, target);
    try {
      return look(target);
    } finally {
      await ctr.ok('images', 'unmount', '--rm', target);
      rmSync(target, { recursive: true });
    }
  }

  /** Exports an image and has umoci unpack it. */
  async function byUmoci(reference: string, name: string): Promise<string[]> {
    await ctr.ok('images', 'export', at(`${name}-exported.tar`), reference);
    const layout = at(`${name}-exported`);
    mkdirSync(layout);
    await run('tar', ['-C', layout, '-xf', at(`${name}-exported.tar`)]);
    await run('umoci', ['unpack', '--keep-dirlinks', '--image', `${layout}:latest`, at(`${name}-bundle`)]);
    return listTree(at(`${name}-bundle/rootfs`));
  }

  let base: Buffer;

  test('a layer of GNU tar', async () => {
    mkdirSync(at('first'));
    await run('sh', ['-euc', first], { cwd: at('first') });
    const flags = ['--xattrs', '--xattrs-include=*', '--sparse', '--format=posix', '--numeric-owner'];
    await run('tar', [...flags, '-C', at('first'), '-cf', at('first.tar'), '.']);
    base = readFileSync(at('first.tar'));
    const reference = await importImage([base], 'base');
    const ours = await mounted(reference, listTree);
    assert.ok(ours.length > 40);
    assert.deepEqual(ours, await byUmoci(reference, 'base'));
    assert.deepEqual(ours, listTree(at('first')));
  });

  test('a layer of ours above it, with whiteouts', async () => {
    const chain = (await ctr.ok('snapshots', 'ls')).trim().split('\n')[1]!.split(/\s/)[0]!;
    await ctr.ok('snapshots', 'prepare', 'work', chain);
    mkdirSync(at('work'));
    const command = await ctr.ok('snapshots', 'mounts', at('work'), 'work');
    await run('sh', ['-ec', command]);
    let changed: string[];
    try {
      await run('sh', ['-euc', second], { cwd: at('work') });
      changed = listTree(at('work'));
    } finally {
      await run('umount', [at('work')]);
    }
    await run('sh', [
      '-ec',
      `"$@" | gzip -dc > ${at('second.tar')}`,
      'sh',
      client.file,
      ...ctr.arguments(['snapshots', 'diff', 'work']),
    ]);
    const reference = await importImage([base, readFileSync(at('second.tar'))], 'changed');
    const ours = await mounted(reference, listTree);
    assert.deepEqual(ours, await byUmoci(reference, 'changed'));
    assert.deepEqual(ours, changed);
  });
});
