// `ctr images convert`, ours and containerd's own, against gantryd; what comes out runs, and others can read it.
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, type Descriptor } from '@gantry/client';
import { childLabels, digestOf, hostArchitecture } from '@gantry/oci';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'containers need root';
const [own, , theirs] = ctrClients();

interface Manifest {
  mediaType: string;
  config: Descriptor;
  layers: Descriptor[];
}

describe('ctr images convert', { skip: skip || (own!.missing ?? false) }, () => {
  const temp = makeTempDir('convert');
  const kernelHasErofs = /^\s*erofs$/m.test(readFileSync('/proc/filesystems', 'utf8'));
  // Clients that unpack by the Diff service reach the erofs differ through this list only.
  const differs = `[plugins.'io.containerd.service.v1.diff-service']\n  default = ['erofs', 'walking']`;
  const daemon = new TestDaemon(path.join(temp.path, 'd'), kernelHasErofs ? differs : '');
  const ctr = new CtrSession(own!, daemon.address, 'convert');
  const containerd = new CtrSession(theirs!, daemon.address, 'convert');
  let registry: TestRegistry;
  let oci = '';
  let docker = '';

  const layersOf = async (digest: string): Promise<Manifest> => JSON.parse(await ctr.ok('content', 'get', digest));
  const convert = async (...args: string[]): Promise<string> => (await ctr.ok('images', 'convert', ...args)).trim();
  /** What a container sees of the image's layers. */
  const seen = (image: string): Promise<string> =>
    ctr.ok('run', '--rm', image, 'look', 'sh', '-c', 'ls /data /data/opaque; cat /data/a /data/opaque/shown');
  const labels = async (digest: string): Promise<string[]> => {
    const line = (await ctr.ok('content', 'ls')).split('\n').find((text) => text.startsWith(digest));
    return line!.split(/\s+/).at(-1)!.split(',').sort();
  };

  before(async () => {
    const layouts = await buildTestImages(path.join(temp.path, 'images'), { few: true });
    registry = await TestRegistry.start(temp.path);
    oci = await registry.fill(layouts.whiteouts, 'test/whiteouts:latest');
    docker = `${registry.address}/test/whiteouts:docker`;
    const plain = ['--src-tls-verify=false', '--dest-tls-verify=false', '-q', '--insecure-policy'];
    await run('skopeo', ['copy', ...plain, '-f', 'v2s2', `docker://${oci}`, `docker://${docker}`]);
    await daemon.start();
    for (const name of [oci, docker]) await ctr.ok('images', 'pull', '--plain-http', name);
  });

  after(async () => {
    await daemon.stop();
    await registry?.close();
    await temp.remove();
  });

  test('takes compression off: the same bytes and labels as containerd 2.3.4 makes', async () => {
    const digest = await convert('--uncompress', oci, 'x/plain:ours');
    const { layers } = await layersOf(digest);
    assert.ok(layers.every(({ mediaType }) => mediaType === 'application/vnd.oci.image.layer.v1.tar'));
    assert.match(await seen('x/plain:ours'), /shown/);
    if (theirs!.missing) return;
    const other = (await containerd.ok('images', 'convert', '--uncompress', oci, 'x/plain:theirs')).trim();
    assert.equal(digest, other);
    // Theirs starts from nothing: what it makes has their labels.
    for (const name of ['x/plain:ours', 'x/plain:theirs']) await ctr.ok('images', 'rm', '--sync', name);
    const ourLabels = async (client: CtrSession): Promise<string[][]> => {
      await client.ok('images', 'convert', '--uncompress', '--oci', docker, 'x/labels:1');
      const [line] = (await ctr.ok('images', 'ls', 'name==x/labels:1')).split('\n').slice(1);
      const root = line!.split(/\s+/)[2]!;
      const manifest = await layersOf(root);
      const result = await Promise.all([root, ...manifest.layers.map((layer) => layer.digest)].map(labels));
      await ctr.ok('images', 'rm', '--sync', 'x/labels:1');
      return result.map((list) => list.filter((label) => !label.startsWith('containerd.io/uncompressed=')));
    };
    assert.deepEqual(await ourLabels(ctr), await ourLabels(containerd));
  });

  test('compresses with zstd, at a level; the result runs and is not made twice', async () => {
    const digest = await convert('--zstd', oci, 'x/zstd:3');
    const { layers, config } = await layersOf(digest);
    assert.ok(layers.every(({ mediaType }) => mediaType === 'application/vnd.oci.image.layer.v1.tar+zstd'));
    const source = await layersOf((await ctr.ok('images', 'ls', `name==${oci}`)).split('\n')[1]!.split(/\s+/)[2]!);
    assert.equal(config.digest, source.config.digest);
    assert.equal(await convert('--zstd', oci, 'x/zstd:again'), digest);
    const small = await layersOf(await convert('--zstd', '--zstd-compression-level', '19', oci, 'x/zstd:19'));
    assert.ok(small.layers[0]!.size < layers[0]!.size);
    // Without the other image's snapshots: these layers are unpacked themselves.
    await ctr.ok('images', 'export', path.join(temp.path, 'zstd.tar'), 'x/zstd:19');
    for (const client of [own!, theirs!].filter(({ missing }) => !missing)) {
      const elsewhere = new CtrSession(client, daemon.address, `elsewhere-${client.own}`);
      await elsewhere.ok('images', 'import', path.join(temp.path, 'zstd.tar'));
      assert.match(await elsewhere.ok('run', '--rm', 'x/zstd:19', 'small', 'cat', '/data/opaque/shown'), /shown/);
    }
    rmSync(path.join(temp.path, 'zstd.tar'));
  });

  test('skopeo reads what was converted, from a registry and from an archive', async () => {
    await convert('--zstd', docker, 'x/from-docker:1');
    await ctr.ok('images', 'push', '--plain-http', `${registry.address}/test/zstd:1`, 'x/from-docker:1');
    const reference = `docker://${registry.address}/test/zstd:1`;
    const { stdout } = await run('skopeo', ['inspect', '--raw', '--tls-verify=false', reference]);
    const { layers } = JSON.parse(stdout) as Manifest;
    assert.ok(layers.every(({ mediaType }) => mediaType === 'application/vnd.oci.image.layer.v1.tar+zstd'));
    const archive = path.join(temp.path, 'zstd-oci.tar');
    await ctr.ok('images', 'export', archive, 'x/from-docker:1');
    const layout = path.join(temp.path, 'layout');
    // To a directory without compression: every layer is opened and compared with its diff id.
    await run('skopeo', [
      'copy',
      '--insecure-policy',
      '-q',
      '--dest-decompress',
      `oci-archive:${archive}`,
      `dir:${layout}`,
    ]);
    const manifest = JSON.parse(readFileSync(path.join(layout, 'manifest.json'), 'utf8')) as Manifest;
    assert.equal(manifest.layers.length, 3);
  });

  test("Docker's media types become OCI's", async () => {
    const before = await ctr.ok('images', 'ls', `name==${docker}`);
    assert.match(before, /application\/vnd\.docker\.distribution\.manifest\.v2\+json/);
    const digest = await convert('--oci', docker, 'x/oci:1');
    const manifest = await layersOf(digest);
    assert.equal(manifest.mediaType, 'application/vnd.oci.image.manifest.v1+json');
    assert.equal(manifest.config.mediaType, 'application/vnd.oci.image.config.v1+json');
    assert.deepEqual(
      [...new Set(manifest.layers.map(({ mediaType }) => mediaType))],
      ['application/vnd.oci.image.layer.v1.tar+gzip'],
    );
    assert.match(await ctr.ok('images', 'ls', 'name==x/oci:1'), /application\/vnd\.oci\.image\.manifest\.v1\+json/);
  });

  test('of an index the platforms asked for stay, all in one go, as with containerd 2.3.4', async () => {
    await using client = await Client.connect({ address: daemon.address, namespace: 'convert' });
    await using lease = await client.leases.create();
    const { content, images } = client.withLease(lease);
    const ingest = (document: object, children: Descriptor[] = []) => {
      const bytes = Buffer.from(JSON.stringify(document));
      return content.ingest(digestOf(bytes), bytes, { expected: digestOf(bytes), labels: childLabels(children) });
    };
    const source = await layersOf((await ctr.ok('images', 'ls', `name==${oci}`)).split('\n')[1]!.split(/\s+/)[2]!);
    const type = 'application/vnd.oci.image.manifest.v1+json';
    const manifests: Descriptor[] = [];
    for (const architecture of ['amd64', 'arm64', 's390x']) {
      const json = JSON.parse(await ctr.ok('content', 'get', source.config.digest)) as object;
      const config = { ...source.config, ...(await ingest({ ...json, architecture, os: 'linux' })) };
      const { layers } = source;
      const made = await ingest({ schemaVersion: 2, mediaType: type, config, layers }, [config, ...layers]);
      manifests.push({ mediaType: type, ...made, platform: { architecture, os: 'linux' } });
    }
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    const index = await ingest({ schemaVersion: 2, mediaType, manifests }, manifests);
    await images.create({ name: 'x/index:1', target: { mediaType, ...index } });
    const platforms = async (digest: string): Promise<(string | undefined)[]> => {
      const { manifests } = JSON.parse(await ctr.ok('content', 'get', digest)) as { manifests: Descriptor[] };
      return manifests.map(({ platform }) => platform?.architecture);
    };
    for (const [flags, expected] of [
      [['--all-platforms'], ['amd64', 'arm64', 's390x']],
      [
        ['--platform', 'linux/arm64', '--platform', 'linux/s390x'],
        ['arm64', 's390x'],
      ],
    ] as const) {
      const digest = await convert('--uncompress', ...flags, 'x/index:1', 'x/index:2');
      assert.deepEqual(await platforms(digest), expected);
      const check = await ctr.ok('images', 'check', 'name==x/index:2');
      assert.match(check, ([...expected] as string[]).includes(hostArchitecture()) ? /complete/ : /unavailable/);
      if (!theirs!.missing)
        assert.equal(
          (await containerd.ok('images', 'convert', '--uncompress', ...flags, 'x/index:1', 'x/index:3')).trim(),
          digest,
        );
    }
    const none = await ctr.try('images', 'convert', '--platform', 'windows/amd64', 'x/index:1', 'x/index:4');
    assert.equal(none.code, 1);
    assert.match(none.stderr, /no match for platform/);
  });

  test('layers become EROFS images, plain and packed, that the erofs snapshotter runs as they are', {
    skip: kernelHasErofs ? false : 'the kernel has no erofs (modprobe erofs)',
  }, async () => {
    for (const [packing, type] of [
      ['raw', 'application/vnd.erofs.layer.v1'],
      ['zstd', 'application/vnd.erofs.layer.v1+zstd'],
    ] as const) {
      const name = `x/erofs:${packing}`;
      const digest = await convert('--erofs', packing, oci, name);
      assert.equal(await convert('--erofs', packing, oci, `${name}2`), digest, 'the same each time');
      const { layers, config } = await layersOf(digest);
      assert.ok(layers.every(({ mediaType }) => mediaType === type));
      const json = JSON.parse(await ctr.ok('content', 'get', config.digest)) as Record<string, unknown>;
      assert.deepEqual(json['os.features'], ['erofs']);
      const args = ['run', '--rm', '--snapshotter', 'erofs', name, 'look', 'sh', '-c'];
      assert.equal(await ctr.ok(...args, 'ls /data /data/opaque; cat /data/a /data/opaque/shown'), await seen(oci));
    }
    const { code, stderr } = await ctr.try('images', 'convert', '--erofs', 'lz4', oci, 'x/none:1');
    assert.equal(code, 1);
    assert.match(stderr, /unsupported erofs format "lz4", supported: raw, zstd/);
  });

  test('mistakes are named, and leave neither image nor lease nor ingest', async () => {
    const failing = async (pattern: RegExp, ...args: string[]): Promise<void> => {
      const { code, stderr, stdout } = await ctr.try('images', 'convert', ...args);
      assert.equal(code, 1);
      assert.equal(stdout, '');
      assert.match(stderr, pattern);
      assert.ok(!/\n +at /.test(stderr), stderr);
    };
    await failing(/src and target image need to be specified/, oci);
    await failing(/image "x\/none:1": not found/, 'x/none:1', 'x/none:2');
    await failing(/exclude each other/, '--uncompress', '--zstd', oci, 'x/none:2');
    await failing(/levels from 1 to 22, not 40/, '--zstd', '--zstd-compression-level', '40', oci, 'x/none:2');
    assert.doesNotMatch(await ctr.ok('images', 'ls'), /x\/none/);
    assert.equal((await ctr.ok('leases', 'ls', '-q')).trim(), '');
    assert.doesNotMatch(await ctr.ok('content', 'active'), /convert/);
  });
});
