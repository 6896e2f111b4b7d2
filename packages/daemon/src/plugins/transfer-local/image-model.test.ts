import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { Any } from '@bufbuild/protobuf/wkt';
import { alreadyExists, Code, hasCode, packAny } from '@gantry/api';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { chainIds, type Descriptor, descriptorToJson, digestOf, MediaType } from '@gantry/oci';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import { contextOf, type RequestContext } from '../../core/request-context.ts';
import type { SnapshotOptions } from '../../core/snapshots/snapshotter.ts';
import { maxDepth } from './image-walk.ts';
import { LocalTransfer } from './local-transfer.ts';
import { addImage, MemorySnapshotter, testingEnvironment } from './testing-environment.ts';

const ctx = contextOf('default');
const linux = { os: 'linux', architecture: 'amd64' };
const from = (reference: string): Any => packAny(OCIRegistrySchema, { reference });
const into = (name: string, platform = linux): Any =>
  packAny(ImageStoreSchema, { name, platforms: [platform], unpacks: [{ platform }] });

function addIndex(registry: TestingRegistry, manifests: readonly Descriptor[], tag?: string): Descriptor {
  const document = { schemaVersion: 2, mediaType: MediaType.OciIndex, manifests: manifests.map(descriptorToJson) };
  return { mediaType: MediaType.OciIndex, ...registry.addManifest('a', MediaType.OciIndex, document, tag) };
}

async function pulled(registry: TestingRegistry, tag: string, it = testingEnvironment()) {
  const name = `${registry.host}/a:${tag}`;
  await new LocalTransfer(it.env).transfer(ctx, from(name), into(name));
  return { ...it, image: it.images.get(name) };
}

test('an artifact and what it holds are kept, whatever their types, and not unpacked', async () => {
  await using registry = await TestingRegistry.start();
  const config = { mediaType: MediaType.OciEmpty, ...registry.addBlob('a', '{}') };
  const layers = [
    { mediaType: 'application/vnd.example.model', ...registry.addBlob('a', 'weights') },
    { mediaType: MediaType.OciLayerGzip, ...registry.addBlob('a', gzipSync('looks like a layer')) },
  ];
  const document = { schemaVersion: 2, artifactType: 'application/vnd.example', config, layers };
  registry.addManifest('a', MediaType.OciManifest, document, 'artifact');
  const { content, snapshotter, image } = await pulled(registry, 'artifact');
  for (const { digest } of [config, ...layers]) assert.ok(content.blobs.has(digest));
  assert.equal(snapshotter.snapshots.size, 0);
  const manifest = content.blobs.get(image?.target.digest ?? '');
  assert.deepEqual(
    Object.entries(manifest?.info.labels ?? {}).filter(([key]) => key.startsWith('containerd.io/gc.ref')),
    [
      ['containerd.io/gc.ref.content.0', config.digest],
      ['containerd.io/gc.ref.content.1', layers[0]?.digest],
      ['containerd.io/gc.ref.content.l.0', layers[1]?.digest],
    ],
  );
});

test('a name that stands for neither manifest nor index is one blob', async () => {
  await using registry = await TestingRegistry.start();
  registry.addManifest('a', 'application/vnd.oci.artifact.manifest.v1+json', { blobs: [] }, 'old');
  registry.addBlob('a', JSON.stringify({ blobs: [] }));
  const { content, image } = await pulled(registry, 'old');
  assert.equal(image?.target.mediaType, 'application/vnd.oci.artifact.manifest.v1+json');
  assert.equal(content.blobs.size, 1);
});

test('an index of indexes leads to the image for the platform', async () => {
  await using registry = await TestingRegistry.start();
  const image = addImage(registry, 'a', 'v1', ['one'], ['arm64', 'amd64']);
  addIndex(registry, [addIndex(registry, [image.target])], 'nested');
  const { content, snapshotter } = await pulled(registry, 'nested');
  const [arm, amd] = image.manifests;
  assert.ok(!content.blobs.has(arm?.digest ?? ''));
  assert.ok(content.blobs.has(amd?.digest ?? ''));
  assert.deepEqual([...snapshotter.snapshots.keys()], chainIds(image.diffIds));
});

test('indexes nested too deep are refused', async () => {
  await using registry = await TestingRegistry.start();
  let target: Descriptor = addImage(registry, 'a', 'v1', ['one']).target;
  for (let depth = 0; depth < maxDepth; depth++) target = addIndex(registry, [target], 'deep');
  const it = testingEnvironment();
  await assert.rejects(
    pulled(registry, 'deep', it),
    (error) =>
      hasCode(error, Code.FailedPrecondition) && /image indexes are nested more than 16 deep/.test(error.message),
  );
  assert.equal(it.images.size, 0);
  assert.equal(it.leases.size, 0);
});

