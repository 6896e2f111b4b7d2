// Pulls by CRI: every form of login that a request may carry, a registry that stalls, and what is not a stall; names of one image.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { ImageService } from '@gantry/api/gen/cri/v1/api_pb.js';
import { createClient, grpcTransport } from '@gantry/rpc';
import { crictl } from '../lib/cri-lab.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { HeldRegistry } from '../lib/held-registry.ts';
import { buildTestImages } from '../lib/images.ts';
import { eventually, run } from '../lib/processes.ts';
import { registryUser, TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { TokenServer } from '../lib/token-server.ts';

const skip =
  process.getuid?.() !== 0
    ? 'the daemon needs root'
    : existsSync(crictl)
      ? false
      : 'crictl is not in .cache/go-bin (npm test installs it when Go is there)';

describe('CRI pulls', { skip }, () => {
  const temp = makeTempDir('cri-pulls');
  const at = (...names: string[]) => path.join(temp.path, ...names);
  let open: TestRegistry;
  let basic: TestRegistry;
  let token: TestRegistry;
  let tokens: TokenServer;
  let held: HeldRegistry;
  let daemon: TestDaemon;
  let transport: ReturnType<typeof grpcTransport>;

  before(async () => {
    const layouts = await buildTestImages(at('images'), { few: true });
    open = await TestRegistry.start(temp.path);
    await open.fill(layouts.busybox, 'test/app:1');
    await open.fill(layouts.busybox, 'test/app:2');
    await open.fill(layouts.busybox, 'provided/app:1');
    const { storage } = open;
    tokens = await TokenServer.start(registryUser);
    [basic, token] = await Promise.all([
      TestRegistry.start(temp.path, { storage, basic: true }),
      TestRegistry.start(temp.path, { storage, token: tokens.registryOptions }),
    ]);
    held = await HeldRegistry.start(open.address);
    const { name: username, password } = registryUser;
    const answer = {
      kind: 'CredentialProviderResponse',
      apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
      cacheKeyType: 'Registry',
      auth: { [basic.address]: { username, password } },
    };
    writeFileSync(at('provider'), `#!/bin/sh\n/bin/cat > /dev/null\necho '${JSON.stringify(answer)}'\n`, {
      mode: 0o755,
    });
    mkdirSync(at('verifiers'));
    // It takes longer than a pull may go without progress.
    writeFileSync(at('verifiers/slow'), '#!/bin/sh\ncase "$*" in *app:2*) sleep 4 ;; esac\n', { mode: 0o755 });
    const images = `plugins.'io.containerd.cri.v1.images'`;
    daemon = new TestDaemon(
      at('d'),
      `[${images}]
  image_pull_progress_timeout = '2s'
  stats_collect_period = 1
  [${images}.pinned_images]
    app = '${open.address}/test/app:2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.native]
  runtime_type = 'io.containerd.runc.v2'
  snapshotter = 'native'
[plugins.'io.containerd.snapshotter.v1.overlayfs']
  root_path = '${at('elsewhere')}'
[plugins.'io.gantry.credentials.v1.providers']
  usual = ['node']
[plugins.'io.gantry.credentials.v1.providers'.providers.node]
  type = 'kubelet'
  path = '${at('provider')}'
  match_images = ['${basic.address}/provided']
[plugins.'io.containerd.image-verifier.v1.bindir']
  bin_dir = '${at('verifiers')}'
  per_verifier_timeout = '30s'
`,
    );
    await daemon.start();
    transport = grpcTransport(daemon.address);
  });
  after(async () => {
    await transport?.close();
    await daemon?.stop();
    await held?.close();
    for (const each of [open, basic, token]) await each?.close();
    await tokens?.close();
    await temp.remove();
  });

  const client = () => createClient(ImageService, transport);
  type Auth = Partial<
    Record<'username' | 'password' | 'auth' | 'identityToken' | 'registryToken' | 'serverAddress', string>
  >;
  const pull = (image: string, auth?: Auth) => client().pullImage({ image: { image }, ...(auth && { auth }) });
  const list = async () => (await client().listImages({})).images;

  test('logins in every form', async () => {
    const { name: username, password } = registryUser;
    const encoded = Buffer.from(`${username}:${password}`).toString('base64');
    const wrong = { username, password: 'wrong' };
    const url = new URL(tokens.realm);
    url.searchParams.set('service', tokens.service);
    url.searchParams.set('scope', 'repository:test/app:pull');
    const answer = await fetch(url, { headers: { authorization: `Basic ${encoded}` } });
    const registryToken = ((await answer.json()) as { token: string }).token;
    for (const [registry, logins] of [
      [basic, [{ username, password }, { auth: encoded }, { username, password, serverAddress: basic.address }]],
      [token, [{ username, password }, { identityToken: tokens.refreshToken }, { registryToken }]],
    ] as const) {
      const image = `${registry.address}/test/app:1`;
      for (const refused of [
        undefined,
        wrong,
        { username, password, serverAddress: 'other.test' },
        { auth: 'bm9jb2xvbg==' },
      ]) {
        await assert.rejects(
          pull(image, refused),
          /authorization failed|401|unauthorized|no colon/i,
          JSON.stringify(refused),
        );
      }
      for (const login of logins) {
        const { imageRef } = await pull(image, login);
        assert.match(imageRef, /^sha256:/, JSON.stringify(login));
        await client().removeImage({ image: { image: imageRef } });
        assert.deepEqual(await list(), []);
      }
    }
  });

  test('the node’s own credential provider, for the images that are its', async () => {
    const { imageRef } = await pull(`${basic.address}/provided/app:1`);
    await client().removeImage({ image: { image: imageRef } });
    // A login of the request goes first, and is not made up for.
    const wrong = { username: registryUser.name, password: 'wrong' };
    await assert.rejects(pull(`${basic.address}/provided/app:1`, wrong), /authorization failed|401|unauthorized/i);
  });

  test('a registry that stalls is given up, and the next pull goes on; a slow verifier is no stall', async () => {
    const image = `${held.address}/test/app:1`;
    await assert.rejects(
      pull(image),
      (error) => hasCode(error, Code.DeadlineExceeded) && /no progress/.test(`${error}`),
    );
    assert.deepEqual(await list(), []);
    held.release();
    await pull(image);
    await pull(`${open.address}/test/app:2`);
  });

  test('where images are, and how much: first what the kubelet looks at, then what handlers have for themselves', async () => {
    const places = async () =>
      (await client().imageFsInfo({})).imageFilesystems.map(({ fsId }) =>
        fsId!.mountpoint.replace(`${temp.path}/`, ''),
      );
    assert.deepEqual(await places(), ['elsewhere']);
    await client().pullImage({ image: { image: `${open.address}/test/app:2`, runtimeHandler: 'native' } });
    await eventually('both are told', async () => ((await places()).length === 2 ? true : undefined), 60_000);
    assert.deepEqual(await places(), ['elsewhere', 'd/root/io.containerd.snapshotter.v1.native']);
  });

  test('an image goes by its names, digest and id, whoever brought it; a pinned one is told to be', async () => {
    const [image, ...others] = await list();
    assert.deepEqual(others, []);
    const [one, two] = [`${held.address}/test/app:1`, `${open.address}/test/app:2`];
    assert.deepEqual(image!.repoTags.toSorted(), [one, two].toSorted());
    assert.equal(image!.repoDigests.length, 2);
    assert.equal(image!.pinned, true);
    const ctr = (...args: string[]) => run(path.resolve('bin/ctr'), ['-a', daemon.address, '-n', 'k8s.io', ...args]);
    await ctr('images', 'pull', '--plain-http', `${open.address}/test/app:1`);
    const three = `${open.address}/test/app:1`;
    for (const name of [
      one,
      two,
      three,
      image!.id,
      image!.id.slice(7),
      image!.id.slice(7, 19),
      ...image!.repoDigests,
    ]) {
      const { image: found } = await client().imageStatus({ image: { image: name } });
      assert.equal(found?.id, image!.id, name);
    }
    const labels = (await ctr('images', 'ls')).stdout.split('\n').filter((line) => line.includes(three));
    assert.match(labels[0]!, /io\.cri-containerd\.image=managed/);
    await client().removeImage({ image: { image: three } });
    assert.deepEqual(await list(), []);
    assert.equal((await ctr('images', 'ls', '-q')).stdout, '');
    for (const snapshotter of ['overlayfs', 'native']) {
      const left = await ctr('snapshots', '--snapshotter', snapshotter, 'ls');
      assert.equal(left.stdout.trim().split('\n').length, 1, snapshotter);
    }
  });
});
