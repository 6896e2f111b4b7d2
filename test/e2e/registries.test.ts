import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { TestingAuthority } from '@gantry/registry/testing-certificates.ts';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildImage } from '../lib/images.ts';
import { registryUser, TestRegistry } from '../lib/registry.ts';
import { RegistryProxy } from '../lib/registry-proxy.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { TokenServer } from '../lib/token-server.ts';

interface Descriptor {
  digest: string;
  size: number;
}

const skip = process.getuid?.() === 0 ? false : 'unpacking needs root';
const user = `${registryUser.name}:${registryUser.password}`;

describe('registries of every kind', { skip }, () => {
  const temp = makeTempDir('registries');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const authority = new TestingAuthority();
  const clientAuthority = new TestingAuthority('clients');
  let plain: TestRegistry;
  let secure: TestRegistry;
  let mutual: TestRegistry;
  let basic: TestRegistry;
  let token: TestRegistry;
  let tokens: TokenServer;
  let proxy: RegistryProxy;
  let elsewhere: RegistryProxy;
  let images = 0;

  before(async () => {
    plain = await TestRegistry.start(temp.path);
    // All of them have the same images; the plain one is where they are put.
    const { storage } = plain;
    const server = authority.issue({ commonName: 'localhost', names: ['localhost', '127.0.0.1'] });
    tokens = await TokenServer.start(registryUser);
    [secure, mutual, basic, token] = await Promise.all([
      TestRegistry.start(temp.path, { storage, tls: server }),
      TestRegistry.start(temp.path, { storage, tls: { ...server, clientCa: clientAuthority.cert } }),
      TestRegistry.start(temp.path, { storage, basic: true }),
      TestRegistry.start(temp.path, { storage, token: tokens.registryOptions }),
    ]);
    elsewhere = await RegistryProxy.start(plain.address);
    proxy = await RegistryProxy.start(plain.address, elsewhere);
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await Promise.all([proxy, elsewhere, tokens].map((server) => server?.close()));
    await Promise.all([plain, secure, mutual, basic, token].map((registry) => registry?.close()));
    await temp.remove();
  });

  /** A new image that no daemon has a byte of: its repository and tag at all of the registries. */
  async function newImage(repository = 'test'): Promise<string> {
    const layout = path.join(temp.path, `image-${++images}`);
    const layer = (directory: string): void => {
      writeFileSync(path.join(directory, 'data'), randomBytes(1_000_000));
    };
    await buildImage(layout, [layer, layer], { Cmd: ['/none'] });
    const name = `${repository}/image-${images}:latest`;
    await plain.fill(layout, name);
    return name;
  }

  /** A directory for `--hosts-dir` with a `hosts.toml` for one registry. */
  function hostsDirectory(registry: string, toml: string, files: Record<string, string> = {}): string {
    const directory = path.join(temp.path, `hosts-${++images}`);
    const folder = path.join(directory, registry.replace(/:(\d+)$/, '_$1_'));
    mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, 'hosts.toml'), toml);
    for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
    return directory;
  }

  for (const [index, client] of ctrClients().entries()) {
    if (!client.transfer) continue;
    describe(client.name, { skip: client.missing ?? false }, () => clientTests(client, index));
  }

  function clientTests(client: CtrClient, index: number): void {
    let namespaces = 0;
    /** A session in a namespace of its own. */
    const session = (): CtrSession => new CtrSession(client, daemon.address, `registries-${index}-${++namespaces}`);

    async function pulls(ctr: CtrSession, reference: string, ...flags: string[]): Promise<void> {
      await ctr.ok('images', 'pull', ...flags, reference);
      assert.match(await ctr.ok('images', 'check'), new RegExp(`${reference} .*complete \\(3/3\\)`));
    }

    /** Expects the pull to fail, and nothing of it to stay: no image, no half of a blob. Answers what was said. */
    async function fails(ctr: CtrSession, reference: string, ...flags: string[]): Promise<string> {
      const { code, stderr, stdout } = await ctr.try('images', 'pull', ...flags, reference);
      assert.notEqual(code, 0, stdout);
      assert.equal((await ctr.ok('images', 'ls', '-q')).trim(), '');
      assert.doesNotMatch(stdout + stderr, new RegExp(`${registryUser.password}|${tokens.refreshToken}|eyJ`));
      return stderr;
    }

    /** Pushes an image that has been pulled under a new name, and sees that the registry has all of it. */
    async function pushes(ctr: CtrSession, from: string, registry: string, ...flags: string[]): Promise<void> {
      const name = `pushed/${index}-${++images}`;
      await ctr.ok('images', 'push', ...flags, `${registry}/${name}:latest`, from);
      const base = `http://${plain.address}/v2/${name}`;
      const accept = 'application/vnd.oci.image.manifest.v1+json';
      const manifest = await fetch(`${base}/manifests/latest`, { headers: { accept } });
      const { config, layers } = (await manifest.json()) as Record<'config', Descriptor> & { layers: Descriptor[] };
      assert.equal(layers.length, 2);
      for (const { digest, size } of [config, ...layers]) {
        const blob = await fetch(`${base}/blobs/${digest}`, { method: 'HEAD' });
        assert.equal(Number(blob.headers.get('content-length')), size);
      }
    }

    test('plain HTTP, with and without being told so', async () => {
      const ctr = session();
      const reference = `${plain.address}/${await newImage()}`;
      await pulls(ctr, reference);
      const [, repository] = /^[^/]+\/(.*):latest$/.exec(reference) ?? [];
      const labelled = (await ctr.ok('content', 'ls')).match(
        new RegExp(`containerd\\.io/distribution\\.source\\.localhost=${repository}`, 'g'),
      );
      assert.equal(labelled?.length, 4, 'each blob says where it came from');
      await pushes(ctr, reference, plain.address, '--plain-http');
      const missing = await fails(session(), `${plain.address}/none:1`);
      assert.match(missing, new RegExp(`failed to resolve image: ${plain.address}/none:1: not found`));
    });

    test('TLS: the CA comes from hosts.toml, HTTP/2 included', async () => {
      const ctr = session();
      const name = await newImage();
      const reference = `${secure.address}/${name}`;
      const server = `server = "https://${secure.address}"\n`;
      const without = await fails(session(), reference, '--hosts-dir', hostsDirectory(secure.address, server));
      assert.match(
        without,
        /failed to do request: Head "https:\/\/localhost:\d+\/v2\/test\/image-\d+\/manifests\/latest"/,
      );
      assert.match(without, /tls: failed to verify certificate: x509: certificate signed by unknown authority/);
      assert.match(without, /put the CA of localhost:\d+ as "ca" into its hosts\.toml/);
      const trusting = hostsDirectory(secure.address, `${server}ca = "ca.pem"\n`, { 'ca.pem': authority.cert });
      await pulls(ctr, reference, '--hosts-dir', trusting);
      await pushes(ctr, reference, secure.address, '--hosts-dir', trusting);
      const http = await fails(session(), reference, '--plain-http');
      assert.match(http, /400 Bad Request: Client sent an HTTP request to an HTTPS server.*leave out --plain-http/);
    });

    test('TLS: client certificates', async () => {
      const reference = `${mutual.address}/${await newImage()}`;
      const { cert, key } = clientAuthority.issue({ commonName: 'client' });
      const settings = `server = "https://${mutual.address}"\nca = "ca.pem"\n`;
      const files = { 'ca.pem': authority.cert, 'client.pem': cert, 'client.key': key };
      const without = await fails(session(), reference, '--hosts-dir', hostsDirectory(mutual.address, settings, files));
      assert.match(without, /wants a client certificate that it knows: name one as "client" in hosts\.toml/);
      const toml = `${settings}client = [["client.pem", "client.key"]]\n`;
      await pulls(session(), reference, '--hosts-dir', hostsDirectory(mutual.address, toml, files));
    });

    test('basic authentication', async () => {
      const ctr = session();
      const reference = `${basic.address}/${await newImage()}`;
      const denied = 'pull access denied, repository does not exist or may require authorization';
      const anonymous = await fails(session(), reference);
      assert.match(anonymous, new RegExp(`${denied}: authorization failed: no basic auth credentials`));
      assert.match(anonymous, new RegExp(`log in with "ctr registry login ${basic.address}", or pass --user`));
      const wrong = await fails(session(), reference, '--user', `${registryUser.name}:wrong`);
      assert.match(wrong, new RegExp(`${denied}: .*HEAD http://${basic.address}/v2/.*: 401 Unauthorized`));
      await pulls(ctr, reference, '--user', user);
      const push = await ctr.try('images', 'push', `${basic.address}/denied:1`, reference);
      assert.notEqual(push.code, 0);
      assert.match(push.stderr, /push access denied, repository does not exist or may require authorization/);
      await pushes(ctr, reference, basic.address, '--user', user);
    });

    test('tokens: anonymous, by password, by refresh token, for pushes, used again', async () => {
      const ctr = session();
      const open = `${token.address}/${await newImage('public')}`;
      tokens.asked.length = 0;
      await pulls(session(), open);
      assert.ok(tokens.asked.every((line) => line.startsWith('GET repository:public/')));
      const reference = `${token.address}/${await newImage()}`;
      const repository = reference.slice(token.address.length + 1, -':latest'.length);
      const anonymous = await fails(session(), reference);
      assert.match(anonymous, /insufficient_scope: authorization failed .*401 Unauthorized; log in with/);
      const wrong = await fails(session(), reference, '--user', `${registryUser.name}:wrong`);
      assert.match(wrong, /failed to fetch oauth token: |failed to fetch token: /);
      assert.match(wrong, /incorrect username or password/);
      tokens.asked.length = 0;
      await pulls(ctr, reference, '--user', user);
      assert.deepEqual(tokens.asked, [`password repository:${repository}:pull`]);
      // The next pull has the token already; another user's would not serve it.
      await pulls(ctr, reference, '--user', user);
      assert.equal(tokens.asked.length, 1);
      await pulls(session(), reference, '--refresh', tokens.refreshToken);
      assert.deepEqual(tokens.asked.slice(1), [`refresh_token repository:${repository}:pull`]);
      tokens.asked.length = 0;
      await pushes(ctr, reference, token.address, '--user', user);
      assert.ok(
        tokens.asked.length > 0 &&
          tokens.asked.every((line) => /^password repository:pushed\/\S+:pull,push( |$)/.test(line)),
      );
    });

    test('mirrors: passed over when they fail, told whose images are wanted', async () => {
      const name = await newImage();
      const reference = `${plain.address}/${name}`;
      const dead = '[host."http://localhost:1"]\n[host."http://localhost:1".header]\nx-a = "b"\n';
      const mirror = `[host."http://${proxy.address}"]\ncapabilities = ["pull", "resolve"]\n`;
      const server = `server = "http://${plain.address}"\n`;
      proxy.become('none');
      await pulls(session(), reference, '--hosts-dir', hostsDirectory(plain.address, server + dead + mirror));
      assert.equal(
        proxy.requests[0],
        `HEAD /v2/${name.replace(':', '/manifests/')}?ns=${encodeURIComponent(plain.address)}`,
      );
      assert.ok(proxy.requests.length >= 4, 'all of it came from the mirror');
      proxy.become('is down');
      const next = `${plain.address}/${await newImage()}`;
      await pulls(session(), next, '--hosts-dir', hostsDirectory(plain.address, server + dead + mirror));
      assert.ok(proxy.requests.length >= 4, 'the mirror was asked first');
      const only = hostsDirectory(plain.address, `server = "http://${proxy.address}"\n`);
      const down = await fails(session(), next, '--hosts-dir', only);
      assert.match(down, new RegExp(`HEAD request to http://${proxy.address}/v2/\\S+: 503 Service Unavailable`));
      // One that lies about a layer is passed over, too.
      for (const lie of ['lies about lengths', 'lies about digests'] as const) {
        proxy.become(lie);
        const another = `${plain.address}/${await newImage()}`;
        await pulls(session(), another, '--hosts-dir', hostsDirectory(plain.address, server + mirror));
        assert.ok(proxy.requests.length >= 4, 'the mirror was asked first');
      }
    });

    for (const way of ['cuts', 'throttles', 'ignores Range', 'says no digest', 'redirects'] as const) {
      test(`a registry that ${way}`, async () => {
        const name = await newImage();
        proxy.become(way);
        elsewhere.become('none');
        await pulls(session(), `${proxy.address}/${name}`, '--plain-http');
        const blobs = proxy.requests.filter((line) => line.startsWith('GET') && line.includes('/blobs/'));
        const ranges = proxy.headers.filter(({ range }) => range !== undefined);
        if (way === 'cuts') assert.ok(ranges.length >= 6, 'taken up where it broke');
        if (way === 'throttles') assert.ok(proxy.requests.length >= 15);
        if (way === 'ignores Range') assert.ok(blobs.length >= 5);
        if (way === 'redirects') assert.equal(elsewhere.requests.length, 3);
      });
    }

    test('a registry that lies about digests', async () => {
      const ctr = session();
      const reference = `${proxy.address}/${await newImage()}`;
      proxy.become('lies about digests');
      const said = await fails(ctr, reference, '--plain-http');
      assert.match(
        said,
        /failed commit on ref "layer-sha256:[0-9a-f]{64}": unexpected commit digest sha256:[0-9a-f]{64}, expected sha256:[0-9a-f]{64}/,
      );
      assert.match(
        said,
        new RegExp(`GET http://${proxy.address}/v2/test/image-\\d+/blobs/sha256:[0-9a-f]{64} \\(200 OK\\)`),
      );
      assert.equal((await ctr.ok('content', 'active')).trim().split('\n').length, 1, 'no ingest is left');
      proxy.become('none');
      await pulls(ctr, reference, '--plain-http');
    });

    for (const way of ['lies about lengths', 'never ends'] as const) {
      test(`a registry that ${way}`, async () => {
        const ctr = session();
        const reference = `${proxy.address}/${await newImage()}`;
        proxy.become(way);
        const said = await fails(ctr, reference, '--plain-http');
        assert.match(said, /failed size validation: .*GET http:\S+ \(200 OK\).*failed precondition/);
        assert.equal((await ctr.ok('content', 'active')).trim().split('\n').length, 1, 'no ingest is left');
      });
    }

    test('a push mounts what another repository of the registry has', async () => {
      const ctr = session();
      const reference = `${proxy.address}/${await newImage()}`;
      proxy.become('none');
      await pulls(ctr, reference);
      proxy.become('none');
      await pushes(ctr, reference, proxy.address);
      assert.equal(
        proxy.requests.filter((line) => /^POST .*\?mount=sha256.*&from=test%2Fimage-\d+$/.test(line)).length,
        3,
      );
      assert.equal(proxy.requests.filter((line) => /^PUT .*\/blobs\//.test(line)).length, 0);
    });

    test('pushes: in chunks where whole blobs are refused, again where it is too busy', async () => {
      for (const way of ['refuses whole blobs', 'throttles'] as const) {
        const ctr = session();
        const reference = `${plain.address}/${await newImage()}`;
        await pulls(ctr, reference);
        proxy.become(way);
        await pushes(ctr, reference, proxy.address, '--plain-http');
      }
    });

    test('the daemon’s own config_path; large layers in several ranges at once', async () => {
      const configuration = hostsDirectory('images.example.com', `server = "http://${proxy.address}"\n`);
      const other = new TestDaemon(
        path.join(temp.path, `d-${index}`),
        `[plugins.'io.containerd.transfer.v1.local']
  config_path = '${temp.path}/none:${configuration}'
  concurrent_layer_fetch_buffer = 262144
`,
      );
      await other.start();
      try {
        const name = await newImage();
        proxy.become('none');
        await pulls(new CtrSession(client, other.address, 'ranges'), `images.example.com/${name}`);
        assert.equal(proxy.requests[0], `HEAD /v2/${name.replace(':', '/manifests/')}?ns=images.example.com`);
        const ranges = proxy.headers.flatMap(({ range }) => range ?? []);
        assert.equal(ranges.filter((range) => range === 'bytes=262144-524287').length, 2);
        assert.ok(ranges.length >= 8, `${ranges}`);
      } finally {
        await other.stop();
      }
    });

    test('no secret is in the log', () => {
      const log = readFileSync(daemon.logFile, 'utf8');
      assert.doesNotMatch(log, new RegExp(`${registryUser.password}|${tokens.refreshToken}|eyJ`));
    });
  }
});
