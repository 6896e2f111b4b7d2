import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildLayer, buildTestImages, busyboxLayer, writeImage } from '../lib/images.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const tools = path.resolve(import.meta.dirname, '../../.cache/go-bin/imgcrypt');

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'containers need root';
  for (const tool of ['ctr', 'ctd-decoder']) {
    if (!existsSync(path.join(tools, tool)))
      return `imgcrypt's ${tool} is not in .cache/go-bin (npm test does it when Go is there)`;
  }
  return false;
}

/** Layers that skopeo encrypted, decrypted by imgcrypt's ctd-decoder, as containerd's default configuration has it. */
describe('stream processors: encrypted images', { skip: missing() }, () => {
  const temp = makeTempDir('processors');
  const at = (...names: string[]) => path.join(temp.path, ...names);
  const layer = 'application/vnd.oci.image.layer.v1.tar';
  const daemon = new TestDaemon(
    at('d'),
    `[stream_processors.'io.containerd.ocicrypt.decoder.v1.tar.gzip']
  accepts = ['${layer}+gzip+encrypted']
  returns = '${layer}+gzip'
  path = '${at('ctd-decoder')}'
  args = ['--decryption-keys-path', '${at('keys')}']
[stream_processors.hanging]
  accepts = ['${layer}+encrypted+hanging']
  returns = '${layer}'
  path = 'sh'
  args = ['-c', 'sleep 31557; true']
`,
  );
  let registry: TestRegistry;
  let encrypted: string;

  before(async () => {
    const layouts = await buildTestImages(at('images'));
    registry = await TestRegistry.start(temp.path);
    // A program of somebody else's folder would not be run.
    copyFileSync(path.join(tools, 'ctd-decoder'), at('ctd-decoder'));
    mkdirSync(at('keys'));
    await run('openssl', ['genrsa', '-out', at('keys/private.pem'), '2048']);
    await run('openssl', ['rsa', '-in', at('keys/private.pem'), '-pubout', '-out', at('public.pem')]);
    encrypted = `${registry.address}/test/encrypted:latest`;
    const flags = ['copy', '-q', '--insecure-policy', '--dest-tls-verify=false'];
    const key = ['--encryption-key', `jwe:${at('public.pem')}`];
    await run('skopeo', [...flags, ...key, `oci:${layouts.whiteouts}:latest`, `docker://${encrypted}`]);
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await registry?.close();
    await eventually('no process is left', () => (processesMentioning(temp.path).length === 0 ? true : undefined));
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  const snapshots = async (ctr: CtrSession) => (await ctr.ok('snapshots', 'ls')).trim().split('\n').length - 1;
  const decoders = () => processesMentioning(at('ctd-decoder'));

  for (const [index, client] of ctrClients().entries()) {
    const skip = client.missing ?? false;
    test(`${client.name} pulls and runs one, with the keys on the node`, { skip }, async () => {
      const ctr = new CtrSession(client, daemon.address, `encrypted-${index}`);
      const pulled = await ctr.try('images', 'pull', '--plain-http', ...client.pullFlags, encrypted);
      if (client.transfer) {
        assert.equal(pulled.code, 0, pulled.stderr);
        const listed = await ctr.ok('content', 'ls');
        assert.ok(listed.includes('containerd.io/uncompressed='), listed);
        const out = await ctr.ok('run', '--rm', encrypted, 'one', 'sh', '-c', 'cat /data/a; echo; ls /data/opaque');
        assert.equal(out, 'linked\nshown\n');
      } else {
        // These unpack by Diff.Apply, without the descriptor that the decoder has to be given: so they fail under containerd too.
        assert.notEqual(pulled.code, 0);
        assert.match(
          pulled.stderr,
          /stream processor io\.containerd\.ocicrypt\.decoder\.v1\.tar\.gzip .*: exit status 1/,
        );
      }
      await ctr.try('images', 'rm', '--sync', encrypted);
      assert.equal(await snapshots(ctr), 0);
      assert.deepEqual(decoders(), []);
    });
  }

  test('one becomes EROFS images too', async (t) => {
    const ctr = new CtrSession(ctrClients()[0]!, daemon.address, 'encrypted-erofs');
    if (!/erofs .* ok/.test(await ctr.ok('plugins', 'ls', 'id==erofs,type~=snapshotter')))
      return t.skip('no EROFS here');
    const erofs = ['--snapshotter', 'erofs'];
    await ctr.ok('images', 'pull', '--plain-http', ...erofs, encrypted);
    const out = await ctr.ok(
      'run',
      '--rm',
      ...erofs,
      encrypted,
      'one',
      'sh',
      '-c',
      'cat /data/a; echo; ls /data/opaque',
    );
    assert.equal(out, 'linked\nshown\n');
    await ctr.ok('images', 'rm', '--sync', encrypted);
  });

  test('without the key nothing is unpacked, and the decoder says why', async () => {
    renameSync(at('keys/private.pem'), at('private.pem'));
    try {
      const ctr = new CtrSession(ctrClients()[0]!, daemon.address, 'no-key');
      const { code, stderr } = await ctr.try('images', 'pull', '--plain-http', encrypted);
      assert.notEqual(code, 0);
      assert.match(
        stderr,
        /failed to extract layer \(application\/vnd\.oci\.image\.layer\.v1\.tar\+gzip\+encrypted sha256:/,
      );
      assert.match(
        stderr,
        /stream processor io\.containerd\.ocicrypt\.decoder\.v1\.tar\.gzip .*exit status 1: .*(?:key|decrypt)/is,
      );
      assert.equal(await snapshots(ctr), 0);
      assert.equal(await ctr.ok('images', 'ls', '-q'), '');
      assert.deepEqual(decoders(), []);
    } finally {
      renameSync(at('private.pem'), at('keys/private.pem'));
    }
  });

  test("imgcrypt's own ctr sends the key along with Diff.Apply", async () => {
    renameSync(at('keys/private.pem'), at('private.pem'));
    try {
      const client = { ...ctrClients()[1]!, name: 'imgcrypt', file: path.join(tools, 'ctr') };
      const ctr = new CtrSession(client, daemon.address, 'imgcrypt');
      await ctr.ok('images', 'pull', '--plain-http', '--key', at('private.pem'), encrypted);
      const ours = new CtrSession(ctrClients()[0]!, daemon.address, 'imgcrypt');
      assert.equal(await ours.ok('run', '--rm', encrypted, 'one', 'cat', '/data/a'), 'linked');
      await ctr.ok('images', 'rm', '--sync', encrypted);
    } finally {
      renameSync(at('private.pem'), at('keys/private.pem'));
    }
  });

  describe('a program that hangs', () => {
    const client = ctrClients()[0]!;
    const ctr = new CtrSession(client, daemon.address, 'hanging');
    const mine = () => processesMentioning('sleep 31557').filter(({ pid }) => isOurs(pid));
    const isOurs = (pid: number) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`=${daemon.root}:`);
      } catch {
        return false;
      }
    };
    let importing: ChildProcess;

    before(async () => {
      const layout = at('hanging-layout');
      const built = await buildLayer(layout, busyboxLayer);
      writeImage(
        layout,
        [{ ...built, descriptor: { ...built.descriptor, mediaType: `${layer}+encrypted+hanging` } }],
        {},
      );
      await run('tar', ['-C', layout, '-cf', at('hanging.tar'), '.']);
    });

    beforeEach(async () => {
      importing = spawn(client.file, ctr.arguments(['images', 'import', at('hanging.tar')]), { stdio: 'ignore' });
      await eventually('the program runs', () => (mine().length > 0 ? true : undefined));
    });

    const isGone = async () => {
      await eventually('the program is gone', () => (mine().length === 0 ? true : undefined));
      await eventually('its snapshot is gone', async () => ((await snapshots(ctr)) === 0 ? true : undefined));
    };

    test('goes with its client', async () => {
      importing.kill('SIGKILL');
      await isGone();
    });

    test('goes with a daemon that is stopped', async () => {
      await daemon.stop();
      await eventually('the program is gone', () => (mine().length === 0 ? true : undefined));
      await daemon.start();
      await isGone();
    });

    test('goes when the next daemon starts after one that was killed', async () => {
      await daemon.kill();
      assert.ok(mine().length > 0);
      await daemon.start();
      await isGone();
    });
  });
});
