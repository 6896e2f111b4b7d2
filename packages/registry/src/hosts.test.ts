import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { mergeScopes } from './authorizer.ts';
import { parseChallenges } from './challenge.ts';
import { allCapabilities, defaultHost, isLocalhost } from './hosts.ts';
import { hostsFromDirectory } from './hosts-files.ts';

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
  await writeFile(path.join(folder, 'ca.pem'), 'CA');
  await writeFile(path.join(folder, 'pair.pem'), 'PAIR');
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
     skip_verify = false
     `,
  );
  const hosts = await hostsFromDirectory(it.root)('example.com:5000');
  assert.equal(hosts.length, 3);
  assert.deepEqual(hosts[0], {
    scheme: 'https',
    host: 'mirror.example.com',
    path: '/v2',
    capabilities: ['pull'],
    headers: { 'x-custom': ['a', 'b'] },
    tls: { ca: ['CA'], pairs: [{ cert: 'PAIR', key: 'PAIR' }] },
    dialTimeout: 1500,
  });
  assert.equal(hosts[1]?.path, '/prefix');
  assert.equal(hosts[2]?.host, 'origin.example.com');
  assert.deepEqual(hosts[2]?.capabilities, allCapabilities);
});

test('_default, certs.d and unknown hosts', async () => {
  await using it = await directory();
  const provider = hostsFromDirectory(it.root);
  assert.equal((await provider('docker.io'))[0]?.host, 'registry-1.docker.io');
  await mkdir(path.join(it.root, '_default'));
  await writeFile(path.join(it.root, '_default', 'hosts.toml'), '[host."https://mirror"]\n');
  assert.deepEqual(
    (await provider('quay.io')).map(({ host }) => host),
    ['mirror', 'quay.io'],
  );
  const folder = path.join(it.root, 'docker.io');
  await mkdir(folder);
  await writeFile(path.join(folder, 'own.crt'), 'CA');
  await writeFile(path.join(folder, 'me.cert'), 'CERT');
  await assert.rejects(provider('docker.io'), /missing key me.key for client certificate me.cert/);
  await writeFile(path.join(folder, 'me.key'), 'KEY');
  assert.deepEqual((await provider('docker.io'))[0]?.tls, { ca: ['CA'], pairs: [{ cert: 'CERT', key: 'KEY' }] });
});

test('a broken file is an error that names it', async () => {
  await using it = await directory();
  await mkdir(path.join(it.root, 'a.b'));
  const file = path.join(it.root, 'a.b', 'hosts.toml');
  await writeFile(file, '[host."https://m"]\ncapabilities = ["fly"]\n');
  await assert.rejects(
    hostsFromDirectory(it.root)('a.b'),
    new RegExp(`failed to decode ${file}: unknown capability fly`),
  );
  await assert.rejects(hostsFromDirectory(it.root)('../etc'), /invalid host/);
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
