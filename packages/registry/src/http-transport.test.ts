import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { getCACertificates } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { MediaType } from '@gantry/oci';
import type { RegistryHost, TlsOptions } from './hosts.ts';
import { allCapabilities } from './hosts.ts';
import { RegistryClient, type RegistryClientOptions } from './registry-client.ts';
import { TestingAuthority } from './testing-certificates.ts';
import { sha256, TestingRegistry, type TestingRegistryOptions } from './testing-registry.ts';
import { readSystem } from './tls-context.ts';

const authority = new TestingAuthority();
const server = authority.issue({ commonName: 'localhost', names: ['localhost'] });
const bytes = randomBytes(2_000_000);
const blob = { mediaType: MediaType.OciLayerGzip, digest: sha256(bytes), size: bytes.length };

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function endpoint(host: string, more: Partial<RegistryHost> = {}): RegistryHost {
  return { scheme: 'https', host, path: '/v2', capabilities: allCapabilities, headers: {}, ...more };
}

async function secure(tls: TlsOptions | undefined, options: Partial<TestingRegistryOptions['tls']> = {}) {
  const versions: string[] = [];
  const registry = await TestingRegistry.start({
    tls: { ...server, ...options },
    intercept(request) {
      versions.push(request.httpVersion);
      return false;
    },
  });
  registry.addBlob('a', bytes);
  const client = new RegistryClient({ hosts: async (host) => [endpoint(host, tls ? { tls } : {})] });
  return {
    registry,
    client,
    versions,
    reference: `${registry.host}/a:1`,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

test('HTTP/2 where it is offered: ranges at once, pushes, and requests left early', async () => {
  await using it = await secure({ ca: [authority.cert] }, { http2: true });
  const ranges = { size: 500_000, concurrency: 4 };
  for await (const _ of it.client.fetch(it.reference, blob, { ranges })) break;
  assert.ok((await collect(it.client.fetch(it.reference, blob, { ranges }))).equals(bytes));
  const open = async function* () {
    yield bytes;
  };
  assert.equal(await it.client.push(`${it.registry.host}/b:1`, blob, { open }), 'pushed');
  assert.ok(it.registry.blobs.get(`b@${blob.digest}`)?.equals(bytes));
  assert.ok(it.versions.length > 6 && it.versions.every((version) => version === '2.0'), String(it.versions));
});

test('HTTP/1.1 where that is all there is', async () => {
  await using it = await secure({ ca: [authority.cert] });
  assert.ok((await collect(it.client.fetch(it.reference, blob))).equals(bytes));
  assert.deepEqual(it.versions, ['1.1']);
});

test('certificates that are not good say why, and what to do', async () => {
  const expired = authority.issue({ commonName: 'localhost', names: ['localhost'], validFor: -60 });
  const foreign = authority.issue({ commonName: 'else', names: ['elsewhere.example.com'] });
  const cases = [
    [
      server,
      undefined,
      /x509: certificate signed by unknown authority.*put the CA of localhost:\d+ as "ca" into its hosts/,
    ],
    [expired, [authority.cert], /x509: certificate has expired or is not yet valid.*renew the certificate/],
    [foreign, [authority.cert], /x509: certificate is valid for other names.*is for another name/],
  ] as const;
  for (const [pair, ca, expected] of cases) {
    await using it = await secure(ca ? { ca: [...ca] } : undefined, pair);
    await assert.rejects(it.client.resolve(it.reference), expected);
  }
});

test('client certificates', async () => {
  const clients = new TestingAuthority('clients');
  const ca = [authority.cert];
  await using it = await secure({ ca, pairs: [clients.issue({ commonName: 'me' })] }, { clientCa: clients.cert });
  assert.ok((await collect(it.client.fetch(it.reference, blob))).equals(bytes));
});

/** A proxy for everything, by CONNECT or by whole URLs, whatever name is asked for. */
async function startProxy(target: string, login = '') {
  const asked: string[] = [];
  const port = Number(target.split(':')[1]);
  const refused = (request: http.IncomingMessage): boolean =>
    login !== '' && request.headers['proxy-authorization'] !== `Basic ${Buffer.from(login).toString('base64')}`;
  const proxy = http.createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    if (refused(request)) return void response.writeHead(407).end();
    const { pathname, search } = new URL(request.url ?? '');
    const { method, headers } = request;
    const up = http.request({ port, host: '127.0.0.1', path: pathname + search, method, headers });
    up.on('response', (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    request.pipe(up);
  });
  proxy.on('connect', (request, socket) => {
    asked.push(`CONNECT ${request.url}`);
    if (refused(request)) return void socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n');
    const up = net.connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      up.pipe(socket).pipe(up);
    });
    up.on('error', () => socket.destroy());
    socket.on('error', () => up.destroy());
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  return {
    asked,
    url: (userInfo = '') => new URL(`http://${userInfo}127.0.0.1:${(proxy.address() as AddressInfo).port}`),
    async [Symbol.asyncDispose]() {
      proxy.closeAllConnections();
      proxy.close();
      await once(proxy, 'close');
    },
  };
}

test('through a proxy: plain requests as whole URLs, TLS by CONNECT, with a login', async () => {
  await using plain = await TestingRegistry.start();
  const tls = { cert: authority.issue({ commonName: 'r', names: ['registry.example.com'] }) };
  await using secured = await TestingRegistry.start({ tls: { ...tls.cert, http2: true } });
  for (const registry of [plain, secured]) registry.addBlob('a', bytes);
  await using front = await startProxy(plain.host, 'me:pa ss');
  await using tunnel = await startProxy(secured.host);
  const clientOf = (more: Partial<RegistryHost>): RegistryClient =>
    new RegistryClient({ hosts: async (host) => [endpoint(host, more)] });
  await using open = clientOf({ scheme: 'http', proxy: front.url('me:pa%20ss@') });
  assert.ok((await collect(open.fetch('registry.example.com:81/a:1', blob))).equals(bytes));
  assert.deepEqual(front.asked, [`GET http://registry.example.com:81/v2/a/blobs/${blob.digest}`]);
  await using closed = clientOf({ tls: { ca: [authority.cert] }, proxy: tunnel.url() });
  assert.ok((await collect(closed.fetch('registry.example.com/a:1', blob))).equals(bytes));
  assert.deepEqual(tunnel.asked, ['CONNECT registry.example.com:443']);
  await using anonymous = clientOf({ scheme: 'http', proxy: front.url('me:wrong-secret@') });
  await assert.rejects(anonymous.resolve('registry.example.com/a:1'), (error: Error) => {
    assert.match(error.message, /407|Proxy Authentication Required/);
    assert.doesNotMatch(error.message, /wrong-secret/);
    return true;
  });
});

test('the environment names proxies, and what goes without them', async () => {
  await using registry = await TestingRegistry.start();
  registry.addBlob('a', bytes);
  await using proxy = await startProxy(registry.host);
  const before = { ...process.env };
  process.env.HTTP_PROXY = proxy.url().href;
  try {
    await using client = new RegistryClient({ hosts: async (host) => [endpoint(host, { scheme: 'http' })] });
    assert.ok((await collect(client.fetch('registry.example.com/a:1', blob))).equals(bytes));
    assert.ok((await collect(client.fetch(`${registry.host}/a:1`, blob))).equals(bytes));
    assert.equal(proxy.asked.length, 1);
  } finally {
    if (before.HTTP_PROXY === undefined) delete process.env.HTTP_PROXY;
    else process.env.HTTP_PROXY = before.HTTP_PROXY;
  }
});

async function plainClient(intercept: TestingRegistryOptions['intercept'], options: RegistryClientOptions = {}) {
  const registry = await TestingRegistry.start({ intercept });
  const client = new RegistryClient({ hosts: async (host) => [endpoint(host, { scheme: 'http' })], ...options });
  return {
    registry,
    client,
    reference: `${registry.host}/a:1`,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

test('answers that were encoded on the way are decoded; parts of such are refused', async () => {
  await using it = await plainClient((request, response) => {
    assert.equal(request.headers['accept-encoding'], 'identity');
    const packed = gzipSync(bytes, { level: 1 });
    const ranged = request.headers.range !== undefined;
    response.writeHead(ranged ? 206 : 200, { 'content-encoding': 'gzip', 'content-length': String(packed.length) });
    response.end(packed);
    return true;
  });
  assert.ok((await collect(it.client.fetch(it.reference, blob))).equals(bytes));
  await assert.rejects(collect(it.client.fetch(it.reference, blob, { offset: 5 })), /is part of an encoded answer/);
});

test('headers of the host go to it alone, wherever it redirects to', async () => {
  await using other = await plainClient((_request, response) => {
    response.writeHead(200, { 'content-length': String(bytes.length) }).end(bytes);
    return true;
  });
  const headers = { 'x-api-key': ['secret'], 'user-agent': ['tester'] };
  await using it = await plainClient(
    (request, response) => {
      assert.equal(request.headers['x-api-key'], 'secret');
      response.writeHead(302, { location: `http://${other.registry.host}/cdn` }).end();
      return true;
    },
    { hosts: async (host) => [endpoint(host, { scheme: 'http', headers })] },
  );
  assert.ok((await collect(it.client.fetch(it.reference, blob, { offset: 0 }))).equals(bytes));
  assert.equal(other.registry.headers[0]?.['x-api-key'], undefined);
  assert.equal(other.registry.headers[0]?.['user-agent'], 'tester');
});

/** A SOCKS5 proxy that knows one destination, whatever name is asked for. */
async function startSocks(target: string) {
  const asked: string[] = [];
  const port = Number(target.split(':')[1]);
  const proxy = net.createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => {
      socket.write(Buffer.from([5, 0]));
      socket.once('data', (request: Buffer) => {
        const length = request[4] as number;
        asked.push(`${request.subarray(5, 5 + length)}:${request.readUInt16BE(5 + length)}`);
        const up = net.connect(port, '127.0.0.1', () => {
          socket.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
          up.pipe(socket).pipe(up);
        });
        up.on('error', () => socket.destroy());
      });
    });
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  return {
    asked,
    url: new URL(`socks5h://127.0.0.1:${(proxy.address() as AddressInfo).port}`),
    async [Symbol.asyncDispose]() {
      proxy.close();
      await once(proxy, 'close');
    },
  };
}

test('through a SOCKS5 proxy', async () => {
  const pair = authority.issue({ commonName: 'r', names: ['registry.example.com'] });
  await using registry = await TestingRegistry.start({ tls: pair });
  registry.addBlob('a', bytes);
  await using proxy = await startSocks(registry.host);
  const tls = { ca: [authority.cert] };
  await using client = new RegistryClient({ hosts: async (host) => [endpoint(host, { tls, proxy: proxy.url })] });
  assert.ok((await collect(client.fetch('registry.example.com/a:1', blob))).equals(bytes));
  assert.deepEqual(proxy.asked, ['registry.example.com:443']);
});

test('dial_timeout ends the wait for one that takes connections and says nothing', async () => {
  const sockets = new Set<net.Socket>();
  const silent = net.createServer((socket) => void sockets.add(socket.on('error', () => undefined)));
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  try {
    const host = `localhost:${(silent.address() as AddressInfo).port}`;
    await using client = new RegistryClient({ hosts: async (name) => [endpoint(name, { dialTimeout: 200 })] });
    await assert.rejects(client.resolve(`${host}/a:1`), /i\/o timeout.*dial_timeout in hosts\.toml/);
  } finally {
    for (const socket of sockets) socket.destroy();
    silent.close();
    await once(silent, 'close');
  }
});

test('authorities of the system: those that Node does not bring, from files that the environment may name', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'gantry-authorities-'));
  try {
    const other = new TestingAuthority('other');
    const [first = ''] = getCACertificates('default');
    await writeFile(path.join(directory, 'bundle.pem'), `# a comment\n${authority.cert}\n${first}\n${authority.cert}`);
    await mkdir(path.join(directory, 'more'));
    await writeFile(path.join(directory, 'more', 'other.0'), other.cert);
    const SSL_CERT_FILE = path.join(directory, 'bundle.pem');
    assert.deepEqual(await readSystem({ SSL_CERT_FILE }), [authority.cert.trim()]);
    const SSL_CERT_DIR = `${directory}/none:${directory}/more`;
    assert.deepEqual(await readSystem({ SSL_CERT_FILE, SSL_CERT_DIR }), [authority.cert.trim(), other.cert.trim()]);
  } finally {
    await rm(directory, { recursive: true });
  }
});
