import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, test } from 'node:test';
import { Client, type TransferProgress } from '@gantry/client';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { addBlob, buildMultiPlatform, type MultiPlatform, readBlob, setRoot } from '../lib/multi-platform.ts';
import { eventually, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'the daemon needs root';
const own = process.arch === 'x64' ? 'amd64' : process.arch;
const foreign = own === 'arm64' ? 'amd64' : 'arm64';
const skopeo = (...args: string[]) => run('skopeo', ['--insecure-policy', ...args]);
const linux = (architecture: string) => ({ os: 'linux', architecture });

describe('transfers by the service', { skip }, () => {
  const temp = makeTempDir('xfer');
  const file = (name: string): string => path.join(temp.path, name);
  const daemon = new TestDaemon(file('d'));
  let registry: TestRegistry;
  let other: TestRegistry;
  let image: MultiPlatform;
  let name = '';

  before(async () => {
    const platforms = [{ architecture: own }, { architecture: foreign }, { architecture: 'arm', variant: 'v7' }];
    image = await buildMultiPlatform(file('multi'), platforms);
    registry = await TestRegistry.start(temp.path);
    other = await TestRegistry.start(temp.path, { storage: file('other') });
    name = `${registry.address}/test/multi:v1`;
    await skopeo('copy', '-q', '--all', '--dest-tls-verify=false', `oci:${image.layout}:latest`, `docker://${name}`);
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await registry?.close();
    await other?.close();
    await temp.remove();
  });

  const mine = () => image.images[0]!;
  const theirs = () => image.images[1]!;
  /** The digest that a registry has under a name. */
  const digestAt = async (reference: string): Promise<string> => {
    const { stdout } = await skopeo('inspect', '--tls-verify=false', '--format={{.Digest}}', `docker://${reference}`);
    return stdout.trim();
  };

  // What our own ctr does is in clients.test.ts.
  const clients = ctrClients().filter(({ transfer, own: ours }) => transfer && !ours);
  for (const [index, client] of clients.entries()) {
    describe(client.name, { skip: client.missing ?? false }, () => ctrTests(client, `xfer-${index}`));
  }

  function ctrTests(client: CtrClient, namespace: string): void {
    const ctr = new CtrSession(client, daemon.address, namespace);
    const fresh = (suffix: string): CtrSession => new CtrSession(client, daemon.address, `${namespace}-${suffix}`);
    const names = async (session: CtrSession): Promise<string[]> =>
      (await session.ok('images', 'ls', '-q')).trim().split('\n').filter(Boolean).sort();
    const has = async (session: CtrSession, digest: string): Promise<boolean> =>
      (await session.ok('content', 'ls', '-q')).includes(digest);
    const mineOf = (suffix: string): string => file(`${namespace}-${suffix}`);

    test('pull: the own platform, or all of them; tag; push', async () => {
      await ctr.ok('images', 'pull', '--plain-http', name);
      assert.ok(await has(ctr, mine().layers[1]!.descriptor.digest));
      // Others: their metadata, not their layers.
      assert.ok(await has(ctr, theirs().manifest.digest));
      assert.ok(!(await has(ctr, theirs().layers[1]!.descriptor.digest)));
      const snapshots = await ctr.ok('snapshots', 'ls');
      assert.equal(snapshots.trim().split('\n').length, 1 + 2);

      const all = fresh('all');
      await all.ok('images', 'pull', '--plain-http', '--all-platforms', name);
      for (const { layers } of image.images) assert.ok(await has(all, layers[1]!.descriptor.digest));
      const copy = `${registry.address}/copies/${namespace}:v2`;
      await all.ok('images', 'tag', name, copy);
      await all.ok('images', 'push', '--plain-http', copy);
      assert.equal(await digestAt(copy), image.index.digest);
      // Only one platform: the registry misses what the index names besides.
      const one = `${registry.address}/copies/${namespace}-one:v1`;
      await ctr.ok('images', 'tag', name, one);
      const { code, stderr } = await ctr.try('images', 'push', '--plain-http', '--platform', `linux/${own}`, one);
      assert.notEqual(code, 0);
      assert.match(
        stderr,
        /manifest list\/index references to blobs and\/or manifests are missing in your target registry/,
      );
    });

    test('pull --platform takes what fits', async () => {
      const session = fresh('arm');
      await session.ok('images', 'pull', '--plain-http', '--skip-metadata', '--platform', 'linux/arm/v7', name);
      assert.ok(await has(session, image.images[2]!.layers[1]!.descriptor.digest));
      assert.ok(!(await has(session, mine().manifest.digest)));
      const none = await fresh('none').try('images', 'pull', '--plain-http', '--platform', 'linux/s390x', name);
      // As with containerd, that is an image without content.
      assert.equal(none.code, 0, none.stderr);
    });

    test('export: skopeo reads it as layout and as docker-archive', async () => {
      const archive = mineOf('export.tar');
      await ctr.ok('images', 'export', archive, name);
      const out = mineOf('from-oci');
      await skopeo('copy', '-q', `oci-archive:${archive}`, `dir:${out}`);
      const layer = mine().layers[1]!.descriptor.digest.slice('sha256:'.length);
      assert.ok(existsSync(path.join(out, layer)));
      const { stdout } = await skopeo('inspect', '--config', '--raw', `docker-archive:${archive}:${name}`);
      assert.deepEqual(
        JSON.parse(stdout).rootfs.diff_ids,
        mine().layers.map(({ diffId }) => diffId),
      );
      const listed = (await run('tar', ['-tf', archive])).stdout.trim().split('\n');
      assert.ok(listed.includes('manifest.json'));
      assert.ok(!listed.some((entry) => entry.includes(theirs().manifest.digest.slice(7))));

      const bare = mineOf('bare.tar');
      await ctr.ok('images', 'export', '--skip-manifest-json', bare, name);
      assert.ok(!(await run('tar', ['-tf', bare])).stdout.includes('manifest.json'));
      // Not all of it was pulled.
      const { code, stderr } = await ctr.try('images', 'export', '--all-platforms', mineOf('all.tar'), name);
      assert.notEqual(code, 0);
      assert.match(stderr, /not found/);
    });

    test('export --all-platforms, and import of it', async () => {
      const archive = mineOf('everything.tar');
      await fresh('all').ok('images', 'export', '--all-platforms', archive, name);
      const session = fresh('import-all');
      await session.ok('images', 'import', '--all-platforms', archive);
      assert.deepEqual(await names(session), [name]);
      for (const { layers } of image.images) assert.ok(await has(session, layers[1]!.descriptor.digest));
      assert.match(
        await session.ok('images', 'ls'),
        new RegExp(`${name} +application/vnd.oci.image.index.v1\\+json ${image.index.digest}`),
      );
      assert.match(await session.ok('images', 'check'), /complete \(3\/3\).* true/);
    });

    test('import: what skopeo writes, under the names in it', async () => {
      const source = `docker://${name}`;
      const from = ['copy', '-q', '--src-tls-verify=false', source];
      await skopeo(...from, `docker-archive:${mineOf('docker.tar')}:example.org/from/docker:1`);
      await skopeo(...from, `oci-archive:${mineOf('oci.tar')}:example.org/from/oci:1`);
      await skopeo(...from, `oci:${mineOf('layout')}:example.org/from/layout:1`);
      await run('tar', ['-C', mineOf('layout'), '-cf', mineOf('layout.tar'), '.']);
      await run('gzip', ['-k', mineOf('docker.tar')]);
      await run('zstd', ['-q', mineOf('layout.tar')]);
      const session = fresh('import');
      for (const archive of ['docker.tar.gz', 'oci.tar', 'layout.tar.zst']) {
        await session.ok('images', 'import', mineOf(archive));
      }
      assert.deepEqual(
        await names(session),
        ['docker', 'layout', 'oci'].map((kind) => `example.org/from/${kind}:1`),
      );
      const check = await session.ok('images', 'check');
      assert.equal(check.match(/complete \(\d+\/\d+\).*true/g)?.length, 3, check);
      // Two chains of two: one of the layers as they are, the same for all.
      assert.equal((await session.ok('snapshots', 'ls')).trim().split('\n').length, 1 + 2);
    });

    test('import: names by prefix, digests, index, and compressed layers', async () => {
      const archive = mineOf('docker.tar');
      const digests = fresh('digests');
      await digests.ok('images', 'import', '--digests', '--base-name', 'example.org/from', '--no-unpack', archive);
      const [first = '', second = ''] = await names(digests);
      assert.equal(first, 'example.org/from/docker:1');
      assert.match(second, /^example.org\/from@sha256:[0-9a-f]{64}$/);
      assert.equal((await digests.ok('snapshots', 'ls')).trim().split('\n').length, 1);

      const elsewhere = fresh('elsewhere');
      await elsewhere.ok('images', 'import', '--base-name', 'example.com/other', '--index-name', 'the-index', archive);
      assert.deepEqual(await names(elsewhere), ['the-index']);

      const packed = fresh('packed');
      await packed.ok('images', 'import', '--compress-blobs', '--label', 'a=b', archive);
      assert.match(await packed.ok('images', 'ls'), / a=b/);
      const [line = ''] = (await packed.ok('images', 'ls')).split('\n').slice(1);
      const manifest = JSON.parse(await packed.ok('content', 'get', line.split(/ +/)[2]!));
      assert.deepEqual(
        manifest.layers.map(({ mediaType }: { mediaType: string }) => mediaType),
        Array(2).fill('application/vnd.docker.image.rootfs.diff.tar.gzip'),
      );
    });

    test('a pull that is interrupted leaves what it has, for the next to go on from', async () => {
      const half = 5 << 19;
      let stall = true;
      let stalled = (): void => undefined;
      let left = (): void => undefined;
      const reached = new Promise<void>((resolve) => {
        stalled = resolve;
      });
      const gone = new Promise<void>((resolve) => {
        left = resolve;
      });
      await using slow = await TestingRegistry.start({
        intercept(request, response, { blobs }) {
          const bytes = blobs.get(`a@${request.url?.split('/').at(-1)}`);
          if (!stall || request.method !== 'GET' || !bytes || bytes.length < half) return false;
          response.writeHead(200, { 'content-length': bytes.length }).write(bytes.subarray(0, half), stalled);
          response.on('close', left);
          return true;
        },
      });
      writeFileSync(mineOf('random'), randomBytes(5 << 20));
      await run('tar', ['-C', temp.path, '-cf', mineOf('random.tar'), path.basename(mineOf('random'))]);
      const tar = readFileSync(mineOf('random.tar'));
      const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', ...slow.addBlob('a', tar) };
      const document = { ...linux(own), rootfs: { type: 'layers', diff_ids: [layer.digest] } };
      const config = {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        ...slow.addBlob('a', JSON.stringify(document)),
      };
      slow.addManifest(
        'a',
        'application/vnd.oci.image.manifest.v1+json',
        { schemaVersion: 2, config, layers: [layer] },
        'v1',
      );
      const session = fresh('interrupted');
      const reference = `${slow.host}/a:v1`;
      const pull = ['images', 'pull', '--plain-http', reference];
      const running = spawn(client.file, session.arguments(pull), { stdio: 'ignore' });
      const ended = once(running, 'exit');
      await reached;
      const active = async (): Promise<number> => {
        const [, line = ''] = (await session.ok('content', 'active')).split('\n');
        return line.includes(layer.digest) ? Number.parseFloat(line.split(/\s+/)[1] ?? '') : -1;
      };
      // Once it is on disk.
      await eventually('some of the layer is there', async () => ((await active()) > 0 ? true : undefined));
      running.kill('SIGINT');
      await ended;
      // The daemon lets go of the registry; what it has is kept by the lease that ctr made and could not end.
      await gone;
      assert.ok((await active()) > 0);
      stall = false;
      slow.headers.length = 0;
      await session.ok(...pull);
      const ranges = slow.headers.flatMap(({ range = [] }) => range);
      assert.equal(ranges.length, 1);
      assert.match(ranges[0] ?? '', /^bytes=[1-9]\d+-/);
      assert.ok(await has(session, layer.digest));
      assert.equal((await session.ok('content', 'active')).trim().split('\n').length, 1);
    });

    test('layers that may not be passed on', async () => {
      const layout = mineOf('foreign');
      mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
      const { manifest } = mine();
      const { config, layers, ...rest } = JSON.parse(String(readBlob(image.layout, manifest.digest)));
      for (const { digest } of [config, ...layers]) addBlob(layout, readBlob(image.layout, digest));
      const mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
      const foreignLayer = { ...layers[1], mediaType, urls: ['http://localhost:1/nowhere'] };
      const document = { ...rest, config, layers: [layers[0], foreignLayer] };
      setRoot(layout, { mediaType: rest.mediaType, ...addBlob(layout, document) });
      await run('tar', ['-C', layout, '-cf', mineOf('foreign.tar'), '.']);
      const session = fresh('foreign');
      await session.ok('images', 'import', '--base-name', 'foreign', mineOf('foreign.tar'));
      const listing = async (...flags: string[]): Promise<string> => {
        await session.ok('images', 'export', ...flags, mineOf('out.tar'), 'foreign:latest');
        return (await run('tar', ['-tf', mineOf('out.tar')])).stdout;
      };
      const blob = foreignLayer.digest.replace('sha256:', 'blobs/sha256/');
      assert.ok((await listing()).includes(blob));
      const without = await listing('--skip-non-distributable');
      assert.ok(!without.includes(blob));
      assert.ok(without.includes(layers[0].digest.slice(7)));
    });

    test('artifacts, and indexes of indexes', async () => {
      const layout = mineOf('odd');
      mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
      const manifestType = 'application/vnd.oci.image.manifest.v1+json';
      const indexType = 'application/vnd.oci.image.index.v1+json';
      const artifact = {
        mediaType: manifestType,
        artifactType: 'application/vnd.example',
        ...addBlob(layout, {
          schemaVersion: 2,
          mediaType: manifestType,
          artifactType: 'application/vnd.example',
          config: { mediaType: 'application/vnd.oci.empty.v1+json', ...addBlob(layout, {}) },
          layers: [{ mediaType: 'application/vnd.example.model', ...addBlob(layout, Buffer.alloc(30 << 20, 'm')) }],
        }),
      };
      const inner = JSON.parse(String(readBlob(image.layout, image.index.digest)));
      for (const { manifest } of image.images) {
        const bytes = readBlob(image.layout, manifest.digest);
        addBlob(layout, bytes);
        const { config, layers } = JSON.parse(String(bytes));
        for (const { digest } of [config, ...layers]) addBlob(layout, readBlob(image.layout, digest));
      }
      const manifests = [artifact, { mediaType: indexType, ...addBlob(layout, inner) }];
      const outer = { mediaType: indexType, ...addBlob(layout, { schemaVersion: 2, mediaType: indexType, manifests }) };
      setRoot(layout, outer);
      await run('tar', ['-C', layout, '-cf', mineOf('odd.tar'), '.']);
      const session = fresh('odd');
      await session.ok('images', 'import', '--all-platforms', mineOf('odd.tar'));
      const list = await session.ok('images', 'ls');
      assert.match(list, new RegExp(outer.digest));
      const [odd = ''] = await names(session);
      const there = `${registry.address}/odd/${namespace}:1`;
      await session.ok('images', 'tag', odd, there);
      await session.ok('images', 'push', '--plain-http', there);
      const again = fresh('odd-again');
      await again.ok('images', 'pull', '--plain-http', there);
      // The image of the own platform in the inner index is unpacked; the artifact is only kept.
      assert.equal((await again.ok('snapshots', 'ls')).trim().split('\n').length, 1 + 2);
      assert.ok(await has(again, artifact.digest));
    });
  }

  describe('our client', () => {
    let client: Client;
    const connect = async (namespace: string): Promise<Client> => client.inNamespace(namespace);

    before(async () => {
      client = await Client.connect({ address: daemon.address, namespace: 'xfer-client' });
    });
    after(() => client.close());

    test('mirrors from registry to registry, and within one', async () => {
      const events: TransferProgress[] = [];
      const plain = { source: { defaultScheme: 'http' as const }, destination: { defaultScheme: 'http' as const } };
      const target = `${other.address}/mirror/multi:v1`;
      const made = await client.transfer.mirror(name, target, { ...plain, onProgress: (event) => events.push(event) });
      assert.equal(made.digest, image.index.digest);
      assert.equal(await digestAt(target), image.index.digest);
      await skopeo('copy', '-q', '--all', '--src-tls-verify=false', `docker://${target}`, `oci:${file('mirrored')}:v1`);
      for (const { layers } of image.images) {
        const { digest } = layers[1]!.descriptor;
        assert.deepEqual(readBlob(file('mirrored'), digest), readBlob(image.layout, digest));
      }
      assert.ok(events.some(({ event, name: what }) => event === 'complete' && what.startsWith('layer-sha256:')));

      const within = `${registry.address}/elsewhere/multi:v1`;
      events.length = 0;
      await client.transfer.mirror(name, within, { ...plain, onProgress: (event) => events.push(event) });
      assert.equal(await digestAt(within), image.index.digest);
      // Seven blobs: four layers and three configurations.
      assert.equal(events.filter(({ event }) => event === 'mounted').length, 7);

      const some = await client.transfer.mirror(name, `${other.address}/mirror/some:v1`, {
        ...plain,
        platforms: [linux(own)],
        extraTags: ['latest'],
      });
      assert.equal(await digestAt(`${other.address}/mirror/some:latest`), some.digest);
      assert.notEqual(some.digest, image.index.digest);
      // The store has nothing of it.
      const content: string[] = [];
      for await (const { digest } of client.content.list()) content.push(digest);
      assert.deepEqual(content, []);
    });

    test('a mirror takes signatures and the like along', async () => {
      const subject = { mediaType: 'application/vnd.oci.image.manifest.v1+json', ...mine().manifest };
      const layout = file('signature');
      mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
      const signature = addBlob(layout, {
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        artifactType: 'application/vnd.example.signature',
        config: { mediaType: 'application/vnd.oci.empty.v1+json', ...addBlob(layout, {}) },
        layers: [{ mediaType: 'application/vnd.example.signature', ...addBlob(layout, Buffer.from('signed')) }],
        subject,
      });
      setRoot(layout, { mediaType: 'application/vnd.oci.image.manifest.v1+json', ...signature });
      await run('tar', ['-C', layout, '-cf', file('signature.tar'), '.']);
      const signing = await connect('xfer-sign');
      const reference = `${registry.address}/test/multi:signature`;
      await signing.transfer.import(createReadStream(file('signature.tar')), {
        prefix: `${registry.address}/test/multi`,
      });
      await signing.transfer.push(reference, { name: `${registry.address}/test/multi:latest`, defaultScheme: 'http' });
      const target = `${other.address}/signed/multi:v1`;
      const plain = { source: { defaultScheme: 'http' as const }, destination: { defaultScheme: 'http' as const } };
      await client.transfer.mirror(name, target, { ...plain, referrers: true });
      // This registry has no referrers API: the list is kept under a tag.
      const tag = `${other.address}/signed/multi:${mine().manifest.digest.replace(':', '-')}`;
      const { stdout } = await skopeo('inspect', '--tls-verify=false', '--raw', `docker://${tag}`);
      assert.deepEqual(
        JSON.parse(stdout).manifests.map(({ digest }: { digest: string }) => digest),
        [signature.digest],
      );
    });

    test('unpacks layers and makes them of snapshots', async () => {
      const lease = await client.leases.create();
      const held = client.withLease(lease);
      const snapshots = held.snapshots('overlayfs');
      const bytes = (index: number) => Readable.from([readBlob(image.layout, mine().layers[index]!.descriptor.digest)]);
      const base = await held.transfer.unpackLayer(bytes(0));
      const top = await held.transfer.unpackLayer(bytes(1), {
        parent: base.snapshot,
        diffId: mine().layers[1]!.diffId,
      });
      assert.equal(base.layer?.digest, mine().layers[0]!.descriptor.digest);
      // The same as a pull makes.
      const pulling = await connect('xfer-client-pull');
      await pulling.transfer.pull(name, { defaultScheme: 'http', platforms: [linux(own)], maxConcurrentTransfers: 1 });
      assert.equal((await pulling.snapshots('overlayfs').stat(top.snapshot)).parent, base.snapshot);

      const diff = held.transfer.diffSnapshot(top.snapshot, {
        mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
      });
      await pipeline(diff, createWriteStream(file('diff.tar.zst')));
      const layer = await diff.layer;
      assert.equal((await held.content.info(layer.digest)).size, layer.size);
      const { stdout } = await run('sh', ['-c', `zstd -dc ${file('diff.tar.zst')} | tar -xO etc/platform`]);
      assert.equal(stdout, `${own}\n`);

      await assert.rejects(
        held.transfer.unpackLayer(bytes(1), { diffId: mine().layers[0]!.diffId, key: 'x' }),
        /wrong diff id/,
      );
      await assert.rejects(snapshots.stat('x'), /not exist|not found/);
      await client.leases.delete(lease.id, { sync: true });
      await assert.rejects(snapshots.stat(top.snapshot), /not exist|not found/);
    });

    test('exports what there is of an image, with its index', async () => {
      const pulling = await connect('xfer-client-pull');
      const archive = file('partial.tar');
      await assert.rejects(
        pipeline(pulling.transfer.export([name], { allPlatforms: true }), createWriteStream(file('failed.tar'))),
        /not found/,
      );
      const there = pulling.transfer.export([name], { allPlatforms: true, skipMissing: true });
      await pipeline(there, createWriteStream(archive));
      const importing = await connect('xfer-client-import');
      await importing.transfer.import(createReadStream(archive), { unpack: true, platforms: [linux(own)] });
      const got = await importing.images.get(name);
      assert.equal(got.target.digest, image.index.digest);
      const { stdout } = await skopeo('inspect', '--config', '--raw', `docker-archive:${archive}:${name}`);
      assert.deepEqual(
        JSON.parse(stdout).rootfs.diff_ids,
        mine().layers.map(({ diffId }) => diffId),
      );
    });
  });
});