test('an index that names the same child over and over costs one look at it', async () => {
  await using registry = await TestingRegistry.start();
  let target: Descriptor = addImage(registry, 'a', 'v1', ['one']).target;
  for (let depth = 0; depth < 12; depth++) target = addIndex(registry, Array(50).fill(target), 'wide');
  registry.requests.length = 0;
  await pulled(registry, 'wide');
  // The name; then twelve indexes and that of the image, its manifest, configuration and layer.
  assert.equal(registry.requests.length, 1 + 13 + 3);
});

test('a manifest over the size limit is refused, wherever it is said to be smaller', async () => {
  await using registry = await TestingRegistry.start();
  const annotations = { padding: 'x'.repeat(5 << 20) };
  const document = { schemaVersion: 2, config: {}, layers: [], annotations };
  const big = {
    mediaType: MediaType.OciManifest,
    ...registry.addManifest('a', MediaType.OciManifest, document, 'big'),
  };
  await assert.rejects(pulled(registry, 'big'), (error) =>
    /rejecting \d+ byte manifest for /.test((error as Error).message),
  );
  addIndex(registry, [big], 'index');
  await assert.rejects(
    pulled(registry, 'index'),
    new RegExp(`rejecting ${big.size} byte manifest for ${big.digest}: not found`),
  );
  addIndex(registry, [{ ...big, size: 100 }], 'lie');
  await assert.rejects(pulled(registry, 'lie'), /size/);
});

test('an image without layers has no snapshot', async () => {
  await using registry = await TestingRegistry.start();
  const config = {
    mediaType: MediaType.OciConfig,
    ...registry.addBlob('a', JSON.stringify({ ...linux, rootfs: { type: 'layers', diff_ids: [] } })),
  };
  registry.addManifest('a', MediaType.OciManifest, { schemaVersion: 2, config, layers: [] }, 'empty');
  const { image, snapshotter } = await pulled(registry, 'empty');
  assert.ok(image);
  assert.equal(snapshotter.snapshots.size, 0);
});

