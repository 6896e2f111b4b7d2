import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { Code, hasCode, StatusError } from '@gantry/api';
import { MediaType } from '@gantry/oci';
import { RangeIgnoredError } from './fetch-range.ts';
import { RegistryClient, type RegistryClientOptions } from './registry-client.ts';
import { sendBytes, TestingRegistry, type TestingRegistryOptions } from './testing-registry.ts';

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const manifest = { schemaVersion: 2, mediaType: MediaType.OciManifest, config: {}, layers: [] };
const layer = (blob: { digest: string; size: number }) => ({ ...blob, mediaType: MediaType.OciLayerGzip });

async function start(options: TestingRegistryOptions = {}, clientOptions: RegistryClientOptions = {}) {
  const registry = await TestingRegistry.start(options);
  const client = new RegistryClient(clientOptions);
  return {
    registry,
    client,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

test('resolves a tag by HEAD, over HTTP when localhost does not speak TLS', async () => {
  await using it = await start();
  const pushed = it.registry.addManifest('a/b', MediaType.OciManifest, manifest, 'v1');
  const { name, descriptor } = await it.client.resolve(`${it.registry.host}/a/b:v1`);
  assert.equal(name, `${it.registry.host}/a/b:v1`);
  assert.deepEqual(descriptor, { ...pushed, mediaType: MediaType.OciManifest });
  assert.deepEqual(it.registry.requests, ['HEAD /v2/a/b/manifests/v1']);
});

test('a HEAD without a digest is followed by a GET', async () => {
  await using it = await start({
    intercept(request, response) {
      if (request.method !== 'HEAD') return false;
      response.writeHead(200, { 'content-type': MediaType.OciManifest }).end();
      return true;
    },
  });
  const pushed = it.registry.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  const { descriptor } = await it.client.resolve(`${it.registry.host}/a:v1`);
  assert.deepEqual(descriptor, { ...pushed, mediaType: MediaType.OciManifest });
});

test('a missing image is not found, in the words of containerd', async () => {
  await using it = await start();
  const reference = `${it.registry.host}/none:1`;
  await assert.rejects(it.client.resolve(reference), (error) => {
    assert.ok(hasCode(error, Code.NotFound));
    assert.equal(error.message, `${reference}: not found`);
    return true;
  });
});

test('a refusal names the request, the status, the registry and its words', async () => {
  await using it = await start({
    intercept(_request, response) {
      response.writeHead(403).end(JSON.stringify({ errors: [{ code: 'DENIED', message: 'not from here' }] }));
      return true;
    },
  });
  await assert.rejects(it.client.resolve(`${it.registry.host}/a:1`), (error: StatusError) => {
    assert.equal(error.code, Code.PermissionDenied);
    assert.match(error.message, /unexpected status from GET request to http.*\/v2\/a\/manifests\/1: 403 Forbidden/);
    assert.match(error.message, /denied: not from here/);
    return true;
  });
});

test('nothing listening is said with the host', async () => {
  const client = new RegistryClient();
  await assert.rejects(
    client.resolve('localhost:1/a:1'),
    /failed to do request: Head "http.*": connect: connection refused: .*nothing listens at localhost:1/,
  );
  await client[Symbol.asyncDispose]();
});

test('a broken connection is resumed at the byte where it broke', async () => {
  const bytes = randomBytes(300_000);
  let cuts = 0;
  await using it = await start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/') || cuts === 3) return false;
      cuts++;
      const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      response.writeHead(start > 0 ? 206 : 200, {
        'content-length': String(bytes.length - start),
        ...(start > 0 && { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
      });
      response.write(bytes.subarray(start, start + 50_000), () => request.socket.destroy());
      return true;
    },
  });
  const blob = it.registry.addBlob('a', bytes);
  const got = await collect(it.client.fetch(`${it.registry.host}/a:1`, layer(blob)));
  assert.ok(got.equals(bytes));
  assert.equal(cuts, 3);
  const ranges = it.registry.headers.map(({ range }) => range);
  assert.equal(ranges[0], undefined);
  assert.ok(ranges.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range ?? '')));
});

test('a registry that ignores Range is read past', async () => {
  const bytes = randomBytes(100_000);
  await using it = await start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/')) return false;
      delete request.headers.range;
      sendBytes(request, response, bytes, 'application/octet-stream');
      return true;
    },
  });
  const blob = it.registry.addBlob('a', bytes);
  const got = await collect(it.client.fetch(`${it.registry.host}/a:1`, layer(blob), { offset: 40_000 }));
  assert.ok(got.equals(bytes.subarray(40_000)));
});

