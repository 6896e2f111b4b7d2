// Images by CRI from registries that containerd's old settings name, past the verifiers all the same; encrypted ones; settings of pulls.
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { crictl } from '../lib/cri-lab.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { eventually, run } from '../lib/processes.ts';
import { registryUser, TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const decoder = path.resolve(import.meta.dirname, '../../.cache/go-bin/imgcrypt/ctd-decoder');
const skip =
  process.getuid?.() !== 0
    ? 'the daemon needs root'
    : existsSync(crictl)
      ? false
      : 'crictl is not in .cache/go-bin (npm test installs it when Go is there)';
const patience = 60_000;

describe('CRI and registries', { skip }, () => {
  const temp = makeTempDir('cri-registries');
  const at = (...names: string[]) => path.join(temp.path, ...names);
  const layer = 'application/vnd.oci.image.layer.v1.tar';
  let open: TestRegistry;
  let closed: TestRegistry;
  let daemon: TestDaemon;

  before(async () => {
    const layouts = await buildTestImages(at('images'), { few: true });
    open = await TestRegistry.start(temp.path);
    for (const name of ['test/app:1', 'denied/app:1']) await open.fill(layouts.busybox, name);
    await run('openssl', ['genrsa', '-out', at('private.pem'), '2048']);
    await run('openssl', ['rsa', '-in', at('private.pem'), '-pubout', '-out', at('public.pem')]);
    await run('skopeo', [
      ...['copy', '-q', '--insecure-policy', '--dest-tls-verify=false', '--encryption-key', `jwe:${at('public.pem')}`],
      ...[`oci:${layouts.whiteouts}:latest`, `docker://${open.address}/test/encrypted:1`],
    ]);
    closed = await TestRegistry.start(temp.path, { storage: open.storage, basic: true });
    mkdirSync(at('keys'));
    // A program of somebody else's folder would not be run.
    if (existsSync(decoder)) copyFileSync(decoder, at('ctd-decoder'));
    const images = `plugins.'io.containerd.cri.v1.images'`;
    daemon = new TestDaemon(
      at('d'),
      `[${images}]
  max_concurrent_downloads = 1
  discard_unpacked_layers = true
  image_pull_with_sync_fs = true
  disable_snapshot_annotations = false
[${images}.registry.mirrors.'mirrored.test']
  endpoint = ['http://${closed.address}']
[${images}.registry.configs.'${closed.address}'.auth]
  username = '${registryUser.name}'
  password = '${registryUser.password}'
[plugins.'io.containerd.image-verifier.v1.policy']
  [[plugins.'io.containerd.image-verifier.v1.policy'.rules]]
    repositories = ['*/denied/**']
    action = 'deny'
[stream_processors.'io.containerd.ocicrypt.decoder.v1.tar.gzip']
  accepts = ['${layer}+gzip+encrypted']
  returns = '${layer}+gzip'
  path = '${at('ctd-decoder')}'
  args = ['--decryption-keys-path', '${at('keys')}']
`,
    );
    await daemon.start();
  });
  after(async () => {
    await daemon?.stop();
    await closed?.close();
    await open?.close();
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  const cri = (...args: string[]) => {
    const endpoint = `unix://${daemon.address}`;
    const ends = ['--runtime-endpoint', endpoint, '--image-endpoint', endpoint, '-t', '60s'];
    return run(crictl, [...ends, ...args], { mayFail: true });
  };
  const ctr = async (...args: string[]) =>
    (await run(path.resolve('bin/ctr'), ['-a', daemon.address, '-n', 'k8s.io', ...args])).stdout;
  const pulls = async (...args: string[]): Promise<void> => {
    const { code, stderr } = await cri('pull', ...args);
    assert.equal(code, 0, stderr);
  };

  test('mirrors and logins of the old settings are used, and told of', async () => {
    await pulls('mirrored.test/test/app:1');
    const { stdout } = await cri('info');
    const { status } = JSON.parse(stdout) as {
      status: { conditions: { type: string; status: boolean; message: string }[] };
    };
    const told = status.conditions.find(({ type }) => type === 'ContainerdHasNoDeprecationWarnings');
    assert.equal(told?.status, false);
    for (const id of ['cri-registry-mirrors', 'cri-registry-configs'])
      assert.ok(told?.message.includes(`io.containerd.deprecation/${id}`), id);
  });

  test('there is no way round the verifiers through a mirror', async () => {
    const { code, stderr } = await cri('pull', 'mirrored.test/denied/app:1');
    assert.notEqual(code, 0);
    assert.match(stderr, /image verifier policy blocked pull of mirrored\.test\/denied\/app:1/);
    assert.doesNotMatch(await ctr('images', 'ls', '-q'), /denied/);
  });

  test('what is unpacked needs its layers no more, if the configuration says so; snapshots tell where they are from', async () => {
    await pulls('mirrored.test/test/app:1');
    await eventually(
      'the layer is gone',
      // Its manifest and its configuration are left.
      async () => (await ctr('content', 'ls', '-q')).trim().split('\n').length === 2 || undefined,
      patience,
    );
    const labels = await ctr('snapshots', 'info', (await ctr('snapshots', 'ls')).split('\n')[1]!.split(/\s+/)[0]!);
    assert.match(labels, /"containerd\.io\/snapshot\/cri\.image-ref": "mirrored\.test\/test\/app:1"/);
    assert.equal((await cri('inspecti', 'mirrored.test/test/app:1')).code, 0);
  });

  test('a login of the request goes first', async () => {
    const name = `${closed.address}/test/app:1`;
    const wrong = await cri('pull', '--creds', `${registryUser.name}:wrong`, name);
    assert.notEqual(wrong.code, 0);
    assert.match(wrong.stderr, /401 Unauthorized|unauthorized|authorization failed/i);
    await pulls('--creds', `${registryUser.name}:${registryUser.password}`, name);
    // And without one, the configuration's.
    await pulls(name);
  });

  test('encrypted images need the node’s keys', {
    skip: existsSync(decoder) ? false : 'imgcrypt’s ctd-decoder is not in .cache/go-bin',
  }, async () => {
    const name = 'mirrored.test/test/encrypted:1';
    const locked = await cri('pull', name);
    assert.notEqual(locked.code, 0);
    assert.match(locked.stderr, /failed to pull and unpack image .*failed to extract layer .*\+encrypted/);
    renameSync(at('private.pem'), at('keys/private.pem'));
    await pulls(name);
    assert.equal((await cri('inspecti', name)).code, 0);
  });
});
