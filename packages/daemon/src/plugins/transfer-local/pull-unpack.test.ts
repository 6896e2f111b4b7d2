import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { packAny } from '@gantry/api';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { withTempMount } from '@gantry/mount';
import { chainIds, digestOf, MediaType } from '@gantry/oci';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { contextOf } from '../../core/request-context.ts';
import { createDaemon } from '../../server/daemon.ts';
import { daemonOptions, listing, tar } from './testing-daemon.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: snapshots are mounted and files get owners';
const ctx = contextOf('default');
const linux = { os: 'linux', architecture: 'amd64' };
const directory = mkdtempSync(path.join(tmpdir(), 'gantry-transfer-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** Layers in which each needs another kind of care when it is unpacked without those below. */
const layers: Buffer[] = [
  tar([
    { path: 'etc/' },
    { path: 'etc/keep', text: 'kept' },
    { path: 'etc/gone', text: 'gone' },
    { path: 'tmp/', mode: 0o1777 },
    { path: 'old/' },
    { path: 'old/file', text: 'old' },
    { path: 'lib', type: '2', link: 'usr/lib' },
    { path: 'usr/' },
    { path: 'usr/lib/', uid: 7 },
  ]),
  tar([{ path: 'etc/' }, { path: 'etc/.wh.gone' }, { path: 'etc/new', text: 'x'.repeat(100_000) }]),
  tar([{ path: 'old/' }, { path: 'old/.wh..wh..opq' }, { path: 'old/fresh', text: 'fresh' }]),
  // The directory is left out: it has to keep the mode it has below.
  tar([{ path: 'tmp/deep', text: 'deep' }]),
  tar([
    { path: 'own', text: 'own' },
    { path: 'link', type: '1', link: 'own' },
  ]),
  tar([{ path: 'usr/lib/so', text: 'so' }]),
];

function addImage(registry: TestingRegistry, tars: readonly Buffer[], tag: string): string[] {
  const diffIds = tars.map((bytes) => digestOf(bytes));
  const blobs = tars.map((bytes) => ({ mediaType: MediaType.OciLayerGzip, ...registry.addBlob('a', gzipSync(bytes)) }));
  const document = { ...linux, rootfs: { type: 'layers', diff_ids: diffIds } };
  const config = { mediaType: MediaType.OciConfig, ...registry.addBlob('a', JSON.stringify(document)) };
  registry.addManifest('a', MediaType.OciManifest, { schemaVersion: 2, config, layers: blobs }, tag);
  return chainIds(diffIds);
}

async function startDaemon(name: string, unpacks: number) {
  const daemon = await createDaemon(daemonOptions(directory, name, unpacks));
  await daemon.start();
  return { get: daemon.get.bind(daemon), [Symbol.asyncDispose]: () => daemon.close() };
}

async function pulled(name: string, snapshotter: string, unpacks: number): Promise<string[]> {
  await using registry = await TestingRegistry.start();
  const chain = addImage(registry, layers, 'v1');
  await using daemon = await startDaemon(name, unpacks);
  const reference = `${registry.host}/a:v1`;
  await daemon
    .get(PluginTypes.Transfer, 'local')
    .transfer(
      ctx,
      packAny(OCIRegistrySchema, { reference }),
      packAny(ImageStoreSchema, { name: reference, platforms: [linux], unpacks: [{ platform: linux, snapshotter }] }),
    );
  const { snapshotters, leases } = daemon.get(PluginTypes.Metadata, 'bolt');
  const snapshots = snapshotters.get(ctx, snapshotter);
  const names: string[] = [];
  for await (const info of snapshots.list(ctx)) names.push(`${info.kind} ${info.name} on ${info.parent}`);
  assert.deepEqual(names.sort(), chain.map((id, index) => `committed ${id} on ${chain[index - 1] ?? ''}`).sort());
  assert.deepEqual(await leases.list(ctx), []);
  // Not for the collector.
  const labels = { 'containerd.io/gc.root': 'now' };
  const mounts = await snapshots.view(ctx, 'look', chain.at(-1) ?? '', { labels });
  const found = await withTempMount(mounts, path.join(directory, name), async (root) => listing(root));
  await snapshots.remove(ctx, 'look');
  return found;
}

test('layers unpacked side by side give what layers one after another give', { skip }, async () => {
  const expected = await pulled('native', 'native', 1);
  assert.ok(expected.some((line) => line.startsWith('tmp 41777 0')));
  assert.ok(expected.some((line) => line.startsWith('link ')));
  assert.ok(!expected.some((line) => line.startsWith('etc/gone') || line.startsWith('old/file')));
  assert.deepEqual(await pulled('in-order', 'overlayfs', 1), expected);
  assert.deepEqual(await pulled('side-by-side', 'overlayfs', 4), expected);
});

test('a layer that cannot be unpacked fails the pull and leaves no snapshot', { skip }, async () => {
  await using registry = await TestingRegistry.start();
  const broken = Buffer.concat([layers[0]?.subarray(0, 2000) ?? Buffer.alloc(0), Buffer.from('no tar'.repeat(500))]);
  addImage(registry, [layers[0] ?? broken, layers[1] ?? broken, broken], 'bad');
  await using daemon = await startDaemon('broken', 4);
  const reference = `${registry.host}/a:bad`;
  const transfer = daemon.get(PluginTypes.Transfer, 'local');
  const to = packAny(ImageStoreSchema, { name: reference, platforms: [linux], unpacks: [{ platform: linux }] });
  await assert.rejects(
    transfer.transfer(ctx, packAny(OCIRegistrySchema, { reference }), to),
    /failed to extract layer \(application\/vnd.oci.image.layer.v1.tar\+gzip sha256:/,
  );
  const { snapshotters, images } = daemon.get(PluginTypes.Metadata, 'bolt');
  for await (const info of snapshotters.get(ctx, '').list(ctx)) assert.equal(info.kind, 'committed');
  assert.deepEqual(await images.list(ctx), []);
});
