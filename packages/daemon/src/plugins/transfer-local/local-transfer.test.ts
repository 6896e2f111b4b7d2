import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, hasCode, packAny, type StatusError } from '@gantry/api';
import { RegistrySchema, SnapshotSchema } from '@gantry/api/gen/gantry/transfer/v1/transfer_pb.js';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { ImageExportStreamSchema, ImageImportStreamSchema } from '@gantry/api/gen/types/transfer/importexport_pb.js';
import { HTTPDebug, OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { chainIds, MediaType } from '@gantry/oci';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import { contextOf } from '../../core/request-context.ts';
import type { TransferProgress } from '../../core/transfer/transferrer.ts';
import { LocalTransfer } from './local-transfer.ts';
import { ByteStream } from './testing-byte-stream.ts';
import { addImage, testingEnvironment } from './testing-environment.ts';

const ctx = contextOf('default');
const linux = { os: 'linux', architecture: 'amd64' };
const from = (reference: string): Any => packAny(OCIRegistrySchema, { reference });

type StoreFields = Partial<
  Omit<Exclude<MessageInitShape<typeof ImageStoreSchema>, { $typeName: string }>, '$typeName'>
>;

function store(name: string, more: StoreFields = {}): Any {
  return packAny(ImageStoreSchema, { name, platforms: [linux], unpacks: [{ platform: linux }], ...more });
}

test('pull fetches, unpacks, labels and records', async () => {
  await using registry = await TestingRegistry.start();
  const image = addImage(registry, 'a/b', 'v1', ['one', 'two']);
  const it = testingEnvironment();
  const name = `${registry.host}/a/b:v1`;
  const events: TransferProgress[] = [];
  const to = store(name, { labels: { a: 'b' } });
  await new LocalTransfer(it.env).transfer(ctx, from(name), to, { progress: (event) => events.push(event) });

  const record = it.images.get(name);
  assert.deepEqual(record?.target, { ...image.target });
  assert.deepEqual(record?.labels, { a: 'b' });
  assert.equal(it.leases.size, 0);
  assert.equal(it.content.ingests.size, 0);

  const labels = (digest: string) => it.content.blobs.get(digest)?.info.labels;
  const source = { 'containerd.io/distribution.source.localhost': 'a/b' };
  const [manifest] = image.manifests;
  assert.deepEqual(labels(image.target.digest), { ...source, 'containerd.io/gc.ref.content.m.0': manifest?.digest });
  const { config } = JSON.parse(String(it.content.blobs.get(manifest?.digest ?? '')?.bytes));
  assert.deepEqual(labels(manifest?.digest ?? ''), {
    ...source,
    'containerd.io/gc.ref.content.config': config.digest,
    'containerd.io/gc.ref.content.l.0': image.layers[0]?.digest,
    'containerd.io/gc.ref.content.l.1': image.layers[1]?.digest,
  });
  const [bottom = '', top = ''] = chainIds(image.diffIds);
  assert.deepEqual(labels(config.digest), { ...source, 'containerd.io/gc.ref.snapshot.overlayfs': top });
  for (const [index, { digest }] of image.layers.entries()) {
    assert.deepEqual(labels(digest), { ...source, 'containerd.io/uncompressed': image.diffIds[index] });
  }

  assert.deepEqual([...it.snapshotter.snapshots.keys()], [bottom, top]);
  const { parent, labels: snapshotLabels } = it.snapshotter.snapshots.get(top) ?? {};
  assert.equal(parent, bottom);
  assert.deepEqual(snapshotLabels, {
    'containerd.io/snapshot.ref': top,
    'containerd.io/snapshot/diff-id': image.diffIds[1],
    'containerd.io/snapshot/parent-chain-id': bottom,
  });

  const said = events.map(({ event }) => event);
  assert.equal(said[0], `Resolving from OCI Registry (${name})`);
  assert.equal(said.at(-1), `Completed pull from OCI Registry (${name})`);
  const layer = events.filter((event) => event.name === `layer-${image.layers[0]?.digest}`);
  assert.deepEqual(
    layer.map(({ event }) => event),
    ['waiting', 'complete', 'extracting', 'extracted'],
  );
  assert.deepEqual(layer[0]?.parents, [`manifest-${manifest?.digest}`]);
});

test('a second pull asks only for the name', async () => {
  await using registry = await TestingRegistry.start();
  addImage(registry, 'a', 'v1', ['one']);
  const it = testingEnvironment();
  const name = `${registry.host}/a:v1`;
  const transfer = new LocalTransfer(it.env);
  await transfer.transfer(ctx, from(name), store(name));
  registry.requests.length = 0;
  await transfer.transfer(ctx, from(name), store(name));
  assert.deepEqual(registry.requests, ['HEAD /v2/a/manifests/v1']);
  assert.equal(it.applied.length, 1);
});

test('two pulls at once share each download and each unpacking', async () => {
  await using registry = await TestingRegistry.start();
  const image = addImage(registry, 'a', 'v1', ['one', 'two', 'three']);
  addImage(registry, 'a', 'v2', ['one', 'two', 'four']);
  const it = testingEnvironment();
  const transfer = new LocalTransfer(it.env);
  const names = [`${registry.host}/a:v1`, `${registry.host}/a:v2`, `${registry.host}/a:v1`];
  await Promise.all(names.map((name) => transfer.transfer(ctx, from(name), store(name))));
  const layers = registry.requests.filter((request) => request.endsWith(image.layers[0]?.digest ?? '?'));
  assert.deepEqual(layers, [`GET /v2/a/blobs/${image.layers[0]?.digest}`]);
  assert.equal(it.applied.length, 4);
});

test('only the platform asked for, with or without the metadata of others', async () => {
  await using registry = await TestingRegistry.start();
  const image = addImage(registry, 'a', 'v1', ['one'], ['arm64', 'amd64']);
  const name = `${registry.host}/a:v1`;
  const [arm, amd] = image.manifests;
  const plain = testingEnvironment();
  await new LocalTransfer(plain.env).transfer(ctx, from(name), store(name));
  assert.ok(!plain.content.blobs.has(arm?.digest ?? ''));
  assert.ok(plain.content.blobs.has(amd?.digest ?? ''));
  const all = testingEnvironment();
  await new LocalTransfer(all.env).transfer(ctx, from(name), store(name, { allMetadata: true }));
  assert.ok(all.content.blobs.has(arm?.digest ?? ''));
  assert.equal(all.applied.length, 1);
});

test('a layer that is not what its diff id says is refused and leaves no snapshot', async () => {
  await using registry = await TestingRegistry.start();
  const { layers } = addImage(registry, 'a', 'v1', ['one']);
  const document = { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [`sha256:${'0'.repeat(64)}`] } };
  const config = { mediaType: MediaType.OciConfig, ...registry.addBlob('a', JSON.stringify(document)) };
  registry.addManifest('a', MediaType.OciManifest, { schemaVersion: 2, config, layers }, 'bad');
  const it = testingEnvironment();
  const name = `${registry.host}/a:bad`;
  await assert.rejects(new LocalTransfer(it.env).transfer(ctx, from(name), store(name)), /wrong diff id/);
  assert.equal(it.snapshotter.snapshots.size, 0);
  assert.equal(it.images.size, 0);
  assert.equal(it.leases.size, 0);
});

