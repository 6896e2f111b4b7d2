import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { MediaType } from '@gantry/oci';
import { referrersTag } from './referrers.ts';
import { RegistryClient } from './registry-client.ts';
import { sha256, TestingRegistry, type TestingRegistryOptions } from './testing-registry.ts';

async function start(options: TestingRegistryOptions = {}) {
  const registry = await TestingRegistry.start(options);
  const client = new RegistryClient();
  return {
    registry,
    client,
    reference: `${registry.host}/a:v1`,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

const bytes = randomBytes(20 << 20);
const blob = { mediaType: MediaType.OciLayerGzip, digest: sha256(bytes), size: bytes.length };

/** In pieces of an odd size. */
async function* open(): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 777_777) yield bytes.subarray(at, at + 777_777);
}

/** Refuses whole blobs; `chunk` looks at each PATCH. */
function refusing(chunk: NonNullable<TestingRegistryOptions['intercept']>): TestingRegistryOptions['intercept'] {
  return (request, response, registry) => {
    if (request.method === 'PUT' && Number(request.headers['content-length']) > 0 && request.url?.includes('/blobs/')) {
      request.resume().on('end', () => response.writeHead(413).end());
      return true;
    }
    return request.method === 'PATCH' && chunk(request, response, registry);
  };
}

const ranges = (registry: TestingRegistry): (string | undefined)[] =>
  registry.headers.map((headers) => headers['content-range']).filter((range) => range !== undefined);

test('in chunks where a whole blob is refused', async () => {
  await using it = await start({ intercept: refusing(() => false) });
  const progress: number[] = [];
  const outcome = await it.client.push(it.reference, blob, { open, onProgress: (sent) => progress.push(sent) });
  assert.equal(outcome, 'pushed');
  assert.ok(it.registry.blobs.get(`a@${blob.digest}`)?.equals(bytes));
  assert.deepEqual(ranges(it.registry), ['0-8388607', '8388608-16777215', '16777216-20971519']);
  assert.equal(progress.at(-1), bytes.length);
});

test('in chunks as large as the registry wants them, and no larger than it takes', async () => {
  await using large = await start({
    intercept: refusing(() => false),
    uploadHeaders: { 'oci-chunk-min-length': String(12 << 20) },
  });
  await large.client.push(large.reference, blob, { open });
  assert.equal(ranges(large.registry)[0], `0-${(12 << 20) - 1}`);
  const limit = 3 << 20;
  await using small = await start({
    intercept: refusing((request, response) => {
      if (Number(request.headers['content-length']) <= limit) return false;
      request.resume().on('end', () => response.writeHead(413).end());
      return true;
    }),
  });
  await small.client.push(small.reference, blob, { open });
  assert.ok(small.registry.blobs.has(`a@${blob.digest}`));
  assert.equal(ranges(small.registry)[2], `0-${(2 << 20) - 1}`);
});

test('a chunk that breaks off goes on where the registry says it stopped', async () => {
  let broken = 0;
  await using it = await start({
    intercept: refusing((request, _response, registry) => {
      if (broken > 0) return false;
      broken++;
      let kept = Buffer.alloc(0);
      request.on('data', (piece: Buffer) => {
        kept = Buffer.concat([kept, piece]);
        if (kept.length < 1_000_000) return;
        request.pause();
        registry.uploads.set(request.url ?? '', kept);
        request.socket.destroy();
      });
      return true;
    }),
  });
  await it.client.push(it.reference, blob, { open });
  assert.ok(it.registry.blobs.get(`a@${blob.digest}`)?.equals(bytes));
  assert.equal(broken, 1);
  assert.match(ranges(it.registry)[1] ?? '', /^[1-9]\d{6,}-8388607$/);
});