test('a length other than the descriptor says is refused', async () => {
  await using it = await start();
  const blob = it.registry.addBlob('a', 'twelve bytes');
  const reference = `${it.registry.host}/a:1`;
  for (const size of [11, 13]) {
    await assert.rejects(
      collect(it.client.fetch(reference, layer({ ...blob, size }))),
      (error) => hasCode(error, Code.FailedPrecondition) && /failed size validation/.test(error.message),
    );
  }
});

test('busy answers are waited out', async () => {
  let busy = 0;
  await using it = await start({
    intercept(_request, response) {
      if (busy === 2) return false;
      response.writeHead(busy++ === 0 ? 429 : 503, { 'retry-after': '0' }).end();
      return true;
    },
  });
  it.registry.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  await it.client.resolve(`${it.registry.host}/a:v1`);
  assert.equal(it.registry.requests.length, 3);
});

test('a mirror is asked first, told whose images are wanted, and passed over when it fails', async () => {
  await using mirror = await TestingRegistry.start();
  await using origin = await TestingRegistry.start();
  const blob = origin.addBlob('a', 'content');
  origin.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  const endpoint = (host: string) => ({
    scheme: 'http' as const,
    host,
    path: '/v2',
    capabilities: ['pull', 'resolve'] as const,
    headers: {},
  });
  await using client = new RegistryClient({
    hosts: async () => [endpoint('localhost:1'), endpoint(mirror.host), endpoint(origin.host)],
  });
  await client.resolve('example.com/a:v1');
  assert.deepEqual(mirror.requests, ['HEAD /v2/a/manifests/v1?ns=example.com']);
  assert.equal((await collect(client.fetch('example.com/a:v1', layer(blob)))).toString(), 'content');
  assert.equal(mirror.requests.length, 2);
});

test('redirects to another host carry no credentials', async () => {
  await using other = await TestingRegistry.start({
    intercept(request, response) {
      sendBytes(request, response, Buffer.from('content'), 'application/octet-stream');
      return true;
    },
  });
  const basic = `Basic ${Buffer.from('me:secret').toString('base64')}`;
  await using it = await start(
    {
      intercept(request, response) {
        if (request.headers.authorization !== basic) {
          response.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end();
          return true;
        }
        response.writeHead(307, { location: `http://${other.host}/cdn/blob?signature=x` }).end();
        return true;
      },
    },
    { credentials: async () => ({ kind: 'password', username: 'me', secret: 'secret' }) },
  );
  const blob = it.registry.addBlob('a', 'content');
  const got = await collect(it.client.fetch(`${it.registry.host}/a:1`, layer(blob)));
  assert.equal(got.toString(), 'content');
  assert.deepEqual(other.requests, ['GET /cdn/blob?signature=x']);
  assert.equal(other.headers[0]?.authorization, undefined);
});

test('basic access is refused without a password and with a wrong one', async () => {
  const intercept: TestingRegistryOptions['intercept'] = (_request, response) => {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end();
    return true;
  };
  await using anonymous = await start({ intercept });
  await assert.rejects(
    anonymous.client.resolve(`${anonymous.registry.host}/a:1`),
    /pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials \(HEAD http:.*: 401 Unauthorized; log in with "ctr registry login localhost:\d+", or pass --user\)/,
  );
  await using wrong = await start(
    { intercept },
    { credentials: async () => ({ kind: 'password', username: 'me', secret: 'wrong-secret' }) },
  );
  await assert.rejects(wrong.client.resolve(`${wrong.registry.host}/a:1`), (error: StatusError) => {
    assert.match(error.message, /pull access denied/);
    assert.doesNotMatch(error.message, /wrong-secret/);
    return true;
  });
  assert.equal(wrong.registry.requests.length, 2);
});

