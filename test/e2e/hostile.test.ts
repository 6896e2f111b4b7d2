import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { makeTar } from '@gantry/archive/testing/fixtures.ts';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import { type Connection, connect, gather } from '../fault/connection.ts';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { blobOf, digestOf, type HostileLayer, hostileLayers, layerTypes } from '../lib/hostile-layers.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const types = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  index: 'application/vnd.oci.image.index.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
};
const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
const skip = process.getuid?.() === 0 ? false : 'snapshots need root';

/**
 * What others may send us: layers, manifests and registries that lie. Each is either unpacked as containerd does, within its snapshot,
 * or a clear error; nothing is written outside, and nothing is left after a collection.
 */
describe('a hostile registry', { skip }, () => {
  const temp = makeTempDir('hostile');
  const at = (...names: string[]) => path.join(temp.path, ...names);
  const outside = at('outside');
  const daemon = new TestDaemon(
    at('d'),
    `[plugins.'io.containerd.differ.v1.walking']
  max_layer_size = ${16 << 20}
  max_layer_ratio = 10
`,
  );
  const fine: HostileLayer = { name: 'fine', tar: makeTar({ path: 'file', content: randomBytes(5000) }), becomes: {} };
  let registry: TestingRegistry;
  let topBefore: string[];
  let connection: Connection;

  before(async () => {
    mkdirSync(outside);
    writeFileSync(path.join(outside, 'secret'), 'secret');
    topBefore = readdirSync('/').sort();
    registry = await TestingRegistry.start();
    await daemon.start();
    connection = connect(daemon.address, 'hostile');
  });

  after(async () => {
    connection?.close();
    await daemon.stop();
    await registry?.[Symbol.asyncDispose]();
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  type LayerOf = Pick<HostileLayer, 'tar' | 'blob' | 'mediaType'>;

  /** A manifest whose blobs are in the registry. */
  function manifestOf(name: string, layers: readonly LayerOf[]) {
    const diffIds = layers.map(({ tar }) => digestOf(tar));
    const config = { architecture, os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: diffIds } };
    return {
      schemaVersion: 2,
      mediaType: types.manifest,
      config: { mediaType: types.config, ...registry.addBlob(name, JSON.stringify(config)) },
      layers: layers.map((layer) => ({
        mediaType: layer.mediaType ?? layerTypes.gzip,
        ...registry.addBlob(name, blobOf(layer as HostileLayer)),
      })),
    };
  }

  /** Puts an image of these layers into the registry; answers its reference. */
  function publish(name: string, layers: readonly LayerOf[]): string {
    registry.addManifest(name, types.manifest, manifestOf(name, layers), 'latest');
    return `${registry.host}/${name}:latest`;
  }

  const folder = (...names: string[]) => path.join(daemon.root, ...names);
  const content = folder('io.containerd.content.v1.content');
  const snapshots = folder('io.containerd.snapshotter.v1.overlayfs/snapshots');
  const list = (directory: string) => (existsSync(directory) ? readdirSync(directory).sort() : []);

  /** Collects, then looks whether anything at all is left, in records, on disk, or mounted. */
  async function nothingLeft(): Promise<void> {
    const { content: blobs, images, leases, snapshots: tree } = connection;
    for (const { name } of (await images.list({})).images) await images.delete({ name });
    await leases.create({ id: 'collect' });
    await leases.delete({ id: 'collect', sync: true });
    assert.deepEqual((await leases.list({})).leases, []);
    assert.deepEqual(await gather(blobs.list({}), ({ info }) => info), []);
    assert.deepEqual(await gather(tree.list({ snapshotter: 'overlayfs' }), ({ info }) => info), []);
    assert.deepEqual(list(path.join(content, 'blobs/sha256')), [], 'blobs on disk');
    assert.deepEqual(list(path.join(content, 'ingest')), [], 'ingests');
    await eventually('the snapshot’s directory goes', () => (list(snapshots).length === 0 ? true : undefined));
    assert.deepEqual(mountsBeneath(temp.path), [], 'mounts');
    assert.deepEqual(list(folder('tmpmounts')), [], 'temporary files');
    assert.deepEqual(list(outside), ['secret']);
    assert.equal(lstatSync(path.join(outside, 'secret')).nlink, 1);
    assert.equal(readFileSync(path.join(outside, 'secret'), 'utf8'), 'secret');
    assert.deepEqual(readdirSync('/').sort(), topBefore);
  }

  /** Everything in the one snapshot there is: names as they are on disk, with what files begin with. */
  function unpacked(name: string): string {
    const [id = ''] = list(snapshots);
    const file = Buffer.concat([Buffer.from(`${path.join(snapshots, id, 'fs')}/`), Buffer.from(name, 'latin1')]);
    const stat = lstatSync(file);
    if (!stat.isFile()) return '';
    const fd = openSync(file, 'r');
    try {
      const start = Buffer.alloc(16);
      return start.toString('latin1', 0, readSync(fd, start));
    } finally {
      closeSync(fd);
    }
  }

  /** A document's descriptor, so that it can be nested. */
  const document = (name: string, mediaType: string, value: unknown, tag?: string) => ({
    mediaType,
    ...registry.addManifest(name, mediaType, value, tag),
  });

  /** Images that are wrong above their layers; `prepare` answers the reference to pull. */
  const images: { name: string; prepare: (repository: string) => string; fails: RegExp }[] = [
    {
      name: 'a manifest of five megabytes',
      prepare: (repository) => {
        const annotations = { padding: 'x'.repeat(5 << 20) };
        registry.addManifest(repository, types.manifest, { ...manifestOf(repository, []), annotations }, 'latest');
        return `${registry.host}/${repository}:latest`;
      },
      fails: /rejecting \d+ byte manifest|manifest.*(?:too large|larger)/,
    },
    {
      name: 'a manifest of five megabytes that claims to be small',
      prepare: (repository) => {
        const large = { ...manifestOf(repository, []), annotations: { padding: 'x'.repeat(5 << 20) } };
        const descriptor = { ...document(repository, types.manifest, large), size: 500 };
        document(
          repository,
          types.index,
          { schemaVersion: 2, mediaType: types.index, manifests: [descriptor] },
          'latest',
        );
        return `${registry.host}/${repository}:latest`;
      },
      fails: /size|length|larger|EOF/i,
    },
    {
      name: 'indexes within indexes without end',
      prepare: (repository) => {
        let inner = document(repository, types.manifest, manifestOf(repository, []));
        for (let depth = 0; depth < 60; depth++) {
          const index = { schemaVersion: 2, mediaType: types.index, manifests: [inner] };
          inner = document(repository, types.index, index, depth === 59 ? 'latest' : undefined);
        }
        return `${registry.host}/${repository}:latest`;
      },
      fails: /nested|deep|depth/,
    },
    {
      name: 'an index that a lying registry puts into itself',
      prepare: (repository) => {
        const digest = `sha256:${'a'.repeat(64)}`;
        const index = {
          schemaVersion: 2,
          mediaType: types.index,
          manifests: [{ mediaType: types.index, digest, size: 300 }],
        };
        const bytes = Buffer.from(JSON.stringify(index));
        registry.addManifest(repository, types.index, index, 'latest');
        registry.manifests.set(`${repository}@${digest}`, { bytes, mediaType: types.index });
        return `${registry.host}/${repository}:latest`;
      },
      fails: /size|digest|EOF/,
    },
    {
      name: 'a manifest that is no JSON',
      prepare: (repository) => {
        const bytes = Buffer.from('{"schemaVersion": 2,');
        registry.manifests.set(`${repository}:latest`, { bytes, mediaType: types.manifest });
        registry.manifests.set(`${repository}@${digestOf(bytes)}`, { bytes, mediaType: types.manifest });
        return `${registry.host}/${repository}:latest`;
      },
      fails: /JSON/i,
    },
    {
      name: 'a layer that is not the one of its digest',
      prepare: (repository) => {
        const reference = publish(repository, [fine]);
        registry.blobs.set(`${repository}@${digestOf(blobOf(fine))}`, Buffer.from(blobOf(fine)).fill(0, 40, 44));
        return reference;
      },
      fails: /digest/,
    },
    {
      name: 'a layer that is longer than its descriptor says',
      prepare: (repository) => {
        const reference = publish(repository, [fine]);
        const blob = Buffer.concat([blobOf(fine), Buffer.alloc(8 << 20)]);
        registry.blobs.set(`${repository}@${digestOf(blobOf(fine))}`, blob);
        return reference;
      },
      fails: /size|length|digest/i,
    },
    {
      name: 'a layer that is shorter than its descriptor says',
      prepare: (repository) => {
        const reference = publish(repository, [fine]);
        registry.blobs.set(`${repository}@${digestOf(blobOf(fine))}`, blobOf(fine).subarray(0, -20));
        return reference;
      },
      fails: /size|length|EOF|digest/i,
    },
    {
      name: 'a layer whose content is not what the configuration says',
      prepare: (repository) =>
        publish(repository, [{ ...fine, tar: Buffer.concat([fine.tar, Buffer.alloc(512)]), blob: blobOf(fine) }]),
      fails: /wrong diff id/,
    },
    {
      name: 'a layer of a negative size',
      prepare: (repository) => {
        const manifest = manifestOf(repository, [fine]);
        const layers = [{ mediaType: layerTypes.gzip, ...registry.addBlob(repository, blobOf(fine)), size: -1 }];
        registry.addManifest(repository, types.manifest, { ...manifest, layers }, 'latest');
        return `${registry.host}/${repository}:latest`;
      },
      fails: /size/,
    },
    {
      name: 'a layer whose digest is a path',
      prepare: (repository) => {
        const layers = [{ mediaType: layerTypes.gzip, digest: `sha256:../../../../${'a'.repeat(51)}`, size: 5 }];
        registry.addManifest(repository, types.manifest, { ...manifestOf(repository, [fine]), layers }, 'latest');
        return `${registry.host}/${repository}:latest`;
      },
      fails: /digest/,
    },
  ];

  const layoutFile = { path: 'oci-layout', content: '{"imageLayoutVersion": "1.0.0"}' };
  const emptyIndex = JSON.stringify({ schemaVersion: 2, mediaType: types.index, manifests: [] });
  const archives: { name: string; bytes: Buffer; fails?: RegExp }[] = [
    {
      name: 'an archive whose names lead out',
      bytes: makeTar(
        { path: `${'../'.repeat(20)}${outside.slice(1)}/pwned`, content: 'x' },
        { path: `${outside}/pwned`, content: 'x' },
        { path: 'blobs', type: '2', linkPath: outside },
        { path: 'blobs/pwned', content: 'x' },
        layoutFile,
        { path: 'index.json', content: emptyIndex },
      ),
    },
    {
      name: 'an archive with a blob under another digest',
      bytes: makeTar(
        layoutFile,
        { path: `blobs/sha256/${'a'.repeat(64)}`, content: 'x' },
        { path: 'index.json', content: emptyIndex },
      ),
      fails: /digest/,
    },
    {
      name: 'an archive with a JSON document of 30 megabytes',
      bytes: gzipSync(makeTar({ path: 'manifest.json', content: Buffer.alloc(30 << 20, ' ') })),
      fails: /larger than/,
    },
    {
      name: 'an archive that is cut short',
      bytes: gzipSync(makeTar(layoutFile, { path: 'index.json', content: emptyIndex })).subarray(0, -10),
      fails: /EOF/,
    },
    { name: 'an archive that is none', bytes: Buffer.alloc(5000, 'rubbish '), fails: /invalid/ },
  ];

  const able = ctrClients().filter(({ transfer, missing }) => transfer && missing === undefined);
  // Their ctr starts faster than ours; what happens, happens in the daemon. So all of it by one, some of it by the other.
  const ofTurn = (index: number) => (index % 6 === 0 ? able[0]! : able.at(-1)!);

  async function pulled(client: CtrClient, reference: string, becomes: HostileLayer['becomes']): Promise<void> {
    const ctr = new CtrSession(client, daemon.address, 'hostile');
    try {
      const { code, stderr } = await ctr.try('images', 'pull', '--plain-http', ...client.pullFlags, reference);
      if (becomes instanceof RegExp) {
        assert.notEqual(code, 0);
        assert.match(stderr, becomes);
      } else {
        assert.equal(code, 0, stderr);
        for (const [name, start] of Object.entries(becomes)) assert.ok(unpacked(name).startsWith(start), name);
      }
    } finally {
      await nothingLeft();
    }
  }

  for (const [index, layer] of hostileLayers(outside).entries()) {
    const client = ofTurn(index);
    test(`${layer.name} (${client.name})`, () => pulled(client, publish(`layers/${index}`, [layer]), layer.becomes));
  }
  for (const [index, { name, prepare, fails }] of images.entries()) {
    const client = ofTurn(index);
    test(`${name} (${client.name})`, () => pulled(client, prepare(`images/${index}`), fails));
  }
  for (const [index, { name, bytes, fails }] of archives.entries()) {
    const client = ofTurn(index);
    test(`${name} (${client.name})`, async () => {
      const file = at('archive.tar');
      writeFileSync(file, bytes);
      const { code, stderr } = await new CtrSession(client, daemon.address, 'hostile').try('images', 'import', file);
      rmSync(file);
      if (fails) {
        assert.notEqual(code, 0);
        assert.match(stderr, fails);
      }
      await nothingLeft();
    });
  }
});
