import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { mergeScopes } from './authorizer.ts';
import { parseChallenges } from './challenge.ts';
import { allCapabilities, defaultHost, isLocalhost } from './hosts.ts';
import { hostsFromDirectory, splitConfigPath } from './hosts-files.ts';
import { environmentProxy } from './proxy.ts';
import { TestingAuthority } from './testing-certificates.ts';

async function directory() {
  const root = await mkdtemp(path.join(tmpdir(), 'gantry-registry-'));
  return { root, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

test('built-in endpoints', () => {
  assert.equal(defaultHost('docker.io').host, 'registry-1.docker.io');
  assert.deepEqual(pick(defaultHost('example.com')), ['https', 'example.com', undefined, undefined]);
  assert.deepEqual(pick(defaultHost('localhost:80')), ['http', 'localhost:80', undefined, undefined]);
  assert.deepEqual(pick(defaultHost('localhost:443')), ['https', 'localhost:443', true, undefined]);
  assert.deepEqual(pick(defaultHost('127.0.0.1')), ['https', '127.0.0.1', true, undefined]);
  assert.deepEqual(pick(defaultHost('localhost:5000')), ['https', 'localhost:5000', true, true]);
  assert.deepEqual(pick(defaultHost('localhost:5000', 'http')), ['http', 'localhost:5000', undefined, undefined]);
  assert.ok(isLocalhost('[::1]:5000'));
  assert.ok(!isLocalhost('localhost.example.com'));
});

function pick({ scheme, host, tls, httpFallback }: ReturnType<typeof defaultHost>): unknown[] {
  return [scheme, host, tls?.skipVerify, httpFallback];
}

test('hosts.toml: order, server last, and every setting', async () => {
  await using it = await directory();
  const folder = path.join(it.root, 'example.com_5000_');
  await mkdir(folder);
  const authority = new TestingAuthority();
  const { cert, key } = authority.issue({ commonName: 'client' });
  await writeFile(path.join(folder, 'ca.pem'), authority.cert);
  await writeFile(path.join(folder, 'pair.pem'), cert + key);
  await writeFile(
    path.join(folder, 'hosts.toml'),
    `server = "https://origin.example.com"
     [host."https://mirror.example.com"]
     capabilities = ["pull"]
     ca = "ca.pem"
     client = [["pair.pem", ""]]
     dial_timeout = "1.5s"
     [host."https://mirror.example.com".header]
     x-custom = ["a", "b"]
     [host."http://second:8080/prefix"]
     override_path = true
     proxy = "http://proxy:3128"
     [host."http://third"]
     skip_verify = true
     `,
  );
  const hosts = await hostsFromDirectory([it.root])('example.com:5000');
  assert.equal(hosts.length, 4);
  assert.deepEqual(hosts[0], {
    scheme: 'https',
    host: 'mirror.example.com',
    path: '/v2',
    capabilities: ['pull'],
    headers: { 'x-custom': ['a', 'b'] },
    tls: { ca: [authority.cert], pairs: [{ cert: cert + key, key: cert + key }] },
    dialTimeout: 1500,
  });
  assert.equal(hosts[1]?.path, '/prefix');
  assert.equal(hosts[1]?.proxy?.href, 'http://proxy:3128/');
  assert.equal(hosts[1]?.scheme, 'http');
  // TLS settings for an HTTP endpoint: HTTPS first.
  assert.deepEqual([hosts[2]?.scheme, hosts[2]?.httpFallback], ['https', true]);
  assert.equal(hosts[3]?.host, 'origin.example.com');
  assert.deepEqual(hosts[3]?.capabilities, allCapabilities);
});

test('_default, certs.d and unknown hosts', async () => {
  await using it = await directory();
  const provider = hostsFromDirectory([it.root]);
  assert.equal((await provider('docker.io'))[0]?.host, 'registry-1.docker.io');
  await mkdir(path.join(it.root, '_default'));
  await writeFile(path.join(it.root, '_default', 'hosts.toml'), '[host."https://mirror"]\n');
  assert.deepEqual(
    (await provider('quay.io')).map(({ host }) => host),
    ['mirror', 'quay.io'],
  );
  const folder = path.join(it.root, 'docker.io');
  await mkdir(folder);
  const authority = new TestingAuthority();
  const { cert, key } = authority.issue({ commonName: 'client' });
  await writeFile(path.join(folder, 'own.crt'), authority.cert);
  await writeFile(path.join(folder, 'me.cert'), cert);
  await assert.rejects(provider('docker.io'), /failed to load X509 key pair: .*me.cert/);
  await writeFile(path.join(folder, 'me.key'), authority.key);
  await assert.rejects(provider('docker.io'), /the key of .*me.cert is another one's/);
  await writeFile(path.join(folder, 'me.key'), key);
  assert.deepEqual((await provider('docker.io'))[0]?.tls, { ca: [authority.cert], pairs: [{ cert, key }] });
  await writeFile(path.join(folder, 'bad.crt'), 'not a certificate');
  await assert.rejects(provider('docker.io'), /unable to load CA cert ".*bad.crt"/);
});

test('a broken file is an error that names it', async () => {
  await using it = await directory();
  await mkdir(path.join(it.root, 'a.b'));
  const file = path.join(it.root, 'a.b', 'hosts.toml');
  await writeFile(file, '[host."https://m"]\ncapabilities = ["fly"]\n');
  await assert.rejects(
    hostsFromDirectory([it.root])('a.b'),
    new RegExp(`failed to decode ${file}: unknown capability fly`),
  );
  await assert.rejects(hostsFromDirectory([it.root])('../etc'), /invalid host/);
  for (const bad of [
    'server = 1',
    'ca = "missing.pem"',
    'client = [["only-one"]]',
    'dial_timeout = "soon"',
    'proxy = "proxy:3128"',
    'proxy = "ftp://me:secret@proxy"',
  ]) {
    await writeFile(file, `${bad}\n`);
    await assert.rejects(hostsFromDirectory([it.root])('a.b'), (error: Error) => {
      assert.match(error.message, /failed to decode .*hosts\.toml: /);
      assert.doesNotMatch(error.message, /secret/);
      return true;
    });
  }
});

test('several roots: the first that has a folder for the host counts, and its own endpoint can do everything', async () => {
  await using first = await directory();
  await using second = await directory();
  await mkdir(path.join(second.root, 'a.b:5000'));
  await writeFile(path.join(second.root, 'a.b:5000', 'hosts.toml'), 'capabilities = ["pull"]\n[header]\nx-a = "b"\n');
  const provider = hostsFromDirectory(splitConfigPath(`${first.root}::${second.root}`));
  const [own] = await provider('a.b:5000');
  assert.deepEqual(own?.capabilities, allCapabilities);
  assert.deepEqual(own?.headers, { 'x-a': ['b'] });
  await mkdir(path.join(first.root, '_default'));
  await writeFile(path.join(first.root, '_default', 'hosts.toml'), 'server = "https://only.example.com:443"\n');
  assert.deepEqual(
    (await provider('a.b:5000')).map(({ host }) => host),
    ['only.example.com:443'],
  );
});

test('proxies of the environment, as Go programs read them', () => {
  const choose = (url: string, environment: Record<string, string>): string | undefined =>
    environmentProxy(new URL(url), environment)?.href;
  const both = { HTTPS_PROXY: 'http://secure:1', http_proxy: 'plain:2' };
  assert.equal(choose('https://a.b/v2/', both), 'http://secure:1/');
  assert.equal(choose('http://a.b/v2/', both), 'http://plain:2/');
  assert.equal(choose('https://localhost:5000/', both), undefined);
  assert.equal(choose('https://127.0.0.2/', both), undefined);
  assert.equal(choose('https://[::1]:5000/', both), undefined);
  const no = { ...both, NO_PROXY: 'example.com, .inner.org,*.star.net,10.0.0.0/8,192.168.1.1,ported.com:8443' };
  for (const excluded of [
    'example.com',
    'www.example.com',
    'x.inner.org',
    'x.star.net',
    '10.1.2.3',
    '192.168.1.1',
    'ported.com:8443',
  ]) {
    assert.equal(choose(`https://${excluded}/`, no), undefined, excluded);
  }
  for (const included of ['badexample.com', 'inner.org', 'star.net', '11.0.0.1', '192.168.1.2', 'ported.com']) {
    assert.equal(choose(`https://${included}/`, no), 'http://secure:1/', included);
  }
  assert.equal(choose('https://a.b/', { ...both, no_proxy: '*' }), undefined);
  assert.throws(
    () => choose('https://a.b/', { HTTPS_PROXY: 'ftp://me:secret@p' }),
    /^StatusError: HTTPS_PROXY: not the address of an http, https or socks5 proxy$/,
  );
});

test('challenges', () => {
  assert.deepEqual(
    parseChallenges(['Basic realm="a, b"', 'Bearer realm="https://t/x",service="s", scope="repository:a:pull,push"']),
    [
      { scheme: 'bearer', parameters: { realm: 'https://t/x', service: 's', scope: 'repository:a:pull,push' } },
      { scheme: 'basic', parameters: { realm: 'a, b' } },
    ],
  );
  assert.deepEqual(parseChallenges(['Negotiate', '']), [{ scheme: 'negotiate', parameters: {} }]);
});

test('scopes are merged', () => {
  const scopes = ['repository:a:push,pull', 'repository:a:pull', 'registry:catalog:*', 'odd', ''];
  assert.deepEqual(mergeScopes(scopes), ['odd', 'registry:catalog:*', 'repository:a:pull,push']);
});