test('a registry that lies about a digest leaves nothing behind', async () => {
  await using registry = await TestingRegistry.start({
    intercept(request, response) {
      if (request.method !== 'GET' || !request.url?.includes('/blobs/')) return false;
      response.writeHead(200).end('x'.repeat(Number(lie)));
      return true;
    },
  });
  const image = addImage(registry, 'a', 'v1', ['one']);
  const { config } = JSON.parse(String(registry.manifests.get(`a@${image.manifests[0]?.digest}`)?.bytes));
  const lie: number = config.size;
  const it = testingEnvironment();
  const name = `${registry.host}/a:v1`;
  await assert.rejects(new LocalTransfer(it.env).transfer(ctx, from(name), store(name)), (error: StatusError) => {
    assert.match(error.message, /unexpected commit digest/);
    return hasCode(error, Code.FailedPrecondition);
  });
  assert.equal(it.content.ingests.size, 0);
});

test('a cancelled pull keeps what came, and the next goes on from there', async () => {
  const abort = new AbortController();
  let stalled = false;
  await using registry = await TestingRegistry.start({
    intercept(request, response) {
      if (stalled || !request.url?.endsWith(`/blobs/${image.layers[0]?.digest}`)) return false;
      stalled = true;
      const bytes = registry.blobs.get(`a@${image.layers[0]?.digest}`) as Buffer;
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, 10), () => setTimeout(() => abort.abort(), 50));
      return true;
    },
  });
  const image = addImage(registry, 'a', 'v1', ['some longer text']);
  const it = testingEnvironment();
  const name = `${registry.host}/a:v1`;
  const transfer = new LocalTransfer(it.env);
  await assert.rejects(transfer.transfer({ ...ctx, signal: abort.signal }, from(name), store(name)), {
    name: 'AbortError',
  });
  assert.equal(it.content.ingests.get(`layer-${image.layers[0]?.digest}`)?.length, 10);
  assert.equal(it.leases.size, 0);
  await transfer.transfer(ctx, from(name), store(name));
  assert.equal(registry.headers.at(-1)?.range, 'bytes=10-');
  assert.ok(it.images.has(name));
});

