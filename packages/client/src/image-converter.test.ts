import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gunzipSync, gzipSync, zstdDecompressSync } from 'node:zlib';
import { Code, hasCode, notFound } from '@gantry/api';
import { type Descriptor, digestOf, MediaType, parsePlatform, strictPlatform } from '@gantry/oci';
import type { Content } from './content.ts';
import { ConversionStore } from './conversion-store.ts';
import type { ConvertOptions } from './convert-image.ts';
import { uncompressLayer, zstdLayer } from './convert-layer.ts';
import { ImageConverter } from './image-converter.ts';
import type { Lease } from './leases.ts';

/** A content store that is a Map: what a conversion asks of one, no more. */
class MemoryContent {
  readonly blobs = new Map<string, { bytes: Buffer; labels: Record<string, string> }>();
  readonly ingests = new Map<string, Buffer>();
  readonly held = new Set<string>();

  add(mediaType: string, value: Buffer | object, labels: Record<string, string> = {}): Descriptor {
    const bytes = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value));
    const digest = digestOf(bytes);
    this.blobs.set(digest, { bytes, labels });
    return { mediaType, digest, size: bytes.length };
  }

  json(digest: string): Record<string, never> {
    return JSON.parse(this.blobs.get(digest)!.bytes.toString());
  }

  async info(digest: string): Promise<{ digest: string; size: number; labels: Record<string, string> }> {
    const blob = this.blobs.get(digest);
    if (!blob) throw notFound(`content ${digest}: not found`);
    return { digest, size: blob.bytes.length, labels: { ...blob.labels } };
  }

  async readAll(digest: string): Promise<Uint8Array> {
    await this.info(digest);
    return this.blobs.get(digest)!.bytes;
  }

  async *read(digest: string): AsyncGenerator<Uint8Array> {
    const bytes = await this.readAll(digest);
    // In small pieces, so that a magic number comes in two.
    for (let at = 0; at < bytes.length; at += 3) yield bytes.subarray(at, at + 3);
  }

  async *list(): AsyncGenerator<{ digest: string; size: number; labels: Record<string, string> }> {
    for (const digest of this.blobs.keys()) {
      const info = await this.info(digest);
      if (info.labels['gantry.converted-from']) yield info;
    }
  }

  async ingest(_ref: string, bytes: Uint8Array, { labels = {} }: { labels?: Record<string, string> }) {
    const { digest, size } = this.add('', Buffer.from(bytes), labels);
    return { digest, size };
  }

  async setLabels(digest: string, labels: Record<string, string>): Promise<void> {
    Object.assign(this.blobs.get(digest)!.labels, labels);
  }

  async writer(ref: string) {
    return {
      restart: async () => void this.ingests.set(ref, Buffer.alloc(0)),
      write: async (piece: Uint8Array) => void this.ingests.set(ref, Buffer.concat([this.ingests.get(ref)!, piece])),
      commit: async (labels: Record<string, string>) => {
        const { digest, size } = this.add('', this.ingests.get(ref)!, labels);
        this.ingests.delete(ref);
        return { digest, size };
      },
      close: async () => {},
    };
  }

  async abort(ref: string): Promise<void> {
    this.ingests.delete(ref);
  }

  converter(options: ConvertOptions): ImageConverter {
    const lease = { add: async ({ id }: { id: string }) => void this.held.add(id) };
    const { signal } = new AbortController();
    const store = new ConversionStore(this as unknown as Content, lease as unknown as Lease, signal);
    return new ImageConverter(store, { signal, ...options });
  }
}

const tar = (text: string): Buffer => Buffer.alloc(1024, text);
const base = (text: string) => ({ tar: tar(text), gzip: gzipSync(tar(text)), diffId: digestOf(tar(text)) });

function dockerImage(content: MemoryContent, texts: string[], architecture = 'amd64'): Descriptor {
  const config = content.add(MediaType.DockerConfig, {
    architecture,
    os: 'linux',
    config: { Image: 'sha256:old', Env: ['A=1'] },
    rootfs: { type: 'layers', diff_ids: texts.map((text) => base(text).diffId) },
    'x-number': 1,
  });
  const layers = texts.map((text) => content.add(MediaType.DockerLayerGzip, base(text).gzip, { kept: 'yes' }));
  return content.add(
    MediaType.DockerManifest,
    { schemaVersion: 2, mediaType: MediaType.DockerManifest, config, layers, 'x-unknown': [{ a: null }] },
    {
      'containerd.io/gc.ref.content.config': config.digest,
      ...Object.fromEntries(layers.map(({ digest }, at) => [`containerd.io/gc.ref.content.l.${at}`, digest])),
      'containerd.io/distribution.source.example.com': 'app',
    },
  );
}

