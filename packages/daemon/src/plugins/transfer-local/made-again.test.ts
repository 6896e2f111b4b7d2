import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, mock, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Code, hasCode, packAny } from '@gantry/api';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { withTempMount } from '@gantry/mount';
import { chainIds, digestOf, MediaType } from '@gantry/oci';
import { TestingRegistry } from '@gantry/registry/testing-registry.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { contextOf } from '../../core/request-context.ts';
import { MetadataSnapshotter } from '../../core/snapshots/metadata-snapshotter.ts';
import { createDaemon } from '../../server/daemon.ts';
import { daemonOptions, listing, tar } from './testing-daemon.ts';

/**
 * A pull answers before its snapshots are on disk. What a power cut has taken of them is unpacked again, from the layers, before the next
 * daemon serves. Here the cut is a copy of the root in which files have lost their bytes.
 */
const skip = process.getuid?.() === 0 ? false : 'needs root: snapshots are mounted and files get owners';
const ctx = contextOf('default');
/** The collector is at work from the start. */
const held = { 'containerd.io/gc.root': 'yes' };
const linux = { os: 'linux', architecture: 'amd64' };
const layers = [
  tar([
    { path: 'etc/', uid: 5 },
    { path: 'etc/keep', text: 'kept' },
    { path: 'etc/gone', text: 'gone' },
    { path: 'old/' },
  ]),
  tar([{ path: 'etc/.wh.gone' }, { path: 'etc/new', text: 'x'.repeat(100_000) }]),
  tar([
    { path: 'old/' },
    { path: 'old/.wh..wh..opq' },
    { path: 'own', text: 'own' },
    { path: 'link', type: '1', link: 'own' },
  ]),
];
const chain = chainIds(layers.map((bytes) => digestOf(bytes)));

async function open(directory: string, name: string) {
  const daemon = await createDaemon(daemonOptions(directory, name, 4));
  await daemon.start();
  const metadata = daemon.get(PluginTypes.Metadata, 'bolt');
  const snapshots = metadata.snapshotters.get(ctx, 'overlayfs');
  const seen = async (): Promise<string[]> => {
    const mounts = await snapshots.view(ctx, 'look', chain.at(-1) ?? '', { labels: held });
    const found = await withTempMount(mounts, path.join(directory, name), async (root) => listing(root));
    await snapshots.remove(ctx, 'look');
    return found;
  };
  const get = daemon.get.bind(daemon);
  return { get, metadata, snapshots, seen, [Symbol.asyncDispose]: () => daemon.close() };
}

describe('snapshots that were not on disk when the machine stopped', { skip }, () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-again-'));
  const snapshotsOf = (name: string) =>
    path.join(directory, name, 'root/io.containerd.snapshotter.v1.overlayfs/snapshots');
  let expected: string[];

  before(async () => {
    // It comes after a second, or with a collection.
    const settling = mock.method(MetadataSnapshotter.prototype, 'settle', () => Promise.resolve());
    await using registry = await TestingRegistry.start();
    const rootfs = { type: 'layers', diff_ids: layers.map((bytes) => digestOf(bytes)) };
    const blobs = layers.map((bytes) => ({
      mediaType: MediaType.OciLayerGzip,
      ...registry.addBlob('a', gzipSync(bytes)),
    }));
    const config = { mediaType: MediaType.OciConfig, ...registry.addBlob('a', JSON.stringify({ ...linux, rootfs })) };
    registry.addManifest('a', MediaType.OciManifest, { schemaVersion: 2, config, layers: blobs }, 'v1');
    await using daemon = await open(directory, 'live');
    const reference = `${registry.host}/a:v1`;
    const unpacks = [{ platform: linux, snapshotter: 'overlayfs' }];
    const to = packAny(ImageStoreSchema, { name: 'image', platforms: [linux], unpacks });
    await daemon.get(PluginTypes.Transfer, 'local').transfer(ctx, packAny(OCIRegistrySchema, { reference }), to);
    await daemon.snapshots.prepare(ctx, 'active', chain.at(-1) ?? '', { labels: held });
    // Answered, and nothing has synced the snapshots: this is the moment.
    for (const name of ['cut', 'cut-without-layer', 'killed']) {
      execFileSync('mkdir', [path.join(directory, name)]);
      execFileSync('cp', ['-a', path.join(directory, 'live/root'), path.join(directory, name, 'root')]);
    }
    execFileSync('cp', ['-a', path.join(directory, 'live/state'), path.join(directory, 'killed/state')]);
    settling.mock.restore();
    expected = await daemon.seen();
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  /** What is in them is lost; the record of what they were is not. */
  function damage(name: string): void {
    for (const entry of readdirSync(snapshotsOf(name), { recursive: true, withFileTypes: true })) {
      const file = path.join(entry.parentPath, entry.name);
      if (entry.isFile()) truncateSync(file, 0);
    }
    const [, second = ''] = readdirSync(snapshotsOf(name)).sort((a, b) => Number(a) - Number(b));
    rmSync(path.join(snapshotsOf(name), second), { recursive: true });
  }

  test('they are unpacked again before anyone is served, and a snapshot on them goes on', async () => {
    damage('cut');
    for (let start = 0; start < 2; start++) {
      await using daemon = await open(directory, 'cut');
      assert.deepEqual(await daemon.seen(), expected);
      await daemon.snapshots.mounts(ctx, 'active');
      await daemon.metadata.gc.collect();
      assert.deepEqual(await daemon.seen(), expected);
    }
  });

  test('without its layer such a snapshot cannot be used, nor what is on it', async () => {
    damage('cut-without-layer');
    const blobs = path.join(directory, 'cut-without-layer/root/io.containerd.content.v1.content/blobs/sha256');
    const digests = readdirSync(blobs);
    const packed = gzipSync(layers[0]!).length;
    rmSync(path.join(blobs, digests.find((name) => statSync(path.join(blobs, name)).size === packed) ?? ''));
    await using daemon = await open(directory, 'cut-without-layer');
    await assert.rejects(daemon.seen(), (error) => hasCode(error, Code.FailedPrecondition));
    await assert.rejects(daemon.snapshots.mounts(ctx, 'active'), (error) => hasCode(error, Code.FailedPrecondition));
    await daemon.snapshots.remove(ctx, 'active');
  });

  test('after kill -9 the kernel still has them: nothing is unpacked', async () => {
    const times = (): number[] =>
      readdirSync(snapshotsOf('killed')).map((id) => statSync(path.join(snapshotsOf('killed'), id)).ctimeMs);
    const before = times();
    await using daemon = await open(directory, 'killed');
    assert.deepEqual(times(), before);
    assert.deepEqual(await daemon.seen(), expected);
  });

  test('once they are on disk, their layers are no longer needed for that', async () => {
    await using daemon = await open(directory, 'live');
    await daemon.metadata.images.delete(ctx, 'image');
    await daemon.metadata.gc.collect();
    for await (const { digest } of daemon.metadata.content.list(ctx)) assert.fail(`${digest} is kept`);
    await daemon.snapshots.mounts(ctx, 'active');
  });
});