test('a connection that breaks begins again; content of another size is not sent as the blob', async () => {
  let broken = 0;
  await using it = await start({
    intercept(request) {
      if (request.method !== 'PUT' || broken === 1) return false;
      broken++;
      request.socket.destroy();
      return true;
    },
  });
  assert.equal(await it.client.push(it.reference, blob, { open }), 'pushed');
  const other = { ...blob, digest: sha256('other'), size: blob.size + 1 };
  await assert.rejects(it.client.push(it.reference, other, { open }));
  assert.ok(!it.registry.blobs.has(`a@${other.digest}`));
});

test('a mount that is refused becomes an upload', async () => {
  for (const status of [401, 403, 404]) {
    await using it = await start({
      intercept(request, response) {
        if (!request.url?.includes('mount=')) return false;
        response.writeHead(status, status === 401 ? { 'www-authenticate': 'Basic realm="x"' } : {}).end();
        return true;
      },
    });
    assert.equal(await it.client.push(it.reference, blob, { open, mountFrom: 'private' }), 'pushed');
  }
});

test('what a registry takes for something else is an error with the answer', async () => {
  await using it = await start({
    intercept(request, response) {
      if (request.method !== 'PUT') return false;
      request.resume().on('end', () => response.writeHead(201, { 'docker-content-digest': sha256('x') }).end());
      return true;
    },
  });
  await assert.rejects(it.client.push(it.reference, blob, { open }), (error) => {
    assert.ok(hasCode(error, Code.FailedPrecondition));
    assert.match(error.message, /got digest sha256:\w+, expected sha256:\w+: PUT http:.*\?digest=.* \(201 Created\)/);
    return true;
  });
});

test('who refers to a subject is put on its tag, unless the registry takes note itself', async () => {
  for (const noted of [false, true]) {
    await using it = await start({
      intercept(request, response) {
        if (noted && request.method === 'PUT') response.setHeader('oci-subject', blob.digest);
        return false;
      },
    });
    const subject = { mediaType: MediaType.OciManifest, digest: blob.digest, size: 1 };
    for (const artifactType of ['a/sig', 'a/sbom']) {
      const text = Buffer.from(JSON.stringify({ schemaVersion: 2, artifactType, subject, annotations: { a: 'b' } }));
      const descriptor = { mediaType: MediaType.OciManifest, digest: sha256(text), size: text.length };
      const whole = async function* () {
        yield text;
      };
      const name = `${it.registry.host}/a@${descriptor.digest}`;
      await it.client.push(name, descriptor, { open: whole });
      // Twice is once.
      await it.client.push(name, descriptor, { open: whole });
    }
    const stored = it.registry.manifests.get(`a:${referrersTag(blob.digest)}`);
    if (noted) {
      assert.equal(stored, undefined);
      continue;
    }
    const found = await it.client.referrers(it.reference, subject);
    assert.deepEqual(
      found.map(({ artifactType, annotations }) => [artifactType, annotations]),
      [
        ['a/sig', { a: 'b' }],
        ['a/sbom', { a: 'b' }],
      ],
    );
  }
});

test('an upload that is sent elsewhere goes there, without the login', async () => {
  await using other = await start();
  let target = '';
  await using it = await start({
    intercept(request, response) {
      if (request.headers.authorization === undefined) {
        response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
        return true;
      }
      if (request.method !== 'PUT') return false;
      request
        .resume()
        .on('end', () => response.writeHead(307, { location: `${target}?${request.url?.split('?')[1]}` }).end());
      return true;
    },
  });
  const begun = await fetch(`http://${other.registry.host}/v2/a/blobs/uploads/`, { method: 'POST' });
  target = `http://${other.registry.host}${begun.headers.get('location')}`;
  await using client = new RegistryClient({
    credentials: async () => ({ kind: 'password', username: 'me', secret: 'secret' }),
  });
  assert.equal(await client.push(it.reference, blob, { open }), 'pushed');
  assert.ok(other.registry.blobs.get(`a@${blob.digest}`)?.equals(bytes));
  const { authorization, 'content-length': length } = other.registry.headers.at(-1) ?? {};
  assert.deepEqual([authorization, length], [undefined, String(bytes.length)]);
});