test('a verifier can block a pull', async () => {
  await using registry = await TestingRegistry.start();
  const { target } = addImage(registry, 'a', 'v1', ['one']);
  const it = testingEnvironment();
  const verifiers = new Map([['bindir', { verifyImage: async () => ({ ok: false, reason: 'rule 7' }) }]]);
  const name = `${registry.host}/a:v1`;
  await assert.rejects(
    new LocalTransfer({ ...it.env, verifiers }).transfer(ctx, from(name), store(name)),
    new RegExp(
      `^StatusError: image verifier bindir blocked pull of ${name} with digest ${target.digest} for reason: rule 7$`,
    ),
  );
  assert.equal(it.content.blobs.size, 0);
});

test('push brings an image to another repository, mounting what is there', async () => {
  await using registry = await TestingRegistry.start();
  const image = addImage(registry, 'a', 'v1', ['one', 'two']);
  const it = testingEnvironment();
  const transfer = new LocalTransfer(it.env);
  const name = `${registry.host}/a:v1`;
  await transfer.transfer(ctx, from(name), store(name));
  const copy = `${registry.host}/b:v2`;
  await transfer.transfer(ctx, store(name), from(copy));
  assert.ok(registry.manifests.has('b:v2'));
  assert.ok(
    registry.requests.some((request) => request.includes(`mount=${image.layers[0]?.digest.replace(':', '%3A')}`)),
  );
  assert.ok(!registry.requests.some((request) => request.startsWith('PUT') && request.includes('/blobs/')));
  const again = testingEnvironment();
  await new LocalTransfer(again.env).transfer(ctx, from(copy), store(copy));
  assert.deepEqual(again.images.get(copy)?.target, image.target);
});

test('requests are told of to who wants to know, without secrets', async () => {
  await using registry = await TestingRegistry.start();
  addImage(registry, 'a', 'v1', ['one']);
  const reference = `${registry.host}/a:v1`;
  const told = async (httpDebug: HTTPDebug): Promise<string> => {
    const it = testingEnvironment();
    const stream = new ByteStream();
    it.env.streams.register(ctx, 'logs', stream);
    const headers = { 'X-Token': 'not to be seen' };
    const resolver = { httpDebug, logsStream: 'logs', headers };
    await new LocalTransfer(it.env).transfer(
      ctx,
      packAny(OCIRegistrySchema, { reference, resolver }),
      store(reference),
    );
    return String(Buffer.concat(stream.received));
  };
  const head = /^HEAD \/v2\/a\/manifests\/v1 HTTP\/1.1\nhost: localhost:\d+\n(?:.+\n)*x-token: REDACTED\n/;
  const line = /^HEAD http:\/\/localhost:\d+\/v2\/a\/manifests\/v1 200$/m;
  const dump = await told(HTTPDebug.DEBUG);
  assert.match(dump, head);
  assert.match(dump, /^HTTP\/1.1 200 OK\ncontent-type: application\/vnd.oci/m);
  assert.doesNotMatch(dump, line);
  const trace = await told(HTTPDebug.TRACE);
  assert.match(trace, line);
  assert.doesNotMatch(trace, head);
  const both = await told(HTTPDebug.BOTH);
  assert.match(both, head);
  assert.match(both, line);
  assert.equal(await told(HTTPDebug.DISABLED), '');
  assert.doesNotMatch(dump + trace + both, /not to be seen/);
});

