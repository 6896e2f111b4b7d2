import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, packAny } from '@gantry/api';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { ImageImportStreamSchema } from '@gantry/api/gen/types/transfer/importexport_pb.js';
import { digestOf, MediaType } from '@gantry/oci';
import { contextOf } from '../../core/request-context.ts';
import { LocalTransfer } from './local-transfer.ts';
import { ByteStream } from './testing-byte-stream.ts';
import { tar } from './testing-daemon.ts';
import { testingEnvironment } from './testing-environment.ts';

const ctx = contextOf('default');
const linux = { os: 'linux', architecture: 'amd64' };

interface ImportOptions {
  references?: {
    name: string;
    isPrefix?: boolean;
    allowOverwrite?: boolean;
    addDigest?: boolean;
    skipNamedDigest?: boolean;
  }[];
  indexName?: string;
  labels?: Record<string, string>;
  platform?: { os: string; architecture: string };
  compress?: boolean;
  it?: ReturnType<typeof testingEnvironment>;
}

async function imported(archive: Buffer, options: ImportOptions = {}) {
  const { it = testingEnvironment(), indexName = '', labels = {}, platform = linux, compress = false } = options;
  const { references = [{ name: 'import-today', isPrefix: true, allowOverwrite: true }] } = options;
  const stream = new ByteStream(archive);
  stream.isSender = true;
  it.env.streams.register(ctx, 'in', stream);
  const from: Any = packAny(ImageImportStreamSchema, { stream: 'in', forceCompress: compress });
  const to: Any = packAny(ImageStoreSchema, {
    name: indexName,
    labels,
    platforms: [platform],
    extraReferences: references,
  });
  try {
    await new LocalTransfer(it.env).transfer(ctx, from, to);
  } finally {
    assert.ok(stream.isClosed);
    assert.equal(it.content.ingests.size, 0);
    assert.equal(it.leases.size, 0);
  }
  return it;
}

const json = (value: unknown): string => JSON.stringify(value);
const layers = ['one', 'two'].map((name) => tar([{ path: name, text: name }]).toString('latin1'));
const config = json({ ...linux, rootfs: { type: 'layers', diff_ids: layers.map((layer) => digestOf(layer)) } });

/** As `docker save` before version 25 wrote it: a folder for each layer, and links to those that are there already. */
function dockerArchive(tags: string[] | null = ['foreign:1'], more: object = {}): Buffer {
  return tar([
    { path: 'aaa/' },
    { path: 'aaa/VERSION', text: '1.0' },
    { path: 'aaa/layer.tar', text: layers[0] ?? '' },
    { path: 'bbb/layer.tar', text: layers[1] ?? '' },
    { path: 'ccc/layer.tar', type: '2', link: '../aaa/layer.tar' },
    { path: 'config.json', text: config },
    {
      path: 'manifest.json',
      text: json([{ Config: 'config.json', RepoTags: tags, Layers: ['ccc/layer.tar', 'bbb/layer.tar'], ...more }]),
    },
    { path: 'repositories', text: '{}' },
  ]);
}

test('a docker-archive, plain or compressed, becomes an image of Docker types', async () => {
  for (const pack of [(bytes: Buffer) => bytes, gzipSync, zstdCompressSync]) {
    const { images, content } = await imported(pack(dockerArchive()), { labels: { a: 'b' } });
    assert.deepEqual([...images.keys()], ['docker.io/library/foreign:1']);
    const [image] = images.values();
    assert.deepEqual(image?.labels, { a: 'b' });
    const manifest = JSON.parse(String(content.blobs.get(image?.target.digest ?? '')?.bytes));
    assert.equal(image?.target.mediaType, MediaType.DockerManifest);
    assert.deepEqual(
      manifest.layers.map(({ mediaType, digest }: { mediaType: string; digest: string }) => [mediaType, digest]),
      layers.map((layer) => [MediaType.DockerLayer, digestOf(layer)]),
    );
  }
});