/** A registry whose own token server is at `/token`. */
async function withTokens(
  answer: (request: IncomingMessage, url: URL, body: string) => { status: number; body: unknown },
  clientOptions: RegistryClientOptions = {},
) {
  const asked: { method: string; url: URL; body: string; authorization: string | undefined }[] = [];
  const it = await start(
    {
      intercept(request, response, registry) {
        const url = new URL(request.url ?? '', `http://${registry.host}`);
        if (url.pathname === '/token') {
          let body = '';
          request.on('data', (chunk) => {
            body += chunk;
          });
          request.on('end', () => {
            asked.push({ method: request.method ?? '', url, body, authorization: request.headers.authorization });
            const result = answer(request, url, body);
            response.writeHead(result.status).end(JSON.stringify(result.body));
          });
          return true;
        }
        if (request.headers.authorization?.startsWith('Bearer good')) return false;
        const scope = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(url.pathname)?.[1];
        response.writeHead(401, {
          'www-authenticate': `Bearer realm="http://${registry.host}/token",service="test",scope="repository:${scope}:pull"`,
        });
        response.end();
        return true;
      },
    },
    clientOptions,
  );
  return { ...it, asked, [Symbol.asyncDispose]: it[Symbol.asyncDispose].bind(it) };
}

test('an anonymous token is fetched once and used again', async () => {
  await using it = await withTokens(() => ({ status: 200, body: { token: 'good', expires_in: 300 } }));
  it.registry.addManifest('a/b', MediaType.OciManifest, manifest, 'v1');
  const blob = it.registry.addBlob('a/b', 'content');
  const reference = `${it.registry.host}/a/b:v1`;
  await it.client.resolve(reference);
  await Promise.all([1, 2, 3].map(() => collect(it.client.fetch(reference, layer(blob)))));
  assert.equal(it.asked.length, 1);
  const [{ method, url }] = it.asked as [(typeof it.asked)[0]];
  assert.equal(method, 'GET');
  assert.equal(url.searchParams.get('service'), 'test');
  assert.deepEqual(url.searchParams.getAll('scope'), ['repository:a/b:pull']);
});

test('a token about to end is renewed before it is used', async () => {
  await using it = await withTokens(() => ({ status: 200, body: { token: 'good', expires_in: 1 } }));
  it.registry.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  await it.client.resolve(`${it.registry.host}/a:v1`);
  await it.client.resolve(`${it.registry.host}/a:v1`);
  assert.equal(it.asked.length, 2);
});

test('with a password the token comes by OAuth, or by GET where that is unknown', async () => {
  const credentials = async () => ({ kind: 'password', username: 'me', secret: 'p&ss' }) as const;
  await using oauth = await withTokens(() => ({ status: 200, body: { access_token: 'good' } }), { credentials });
  oauth.registry.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  await oauth.client.resolve(`${oauth.registry.host}/a:v1`);
  assert.equal(oauth.asked[0]?.method, 'POST');
  const form = new URLSearchParams(oauth.asked[0]?.body);
  assert.equal(form.get('grant_type'), 'password');
  assert.equal(form.get('password'), 'p&ss');
  assert.equal(form.get('scope'), 'repository:a:pull');

  await using old = await withTokens(
    (request) => (request.method === 'POST' ? { status: 404, body: {} } : { status: 200, body: { token: 'good' } }),
    { credentials },
  );
  old.registry.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  await old.client.resolve(`${old.registry.host}/a:v1`);
  assert.deepEqual(
    old.asked.map(({ method, authorization }) => [method, authorization]),
    [
      ['POST', undefined],
      ['GET', `Basic ${Buffer.from('me:p&ss').toString('base64')}`],
    ],
  );
});

test('a refresh token is exchanged', async () => {
  await using it = await withTokens(() => ({ status: 200, body: { access_token: 'good' } }), {
    credentials: async () => ({ kind: 'refresh', token: 'long-lived' }),
  });
  it.registry.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  await it.client.resolve(`${it.registry.host}/a:v1`);
  assert.equal(new URLSearchParams(it.asked[0]?.body).get('refresh_token'), 'long-lived');
});

test('a token server that refuses is an authorization error', async () => {
  await using it = await withTokens(() => ({ status: 403, body: { details: 'account closed' } }));
  await assert.rejects(it.client.resolve(`${it.registry.host}/a:v1`), (error: StatusError) => {
    assert.equal(error.code, Code.Unauthenticated);
    assert.match(error.message, /failed to fetch anonymous token: .*account closed/);
    return true;
  });
});