test('no more downloads at once than a pull allows itself, and large layers in ranges', async () => {
  let now = 0;
  let most = 0;
  await using registry = await TestingRegistry.start({
    intercept(request, response) {
      if (!request.url?.includes('/blobs/')) return false;
      most = Math.max(most, ++now);
      response.on('close', () => now--);
      return false;
    },
  });
  const large = randomBytes(10_000).toString('hex');
  const image = addImage(registry, 'a', 'v1', ['one', 'two', 'three', large]);
  const reference = `${registry.host}/a:v1`;
  const pull = async (fields: { maxConcurrentTransfers?: number; layerFetchBuffer?: bigint }) => {
    const it = testingEnvironment();
    registry.headers.length = 0;
    await new LocalTransfer(it.env).transfer(
      ctx,
      packAny(RegistrySchema, { registry: { reference }, ...fields }),
      store(reference),
    );
    for (const { digest } of image.layers) assert.ok(it.content.blobs.has(digest));
    return registry.headers.flatMap(({ range = [] }) => range);
  };
  assert.deepEqual(await pull({ maxConcurrentTransfers: 1 }), []);
  assert.equal(most, 1);
  const ranges = await pull({ layerFetchBuffer: 4096n });
  assert.equal(ranges.length, Math.ceil((image.layers[3]?.size ?? 0) / 4096));
  assert.deepEqual(await pull({ layerFetchBuffer: 512n }), []);
});

test('tag gives another name', async () => {
  await using registry = await TestingRegistry.start();
  addImage(registry, 'a', 'v1', ['one']);
  const it = testingEnvironment();
  const transfer = new LocalTransfer(it.env);
  const name = `${registry.host}/a:v1`;
  await transfer.transfer(ctx, from(name), store(name));
  await transfer.transfer(ctx, store(name), packAny(ImageStoreSchema, { name: 'new:1' }));
  assert.deepEqual(it.images.get('new:1')?.target, it.images.get(name)?.target);
  await assert.rejects(
    transfer.transfer(ctx, store('nope'), packAny(ImageStoreSchema, { name: 'new:1' })),
    /image "nope": not found/,
  );
});

test('export and import give the same image', async () => {
  await using registry = await TestingRegistry.start();
  const image = addImage(registry, 'a', 'v1', ['one', 'two'.repeat(100_000)]);
  const it = testingEnvironment();
  const transfer = new LocalTransfer(it.env);
  const name = `${registry.host}/a:v1`;
  await transfer.transfer(ctx, from(name), store(name));
  const out = new ByteStream();
  it.env.streams.register(ctx, 'out', out);
  await transfer.transfer(ctx, store(name), packAny(ImageExportStreamSchema, { stream: 'out', platforms: [linux] }));
  assert.ok(out.isClosed);
  const archive = Buffer.concat(out.received);
  assert.equal(archive.length % 512, 0);

  const other = testingEnvironment();
  const into = new ByteStream(archive);
  into.isSender = true;
  other.env.streams.register(ctx, 'in', into);
  const events: TransferProgress[] = [];
  await new LocalTransfer(other.env).transfer(
    ctx,
    packAny(ImageImportStreamSchema, { stream: 'in' }),
    store('', { extraReferences: [{ name: 'import-today', isPrefix: true, allowOverwrite: true }] }),
    { progress: (event) => events.push(event) },
  );
  const { annotations, ...target } = other.images.get(name)?.target ?? {};
  assert.deepEqual(target, image.target);
  assert.equal(annotations?.['io.containerd.image.name'], name);
  assert.deepEqual([...other.snapshotter.snapshots.keys()], chainIds(image.diffIds));
  assert.deepEqual(
    events.filter(({ event }) => event === 'saved').map((event) => event.name),
    [name],
  );
  assert.equal(other.leases.size, 0);
});

test('what no way leads to is not implemented', async () => {
  const it = testingEnvironment();
  await assert.rejects(
    new LocalTransfer(it.env).transfer(ctx, from('a/b:1'), packAny(SnapshotSchema, { key: 'x' })),
    (error) =>
      hasCode(error, Code.Unimplemented) &&
      /unable to transfer from OCI Registry \(a\/b:1\) to Snapshot \(x\)/.test(error.message),
  );
});