test('layers are compressed where that is asked for', async () => {
  const { images, content } = await imported(dockerArchive(), { compress: true });
  const [image] = images.values();
  const manifest = JSON.parse(String(content.blobs.get(image?.target.digest ?? '')?.bytes));
  for (const [index, { mediaType, digest }] of manifest.layers.entries()) {
    assert.equal(mediaType, MediaType.DockerLayerGzip);
    const { bytes, info } = content.blobs.get(digest) ?? assert.fail(digest);
    assert.equal(String(gunzipSync(bytes)), layers[index]);
    assert.equal(info.labels['containerd.io/uncompressed'], digestOf(layers[index] ?? ''));
  }
});

test('the names an image comes under', async () => {
  const prefix = (name: string, more: object = {}) => ({ name, isPrefix: true, ...more });
  const names = async (archive: Buffer, options: ImportOptions): Promise<string[]> => {
    const { images } = await imported(archive, options);
    return [...images.keys()].map((name) => name.replace(/sha256:[0-9a-f]{64}/, '<digest>')).sort();
  };
  const tagged = dockerArchive(['example.org/a:1', 'example.org/a/b:2']);
  const only = (name: string, more?: object): ImportOptions => ({ references: [prefix(name, more)] });
  assert.deepEqual(await names(tagged, only('example.org/a')), ['example.org/a/b:2', 'example.org/a:1']);
  assert.deepEqual(await names(tagged, only('example.org/a/b')), ['example.org/a/b:2']);
  assert.deepEqual(await names(tagged, only('example.org/')), []);
  assert.deepEqual(await names(tagged, only('x', { allowOverwrite: true })), ['example.org/a/b:2', 'example.org/a:1']);
  assert.deepEqual(await names(tagged, only('x', { addDigest: true })), ['x@<digest>', 'x@<digest>']);
  const named = { allowOverwrite: true, addDigest: true, skipNamedDigest: true };
  assert.deepEqual(await names(tagged, only('x', named)), ['example.org/a/b:2', 'example.org/a:1', 'x@<digest>']);
  assert.deepEqual(await names(dockerArchive(null), only('x', { addDigest: true, skipNamedDigest: true })), [
    'x@<digest>',
    'x@<digest>',
  ]);
  assert.deepEqual(await names(dockerArchive(null), { ...only('x'), indexName: 'all' }), ['all']);
  const { images } = await imported(tagged, { indexName: 'all', ...only('example.org/a/b') });
  assert.equal(images.get('example.org/a/b:2')?.labels['containerd.io/gc.bref.image'], 'all');
});

test('an OCI layout whose entry has only a tag is named by the prefix', async () => {
  const blob = (text: string) => ({ path: `blobs/sha256/${digestOf(text).slice(7)}`, text });
  const descriptor = (mediaType: string, text: string) => ({ mediaType, digest: digestOf(text), size: text.length });
  const manifest = json({
    schemaVersion: 2,
    config: descriptor(MediaType.OciConfig, config),
    layers: layers.map((layer) => descriptor(MediaType.OciLayer, layer)),
  });
  const index = (annotations: object) =>
    json({ schemaVersion: 2, manifests: [{ ...descriptor(MediaType.OciManifest, manifest), annotations }] });
  const layout = (annotations: object, ...more: Parameters<typeof tar>[0]) =>
    tar([
      { path: 'oci-layout', text: '{"imageLayoutVersion":"1.0.0"}' },
      { path: 'index.json', text: index(annotations) },
      ...[manifest, config, ...layers].map(blob),
      ...more,
    ]);
  const tag = { 'org.opencontainers.image.ref.name': 'v1' };
  const full = { ...tag, 'io.containerd.image.name': 'example.org/full:1' };
  const both = [{ name: 'example.org/a', isPrefix: true }];
  assert.deepEqual([...(await imported(layout(tag), { references: both })).images.keys()], ['example.org/a:v1']);
  // The whole name wins, and is not bent to fit.
  assert.deepEqual([...(await imported(layout(full), { references: both })).images.keys()], []);
  assert.deepEqual([...(await imported(layout(full))).images.keys()], ['example.org/full:1']);

  const liar = { path: `blobs/sha256/${'0'.repeat(64)}`, text: 'something else' };
  await assert.rejects(imported(layout(tag, liar)), { code: Code.FailedPrecondition });
  const whole = layout(tag);
  await assert.rejects(
    imported(whole.subarray(0, 3000)),
    /failed to ingest .*: unexpected EOF: the archive is truncated/,
  );
});