test('pushes a blob and a manifest, skips what is there, mounts what another repository has', async () => {
  await using it = await start();
  const bytes = randomBytes(100_000);
  const there = it.registry.addBlob('other', bytes);
  const blob = layer(there);
  const reference = `${it.registry.host}/a:v1`;
  const open = async function* () {
    yield bytes.subarray(0, 10);
    yield bytes.subarray(10);
  };
  assert.equal(await it.client.push(reference, blob, { open }), 'pushed');
  assert.equal(await it.client.push(reference, blob, { open }), 'exists');
  const elsewhere = `${it.registry.host}/b:v1`;
  assert.equal(await it.client.push(elsewhere, blob, { open, mountFrom: 'other' }), 'mounted');
  assert.ok(it.registry.blobs.get(`a@${blob.digest}`)?.equals(bytes));
  const text = Buffer.from(JSON.stringify(manifest));
  const pushed = it.registry.addManifest('unused', MediaType.OciManifest, manifest);
  const descriptor = { ...pushed, mediaType: MediaType.OciManifest };
  const whole = async function* () {
    yield text;
  };
  assert.equal(await it.client.push(reference, descriptor, { open: whole }), 'pushed');
  assert.ok(it.registry.manifests.has('a:v1'));
  // Another digest pins the tag to somebody else.
  await it.client.push(`${it.registry.host}/c:v1@sha256:${'0'.repeat(64)}`, descriptor, { open: whole });
  assert.ok(!it.registry.manifests.has('c:v1'));
  assert.ok(it.registry.manifests.has(`c@${descriptor.digest}`));
});

test('a cancelled fetch stops', async () => {
  await using it = await start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/')) return false;
      response.writeHead(200, { 'content-length': '1000' });
      response.write('some');
      return true;
    },
  });
  const abort = new AbortController();
  const source = it.client.fetch(`${it.registry.host}/a:1`, layer({ digest: `sha256:${'0'.repeat(64)}`, size: 1000 }), {
    signal: abort.signal,
  });
  const reading = (async () => {
    for await (const _ of source) abort.abort();
  })();
  await assert.rejects(reading, { name: 'AbortError' });
  assert.ok(StatusError.from(abort.signal.reason).code === Code.Canceled);
});

test('a large blob comes in several ranges at once, in order', async () => {
  const bytes = randomBytes(1_000_003);
  let open = 0;
  let most = 0;
  await using it = await start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/')) return false;
      most = Math.max(most, ++open);
      response.on('close', () => open--);
      // Held back until others are there, so that it shows whether they are asked for together.
      setTimeout(() => sendBytes(request, response, bytes, 'application/octet-stream'), 20);
      return true;
    },
  });
  const blob = it.registry.addBlob('a', bytes);
  const reference = `${it.registry.host}/a:1`;
  const ranges = { size: 100_000, concurrency: 4 };
  const source = it.client.fetch(reference, layer(blob), { offset: 3, ranges });
  assert.ok((await collect(source)).equals(bytes.subarray(3)));
  assert.equal(it.registry.requests.length, 10);
  assert.ok(most > 1 && most <= 4, `${most} at once`);
  assert.equal(it.registry.headers[0]?.range, 'bytes=3-100002');
  assert.match(source.origin, /^GET http:\/\/localhost:\d+\/v2\/a\/blobs\/sha256:\S+ \(206 Partial Content\)$/);
  const part = it.client.fetchRange(reference, layer(blob), { offset: 500_000, length: 10 });
  assert.ok((await collect(part)).equals(bytes.subarray(500_000, 500_010)));
});

test('ranges of a registry that ignores them: one request for the whole, an error for a part', async () => {
  const bytes = randomBytes(100_000);
  await using it = await start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/')) return false;
      delete request.headers.range;
      sendBytes(request, response, bytes, 'application/octet-stream');
      return true;
    },
  });
  const blob = it.registry.addBlob('a', bytes);
  const reference = `${it.registry.host}/a:1`;
  const ranges = { size: 10_000, concurrency: 4 };
  assert.ok((await collect(it.client.fetch(reference, layer(blob), { ranges }))).equals(bytes));
  assert.equal(it.registry.requests.length, 1);
  const part = it.client.fetchRange(reference, layer(blob), { offset: 50_000, length: 10 });
  await assert.rejects(collect(part), RangeIgnoredError);
});

test('ranges left early, or broken, leave no request behind', async () => {
  const bytes = randomBytes(500_000);
  await using it = await start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/') || !request.headers.range?.startsWith('bytes=200000-')) return false;
      response.writeHead(404).end();
      return true;
    },
  });
  const blob = it.registry.addBlob('a', bytes);
  const reference = `${it.registry.host}/a:1`;
  const ranges = { size: 100_000, concurrency: 2 };
  for await (const _ of it.client.fetch(reference, layer(blob), { ranges })) break;
  await assert.rejects(collect(it.client.fetch(reference, layer(blob), { ranges })), (error) =>
    hasCode(error, Code.NotFound),
  );
});