test('of several variants the one asked for is taken', async () => {
  await using registry = await TestingRegistry.start();
  const { manifests } = addImage(registry, 'a', 'plain', ['one'], ['arm', 'arm64']);
  const [arm, arm64] = manifests as [Descriptor, Descriptor];
  const offers: Descriptor[] = [
    { ...arm64, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
    { ...arm, platform: { os: 'linux', architecture: 'arm', variant: 'v7' } },
  ];
  addIndex(registry, offers, 'variants');
  const name = `${registry.host}/a:variants`;
  for (const [platform, wanted] of [
    [{ os: 'linux', architecture: 'arm64' }, arm64],
    [{ os: 'linux', architecture: 'arm' }, arm],
  ] as const) {
    const it = testingEnvironment();
    await new LocalTransfer(it.env).transfer(ctx, from(name), into(name, platform));
    const got = [arm, arm64].filter(({ digest }) => it.content.blobs.has(digest));
    assert.deepEqual(got, [wanted]);
  }
});

test('of the images that fit no more than asked for, the best first', async () => {
  await using registry = await TestingRegistry.start();
  const { manifests } = addImage(registry, 'a', 'v1', ['one'], ['amd64', 's390x', 'arm64']);
  const name = `${registry.host}/a:v1`;
  const taken = async (manifestLimit: number, ...platforms: string[]): Promise<(string | undefined)[]> => {
    const it = testingEnvironment();
    const wanted = platforms.map((architecture) => ({ os: 'linux', architecture }));
    const to = packAny(ImageStoreSchema, { name, platforms: wanted, manifestLimit });
    await new LocalTransfer(it.env).transfer(ctx, from(name), to);
    const got = manifests.filter(({ digest }) => it.content.blobs.has(digest));
    return got.map(({ platform }) => platform?.architecture);
  };
  assert.deepEqual(await taken(1, 'arm64', 'amd64'), ['arm64']);
  assert.deepEqual(await taken(2, 'arm64', 's390x', 'amd64'), ['s390x', 'arm64']);
  assert.deepEqual(await taken(0, 'arm64', 'amd64'), ['amd64', 'arm64']);
  assert.deepEqual(await taken(0), ['amd64', 's390x', 'arm64']);
  await assert.rejects(taken(1, 'mips'), { code: Code.NotFound });
});

test('what a descriptor carries along is not fetched, and has to be what its digest says', async () => {
  await using registry = await TestingRegistry.start();
  const data = Buffer.from('{}');
  const inline: Descriptor = { mediaType: MediaType.OciEmpty, digest: digestOf(data), size: 2, data };
  const manifest = (config: Descriptor, tag: string) =>
    registry.addManifest(
      'a',
      MediaType.OciManifest,
      { schemaVersion: 2, config: descriptorToJson(config), layers: [] },
      tag,
    );
  manifest(inline, 'inline');
  manifest({ ...inline, data: Buffer.from('[]') }, 'lie');
  const { content } = await pulled(registry, 'inline');
  assert.deepEqual(content.blobs.get(inline.digest)?.bytes, data);
  assert.ok(!registry.requests.some((request) => request.includes('/blobs/')));
  await assert.rejects(pulled(registry, 'lie'), { code: Code.FailedPrecondition });
});

/** Has the snapshots of some layers by itself, as stargz and its like do, and says so at Prepare. */
class RemoteSnapshotter extends MemorySnapshotter {
  readonly asked: Record<string, string>[] = [];
  readonly remote: ReadonlySet<string>;

  constructor(remote: Iterable<string>) {
    super();
    this.remote = new Set(remote);
  }

  override async prepare(requested: RequestContext, key: string, parent: string, options: SnapshotOptions = {}) {
    const labels = options.labels ?? {};
    this.asked.push(labels);
    const target = labels['containerd.io/snapshot.ref'] ?? '';
    const mounts = await super.prepare(requested, key, parent, options);
    if (!this.remote.has(target)) return mounts;
    await this.commit(requested, target, key, options);
    throw alreadyExists(`target snapshot "${target}": already exists`);
  }
}

for (const parallel of [false, true]) {
  test(`layers that a remote snapshotter has are not fetched, ${parallel ? 'side by side' : 'in turn'}`, async () => {
    await using registry = await TestingRegistry.start();
    const image = addImage(registry, 'a', 'v1', ['one', 'two', 'three']);
    const chain = chainIds(image.diffIds);
    const it = testingEnvironment();
    const snapshotter = new RemoteSnapshotter(chain.slice(0, 2));
    it.env.snapshotters = { get: () => snapshotter, names: () => ['remote'] };
    it.env.snapshotterMeta = () => ({ exports: { enable_remote_snapshot_annotations: 'true' }, capabilities: [] });
    it.env.parallelUnpack = parallel;
    const name = `${registry.host}/a:v1`;
    await new LocalTransfer(it.env).transfer(ctx, from(name), into(name));
    assert.deepEqual(
      image.layers.map(({ digest }) => it.content.blobs.has(digest)),
      [false, false, true],
    );
    assert.deepEqual([...snapshotter.snapshots.keys()], chain);
    const cri = 'containerd.io/snapshot/cri.';
    const [first] = snapshotter.asked;
    assert.equal(first?.[`${cri}image-ref`], name);
    assert.equal(first?.[`${cri}manifest-digest`], image.manifests[0]?.digest);
    assert.equal(first?.[`${cri}layer-digest`], image.layers[0]?.digest);
    assert.equal(first?.[`${cri}image-layers`], image.layers.map(({ digest }) => digest).join(','));
    assert.equal(it.images.get(name)?.target.digest, image.target.digest);
  });
}

test('an unpack configuration that nothing fits is refused', async () => {
  await using registry = await TestingRegistry.start();
  addImage(registry, 'a', 'v1', ['one']);
  const it = testingEnvironment();
  it.env.unpackSupport = it.env.unpackSupport.map((support) => ({ ...support, snapshotter: 'other' }));
  const name = `${registry.host}/a:v1`;
  const to = packAny(ImageStoreSchema, { name, unpacks: [{ platform: linux, snapshotter: 'overlayfs' }] });
  await assert.rejects(new LocalTransfer(it.env).transfer(ctx, from(name), to), {
    code: Code.InvalidArgument,
    message: /no unpack platforms defined/,
  });
});

test('configurations and layers of other types are unpacked where an unpack configuration says so', async () => {
  await using registry = await TestingRegistry.start();
  const config = {
    mediaType: 'application/vnd.example.config',
    ...registry.addBlob('a', JSON.stringify({ ...linux, rootfs: { type: 'other', diff_ids: [digestOf('one')] } })),
  };
  const layers = [{ mediaType: 'application/vnd.example.layer', ...registry.addBlob('a', 'one') }];
  registry.addManifest('a', MediaType.OciManifest, { schemaVersion: 2, config, layers }, 'own');
  const plain = await pulled(registry, 'own');
  assert.equal(plain.snapshotter.snapshots.size, 0);
  const it = testingEnvironment();
  it.env.unpackSupport = it.env.unpackSupport.map((support) => ({
    ...support,
    configType: config.mediaType,
    layerTypes: layers.map(({ mediaType }) => mediaType),
  }));
  const { snapshotter } = await pulled(registry, 'own', it);
  assert.deepEqual([...snapshotter.snapshots.keys()], [digestOf('one')]);
});