test('what is no image archive says why, and leaves nothing', async () => {
  const cases: [Buffer, RegExp][] = [
    [tar([{ path: 'a', text: 'b' }]), /unrecognized image format/],
    [Buffer.from('not a tar at all'.repeat(100)), /invalid image archive/],
    [tar([{ path: 'oci-layout', text: '{"imageLayoutVersion":"2.0.0"}' }]), /unsupported OCI version 2.0.0/],
    [tar([{ path: 'oci-layout', text: '{"imageLayoutVersion":"1.0.0"}' }]), /missing index.json in OCI layout 1.0.0/],
    [tar([{ path: 'oci-layout', text: '{' }]), /untar oci layout "oci-layout"/],
    [dockerArchive(['x:1'], { Config: 'none.json' }), /image config "none.json" not found/],
    [dockerArchive(['x:1'], { Layers: ['../../etc/passwd'] }), /layer "..\/..\/etc\/passwd" not found/],
    [dockerArchive(['Not A Name']), /invalid reference format/],
    [
      tar([
        { path: 'x', type: '2', link: 'nowhere' },
        { path: 'manifest.json', text: '[]' },
      ]),
      /no target for symlink/,
    ],
    [gzipSync(dockerArchive()).subarray(0, 200), /unexpected (EOF|end)/i],
    [
      tar([
        { path: 'oci-layout', text: '{"imageLayoutVersion":"1.0.0"}' },
        { path: 'index.json', text: json({ manifests: [], padding: 'x'.repeat(5 << 20) }) },
      ]),
      /rejecting 52\d+ byte manifest for sha256:/,
    ],
  ];
  for (const [archive, expected] of cases) await assert.rejects(imported(archive), expected);
});

test('two imports of one archive at once, and one that is given up', async () => {
  const it = testingEnvironment();
  const archive = dockerArchive();
  const stream = (name: string): Any => {
    const bytes = new ByteStream(archive);
    bytes.isSender = true;
    it.env.streams.register(ctx, name, bytes);
    return packAny(ImageImportStreamSchema, { stream: name });
  };
  const to = packAny(ImageStoreSchema, { extraReferences: [{ name: 'x', isPrefix: true, allowOverwrite: true }] });
  const transfer = new LocalTransfer(it.env);
  await Promise.all(['a', 'b', 'c'].map((name) => transfer.transfer(ctx, stream(name), to)));
  assert.deepEqual([...it.images.keys()], ['docker.io/library/foreign:1']);

  const other = testingEnvironment();
  const stalled = new ByteStream(archive.subarray(0, 2048));
  stalled.isSender = true;
  const { receive } = stalled;
  stalled.receive = async () => (await receive.call(stalled)) ?? new Promise(() => undefined);
  other.env.streams.register(ctx, 'in', stalled);
  const giveUp = new AbortController();
  const importing = new LocalTransfer(other.env).transfer(
    { ...ctx, signal: giveUp.signal },
    packAny(ImageImportStreamSchema, { stream: 'in' }),
    to,
  );
  setImmediate(() => giveUp.abort(new Error('enough')));
  await assert.rejects(importing, /enough/);
  assert.equal(other.content.ingests.size, 0);
  assert.equal(other.leases.size, 0);
});