describe('converting images', () => {
  it('takes compression off and leaves the config alone', async () => {
    const content = new MemoryContent();
    const root = dockerImage(content, ['one', 'two']);
    const made = await content.converter({ layer: uncompressLayer() }).convert(root);
    assert.equal(made?.mediaType, MediaType.DockerManifest);
    const manifest = content.json(made.digest) as unknown as { config: Descriptor; layers: Descriptor[] };
    assert.deepEqual(
      manifest.layers,
      ['one', 'two'].map((text) => ({ mediaType: MediaType.DockerLayer, digest: base(text).diffId, size: 1024 })),
    );
    assert.equal(
      manifest.config.digest,
      (content.json(root.digest) as unknown as { config: Descriptor }).config.digest,
    );
    assert.deepEqual((manifest as unknown as Record<string, unknown>)['x-unknown'], [{ a: null }]);
    assert.deepEqual(content.blobs.get(made.digest)!.labels, {
      'containerd.io/gc.ref.content.config': manifest.config.digest,
      'containerd.io/gc.ref.content.l.0': base('one').diffId,
      'containerd.io/gc.ref.content.l.1': base('two').diffId,
      'containerd.io/distribution.source.example.com': 'app',
    });
    assert.deepEqual(content.blobs.get(base('one').diffId)!.labels, { kept: 'yes' });
    assert.equal(content.ingests.size, 0);
    for (const { digest } of [made, ...manifest.layers]) assert.ok(content.held.has(digest), 'the lease keeps it');
    const again = await content.converter({ layer: uncompressLayer() }).convert(made);
    assert.equal(again, undefined, 'what has the wanted form stays');
  });

  it("turns Docker's media types into OCI's without touching a layer", async () => {
    const content = new MemoryContent();
    const root = dockerImage(content, ['one']);
    const made = await content.converter({ oci: true }).convert(root);
    const manifest = content.json(made!.digest) as unknown as {
      mediaType: string;
      config: Descriptor;
      layers: Descriptor[];
    };
    assert.equal(made!.mediaType, MediaType.OciManifest);
    assert.equal(manifest.mediaType, MediaType.OciManifest);
    assert.equal(manifest.config.mediaType, MediaType.OciConfig);
    assert.equal(manifest.layers[0]!.mediaType, MediaType.OciLayerGzip);
    assert.equal(manifest.layers[0]!.digest, digestOf(base('one').gzip));
  });

  it('compresses with zstd once, and takes the result again', async () => {
    const content = new MemoryContent();
    const root = dockerImage(content, ['one']);
    const options: ConvertOptions = { layer: zstdLayer(5), oci: true };
    const made = await content.converter(options).convert(root);
    const [layer] = (content.json(made!.digest) as unknown as { layers: Descriptor[] }).layers;
    assert.equal(layer!.mediaType, MediaType.OciLayerZstd);
    const blob = content.blobs.get(layer!.digest)!;
    assert.deepEqual(zstdDecompressSync(blob.bytes), tar('one'));
    assert.equal(blob.labels['containerd.io/uncompressed'], base('one').diffId);
    content.writer = () => assert.fail('a layer is compressed again');
    assert.equal((await content.converter(options).convert(root))?.digest, made!.digest);
    assert.throws(
      () => zstdLayer(23),
      (error) => hasCode(error, Code.InvalidArgument),
    );
  });

  it('keeps the chosen platforms of an index, converts shared layers once and drops what is no longer true', async () => {
    const content = new MemoryContent();
    const amd = { ...dockerImage(content, ['shared', 'amd']), platform: { os: 'linux', architecture: 'amd64' } };
    const arm = {
      ...dockerImage(content, ['shared', 'arm'], 'arm64'),
      platform: { os: 'linux', architecture: 'arm64' },
    };
    const missing = {
      mediaType: MediaType.OciManifest,
      digest: digestOf('nowhere'),
      size: 7,
      platform: { os: 'windows', architecture: 'amd64' },
    };
    const root = content.add(
      MediaType.OciIndex,
      { schemaVersion: 2, mediaType: MediaType.OciIndex, manifests: [amd, missing, arm], annotations: { of: 'index' } },
      { 'containerd.io/gc.ref.content.m.1': missing.digest },
    );
    const events: string[] = [];
    const made = await content
      .converter({
        layer: uncompressLayer(),
        platform: { match: ({ os }) => os === 'linux', compare: () => 0 },
        onProgress: ({ event }) => event === 'converted' && events.push(event),
      })
      .convert(root);
    const index = content.json(made!.digest) as unknown as { manifests: Descriptor[]; annotations: object };
    assert.deepEqual(index.annotations, { of: 'index' });
    assert.deepEqual(
      index.manifests.map(({ platform }) => platform?.architecture),
      ['amd64', 'arm64'],
    );
    assert.equal(events.length, 3);
    assert.deepEqual(
      Object.values(content.blobs.get(made!.digest)!.labels),
      index.manifests.map(({ digest }) => digest),
    );
    await assert.rejects(
      content.converter({ platform: strictPlatform(parsePlatform('linux/s390x')) }).convert(root),
      (error) => hasCode(error, Code.NotFound) && /no match for platform/.test(error.message),
    );
    await assert.rejects(content.converter({ layer: uncompressLayer() }).convert(root), (error) =>
      hasCode(error, Code.NotFound),
    );
  });

  it('rewrites diff ids, and with them what the config says of the image', async () => {
    const content = new MemoryContent();
    const root = dockerImage(content, ['one']);
    const blob = content.add('', Buffer.from('another file system'));
    const made = await content
      .converter({
        layer: async () => ({
          layer: { ...blob, mediaType: MediaType.ErofsLayer },
          oldDiffId: base('one').diffId,
          diffId: blob.digest,
        }),
        osFeature: 'erofs',
      })
      .convert(root);
    const { config } = content.json(made!.digest) as unknown as { config: Descriptor };
    const json = content.json(config.digest) as unknown as Record<string, unknown>;
    assert.deepEqual(json.rootfs, { type: 'layers', diff_ids: [blob.digest] });
    assert.deepEqual(json.config, { Env: ['A=1'] });
    assert.deepEqual(json['os.features'], ['erofs']);
    assert.equal(json['x-number'], 1);
    // A config that has no place for the new diff id.
    const { layers } = content.json(root.digest) as unknown as { layers: Descriptor[] };
    const empty = content.add(MediaType.OciConfig, {});
    const artifact = content.add(MediaType.OciManifest, { schemaVersion: 2, config: empty, layers });
    const other = { layer: { ...blob, mediaType: MediaType.ErofsLayer }, oldDiffId: 'sha256:a', diffId: 'sha256:b' };
    await assert.rejects(
      content.converter({ layer: async () => other }).convert(artifact),
      (error) => hasCode(error, Code.FailedPrecondition) && /0 diff ids for 1 layers/.test(error.message),
    );
    assert.ok(await content.converter({ layer: uncompressLayer() }).convert(artifact), 'nothing to be recorded');
  });

  it('drops the annotations, URLs and inlined bytes that are true of the old bytes only', async () => {
    const content = new MemoryContent();
    const image = content.json(dockerImage(content, ['one']).digest) as unknown as { config: object; layers: object[] };
    const annotations = {
      'containerd.io/snapshot/stargz/toc.digest': 'sha256:x',
      'io.containers.zstd-chunked.manifest-checksum': 'y',
      mine: 'z',
    };
    const layer = {
      ...image.layers[0],
      mediaType: MediaType.OciLayerGzip,
      annotations,
      urls: ['https://example.com/'],
      data: 'AA==',
      'x-long': 'kept',
    };
    const config = { ...image.config, mediaType: MediaType.OciConfig };
    const bytes = Buffer.from(
      JSON.stringify({ schemaVersion: 2, config, layers: [layer] }).replace(
        '"x-long":"kept"',
        '"x-long":12345678901234567890',
      ),
    );
    const root = content.add(MediaType.OciManifest, bytes);
    const made = await content.converter({ layer: uncompressLayer() }).convert(root);
    const text = content.blobs.get(made!.digest)!.bytes.toString();
    assert.match(text, /"x-long":12345678901234567890/);
    const [converted] = (JSON.parse(text) as { layers: Descriptor[] }).layers;
    assert.deepEqual(Object.keys(converted!).sort(), ['annotations', 'digest', 'mediaType', 'size', 'x-long']);
    assert.deepEqual(converted!.annotations, { mine: 'z' });
    assert.equal('mediaType' in JSON.parse(text), false, 'a manifest that does not say its type still does not');
  });

  it('refuses a layer that is not what the config says, and one that is cut short, and leaves nothing', async () => {
    const content = new MemoryContent();
    const root = dockerImage(content, ['one']);
    const manifest = content.json(root.digest) as unknown as { config: Descriptor; layers: Descriptor[] };
    const wrong = content.add(MediaType.DockerLayerGzip, gzipSync(tar('other')));
    const lying = content.add(MediaType.DockerManifest, { ...manifest, layers: [wrong] });
    await assert.rejects(
      content.converter({ layer: uncompressLayer() }).convert(lying),
      (error) => hasCode(error, Code.FailedPrecondition) && /the image is broken: its config/.test(error.message),
    );
    const short = content.add(MediaType.DockerLayerGzip, gzipSync(Buffer.from('x'.repeat(5000))).subarray(0, 20));
    const cut = content.add(MediaType.DockerManifest, { ...manifest, layers: [short] });
    for (const layer of [uncompressLayer(), zstdLayer()])
      await assert.rejects(
        content.converter({ layer }).convert(cut),
        (error) =>
          hasCode(error, Code.FailedPrecondition) && error.message.includes(`${short.digest} cannot be converted`),
      );
    assert.equal(content.ingests.size, 0);
    assert.deepEqual(gunzipSync(base('one').gzip), tar('one'));
  });

  it('refuses indexes nested without end and documents that are too large', async () => {
    const content = new MemoryContent();
    let root = content.add(MediaType.OciIndex, { manifests: [] });
    for (let depth = 0; depth < 20; depth++) root = content.add(MediaType.OciIndex, { manifests: [root] });
    await assert.rejects(content.converter({}).convert(root), (error) => hasCode(error, Code.FailedPrecondition));
    const large = content.add(MediaType.OciManifest, Buffer.alloc((4 << 20) + 1, ' '));
    await assert.rejects(content.converter({}).convert(large), (error) => hasCode(error, Code.FailedPrecondition));
  });
});
