import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, packAny } from '@gantry/api';
import { RegistrySchema } from '@gantry/api/gen/gantry/transfer/v1/transfer_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { type Descriptor, MediaType } from '@gantry/oci';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import { contextOf } from '../../core/request-context.ts';
import type { TransferProgress } from '../../core/transfer/transferrer.ts';
import { LocalTransfer } from './local-transfer.ts';
import { addImage, testingEnvironment } from './testing-environment.ts';

const plain = (reference: string): Any => packAny(OCIRegistrySchema, { reference });

type Fields = Omit<Exclude<MessageInitShape<typeof RegistrySchema>, { $typeName: string }>, '$typeName'>;
const registry = (reference: string, fields: Fields = {}): Any =>
  packAny(RegistrySchema, { registry: { reference }, ...fields });

async function mirror(from: Any, to: Any, signal?: AbortSignal): Promise<TransferProgress[]> {
  const events: TransferProgress[] = [];
  const it = testingEnvironment();
  const ctx = { ...contextOf('default'), signal };
  await new LocalTransfer(it.env).transfer(ctx, from, to, { progress: (event) => events.push(event) });
  assert.equal(it.content.blobs.size, 0);
  return events;
}

const uploads = ({ requests }: TestingRegistry): string[] =>
  requests.filter((request) => request.startsWith('PUT') && request.includes('/blobs/'));

test('an image goes from registry to registry, manifests after what they name', async () => {
  await using source = await TestingRegistry.start();
  await using target = await TestingRegistry.start();
  const image = addImage(source, 'a', 'v1', ['one', 'two'], ['amd64', 'arm64']);
  const to = `${target.host}/b/c:v2`;
  const events = await mirror(plain(`${source.host}/a:v1`), plain(to));

  assert.deepEqual(target.manifests.get('b/c:v2'), source.manifests.get('a:v1'));
  for (const { digest } of image.layers) assert.ok(target.blobs.has(`b/c@${digest}`));
  const puts = target.requests.filter((request) => request.startsWith('PUT'));
  // Two shared layers and two configurations; each manifest; the index by digest and by tag.
  assert.equal(puts.filter((put) => put.includes('/blobs/')).length, 4);
  assert.deepEqual(puts.slice(-2), [`PUT /v2/b/c/manifests/${image.target.digest}`, 'PUT /v2/b/c/manifests/v2']);
  assert.equal(events.at(-1)?.event, `Completed mirror to OCI Registry (${to})`);
  assert.deepEqual(events.at(-2), { event: 'mirrored', name: to, descriptor: image.target });
  const layer = events.filter(({ name }) => name === `layer-${image.layers[0]?.digest}`).map(({ event }) => event);
  assert.deepEqual(layer, ['waiting', 'complete']);
});

test('what is there already costs one question', async () => {
  await using source = await TestingRegistry.start();
  await using target = await TestingRegistry.start();
  const image = addImage(source, 'a', 'v1', ['one']);
  const from = plain(`${source.host}/a:v1`);
  await mirror(from, plain(`${target.host}/a:v1`));
  source.requests.length = 0;
  target.requests.length = 0;
  await mirror(from, plain(`${target.host}/a:v1`));
  assert.deepEqual(source.requests, ['HEAD /v2/a/manifests/v1']);
  assert.deepEqual(target.requests, [`HEAD /v2/a/manifests/${image.target.digest}`, 'HEAD /v2/a/manifests/v1']);
});

test('within one registry blobs are mounted', async () => {
  await using source = await TestingRegistry.start();
  const image = addImage(source, 'a', 'v1', ['one', 'two']);
  const events = await mirror(plain(`${source.host}/a:v1`), plain(`${source.host}/b:v1`));
  assert.deepEqual(uploads(source), []);
  assert.ok(!source.requests.some((request) => request.startsWith('GET') && request.includes('/blobs/')));
  for (const { digest } of image.layers) assert.ok(source.blobs.has(`b@${digest}`));
  assert.equal(events.filter(({ event }) => event === 'mounted').length, 3);
});

