import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Code, hasCode, type StatusError } from '@gantry/api';
import { MediaType } from '@gantry/oci';
import { RegistryClient } from './registry-client.ts';
import { sendBytes, TestingRegistry, type TestingRegistryOptions } from './testing-registry.ts';

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const manifest = { schemaVersion: 2, mediaType: MediaType.OciManifest, config: {}, layers: [] };
const layer = (blob: { digest: string; size: number }) => ({ ...blob, mediaType: MediaType.OciLayerGzip });

async function start(options: TestingRegistryOptions) {
  const registry = await TestingRegistry.start(options);
  const client = new RegistryClient();
  return {
    registry,
    client,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

const endpointOf = (host: string) => ({
  scheme: 'http' as const,
  host,
  path: '/v2',
  capabilities: ['pull', 'resolve'] as const,
  headers: {},
});

test('of several endpoints that fail each is named', async () => {
  await using down = await TestingRegistry.start({
    intercept(_request, response) {
      response.writeHead(500).end();
      return true;
    },
  });
  await using empty = await TestingRegistry.start();
  const hosts = async () => ['localhost:1', down.host, empty.host].map(endpointOf);
  await using client = new RegistryClient({ hosts });
  const also = /; also tried localhost:1: failed to do request: .*connection refused/;
  await assert.rejects(client.resolve('example.com/a:v1'), (error: StatusError) => {
    assert.match(error.message, new RegExp(`^unexpected status from HEAD request to http://${down.host}/v2/.*: 500`));
    assert.match(error.message, also);
    return true;
  });
  const blob = layer({ digest: `sha256:${'0'.repeat(64)}`, size: 3 });
  await assert.rejects(collect(client.fetch('example.com/a:v1', blob)), (error: StatusError) => {
    assert.match(error.message, new RegExp(`^unexpected status from GET request to http://${down.host}/v2/.*: 500`));
    assert.match(error.message, also);
    return true;
  });
});

test('an endpoint that keeps breaking off a blob is left for the next', async () => {
  const bytes = randomBytes(300_000);
  await using mirror = await TestingRegistry.start({
    intercept(request, response) {
      response.writeHead(200, { 'content-length': String(bytes.length) });
      response.write(bytes.subarray(0, 1000), () => request.socket.destroy());
      return true;
    },
  });
  await using origin = await TestingRegistry.start();
  const blob = origin.addBlob('a', bytes);
  await using client = new RegistryClient({ hosts: async () => [mirror.host, origin.host].map(endpointOf) });
  const source = client.fetch('example.com/a:v1', layer(blob));
  assert.ok((await collect(source)).equals(bytes));
  assert.equal(mirror.requests.length, 2);
  assert.match(source.origin, new RegExp(`^GET http://${origin.host}/`));
});

test('a registry that trickles is given up', async () => {
  let at = 0;
  await using it = await start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/')) return false;
      response.writeHead(206, { 'content-range': `bytes ${at}-999/1000`, 'content-length': String(1000 - at++) });
      response.write('x', () => request.socket.destroy());
      return true;
    },
  });
  const blob = layer({ digest: `sha256:${'0'.repeat(64)}`, size: 1000 });
  await assert.rejects(
    collect(it.client.fetch(`${it.registry.host}/a:1`, blob)),
    (error) => hasCode(error, Code.Unavailable) && /^failed to do request: Get "http:/.test(error.message),
  );
  assert.equal(it.registry.requests.length, 6);
});

test('a server that wants too long a wait is not waited for', async () => {
  await using it = await start({
    intercept(_request, response) {
      response.writeHead(429, { 'retry-after': '3600' }).end();
      return true;
    },
  });
  await assert.rejects(it.client.resolve(`${it.registry.host}/a:1`), (error: StatusError) => {
    assert.equal(error.code, Code.ResourceExhausted);
    assert.match(error.message, /429 Too Many Requests \(localhost:\d+ limits how often it is asked/);
    return true;
  });
  assert.equal(it.registry.requests.length, 1);
});

test('manifests of schema 1 are refused, and what to do is said', async () => {
  await using it = await start({});
  it.registry.addManifest('a', 'application/vnd.docker.distribution.manifest.v1+prettyjws', manifest, 'old');
  it.registry.addManifest('a', 'text/plain', manifest, 'older');
  for (const tag of ['old', 'older']) {
    await assert.rejects(
      it.client.resolve(`${it.registry.host}/a:${tag}`),
      (error) =>
        hasCode(error, Code.Unimplemented) && /is no longer supported.*please rebuild the image as/.test(error.message),
    );
  }
});

test('an endpoint whose bytes turned out wrong is not asked again for them', async () => {
  const bytes = randomBytes(300_000);
  const wrong = Buffer.from(bytes);
  wrong[100_000] = (wrong[100_000] as number) ^ 1;
  await using mirror = await TestingRegistry.start({
    intercept(request, response) {
      sendBytes(request, response, wrong, 'application/octet-stream');
      return true;
    },
  });
  await using origin = await TestingRegistry.start();
  const blob = origin.addBlob('a', bytes);
  for (const ranges of [undefined, { size: 50_000, concurrency: 3 }]) {
    await using client = new RegistryClient({ hosts: async () => [mirror.host, origin.host].map(endpointOf) });
    const source = client.fetch('example.com/a:v1', layer(blob), { ranges });
    assert.ok(!(await collect(source)).equals(bytes));
    assert.equal(source.distrust(), true);
    const second = client.fetch('example.com/a:v1', layer(blob), { ranges });
    assert.ok((await collect(second)).equals(bytes));
    assert.match(second.origin, new RegExp(`^GET http://${origin.host}/`));
    assert.equal(second.distrust(), false);
  }
});