test('further tags, and only some platforms in an index of their own', async () => {
  await using source = await TestingRegistry.start();
  await using target = await TestingRegistry.start();
  const image = addImage(source, 'a', 'v1', ['one'], ['amd64', 'arm64', 's390x']);
  const [amd, arm, s390x] = image.manifests as [Descriptor, Descriptor, Descriptor];
  const attestation = {
    mediaType: MediaType.OciManifest,
    ...source.addManifest('a', MediaType.OciManifest, {
      schemaVersion: 2,
      config: { mediaType: MediaType.OciEmpty, ...source.addBlob('a', '{}') },
      layers: [{ mediaType: MediaType.InToto, ...source.addBlob('a', '{"a":1}') }],
    }),
    platform: { os: 'unknown', architecture: 'unknown' },
    annotations: { 'vnd.docker.reference.digest': arm.digest },
  };
  const index = {
    schemaVersion: 2,
    mediaType: MediaType.OciIndex,
    manifests: [amd, arm, s390x, attestation],
    'x-own': 1,
  };
  source.addManifest('a', MediaType.OciIndex, index, 'all');
  const to = registry(`${target.host}/a:some`, {
    platforms: [
      { os: 'linux', architecture: 'arm64' },
      { os: 'linux', architecture: 's390x' },
    ],
    extraTags: ['other', 'some'],
  });
  const events = await mirror(plain(`${source.host}/a:all`), to);
  const made = target.manifests.get('a:some');
  assert.deepEqual(JSON.parse(String(made?.bytes)), { ...index, manifests: [arm, s390x, attestation] });
  assert.deepEqual(target.manifests.get('a:other'), made);
  assert.ok(!target.manifests.has(`a@${amd.digest}`));
  assert.ok(target.manifests.has(`a@${attestation.digest}`));
  assert.notEqual(events.at(-1)?.descriptor?.digest, image.target.digest);

  const nothing = registry(`${target.host}/a:none`, { platforms: [{ os: 'plan9', architecture: 'arm' }] });
  await assert.rejects(mirror(plain(`${source.host}/a:all`), nothing), { code: Code.NotFound });
  await assert.rejects(mirror(plain(`${source.host}/a:all`), registry(`${target.host}/a:x`, { extraTags: ['../x'] })), {
    code: Code.InvalidArgument,
  });
});

test('a name with a digest has to be what the image is', async () => {
  await using source = await TestingRegistry.start();
  const image = addImage(source, 'a', 'v1', ['one']);
  const other = `sha256:${'0'.repeat(64)}`;
  await assert.rejects(mirror(plain(`${source.host}/a:v1`), plain(`${source.host}/b@${other}`)), {
    code: Code.FailedPrecondition,
  });
  await mirror(plain(`${source.host}/a:v1`), plain(`${source.host}/b@${image.target.digest}`));
  assert.ok(source.manifests.has(`b@${image.target.digest}`));
  assert.deepEqual(
    [...source.manifests.keys()].filter((key) => key.startsWith('b:')),
    [],
  );
});

test('a source that lies about a digest gets nothing into the destination', async () => {
  let lie = '';
  await using source = await TestingRegistry.start({
    intercept(request, response) {
      if (request.method !== 'GET' || !request.url?.endsWith(lie) || lie === '') return false;
      response.writeHead(200).end('x'.repeat(Number(size)));
      return true;
    },
  });
  await using target = await TestingRegistry.start();
  const image = addImage(source, 'a', 'v1', ['one']);
  let size = image.layers[0]?.size;
  lie = image.layers[0]?.digest ?? '';
  const go = () => mirror(plain(`${source.host}/a:v1`), plain(`${target.host}/a:v1`));
  await assert.rejects(go(), /failed to mirror sha256:.*DIGEST_INVALID|digest_invalid/s);
  assert.equal(target.manifests.size, 0);
  size = image.manifests[0]?.size;
  lie = image.manifests[0]?.digest ?? '';
  await assert.rejects(go(), (error) => /unexpected digest sha256:/.test((error as Error).message));
  assert.equal(target.manifests.size, 0);
});

test('no more blobs at once than asked for; a mirror given up stops', async () => {
  let now = 0;
  let most = 0;
  const giveUp = new AbortController();
  let stall = false;
  await using source = await TestingRegistry.start({
    intercept(request, response) {
      if (request.method !== 'GET' || !request.url?.includes('/blobs/')) return false;
      if (stall) {
        setImmediate(() => giveUp.abort(new Error('enough')));
        return true;
      }
      most = Math.max(most, ++now);
      response.on('close', () => now--);
      return false;
    },
  });
  await using target = await TestingRegistry.start();
  addImage(source, 'a', 'v1', ['one', 'two', 'three', 'four']);
  await mirror(plain(`${source.host}/a:v1`), registry(`${target.host}/a:v1`, { maxConcurrentTransfers: 1 }));
  assert.equal(most, 1);
  stall = true;
  await assert.rejects(mirror(plain(`${source.host}/a:v1`), plain(`${target.host}/b:v1`), giveUp.signal), /enough/);
  assert.ok(![...target.manifests.keys()].some((key) => key.startsWith('b')));
});
