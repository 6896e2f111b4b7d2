import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { sha256 } from '../metadata/testing-backends.ts';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf, type RequestContext } from '../request-context.ts';

const past = '2020-01-01T00:00:00Z';
const future = '2100-01-01T00:00:00Z';
const target = (digest: string) => ({ mediaType: 'application/vnd.oci.image.index.v1+json', digest, size: 1 });
const pauseMs = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('garbage collection', () => {
  const ctx = contextOf('ns');
  let meta: TestingMetadata;
  beforeEach(async () => {
    meta = await TestingMetadata.open();
  });
  afterEach(() => meta.close());

  const kept = async (): Promise<string[]> => {
    await meta.gc.collect();
    return [...(await meta.digests('ns')), ...(await meta.layers('ns'))].sort();
  };
  const image = (name: string, digest: string, labels: Record<string, string> = {}) =>
    meta.images.create(ctx, { name, labels, target: target(digest) });

  it('takes what nothing refers to, records and bytes', async () => {
    await meta.blob(ctx, 'loose');
    await meta.layer(ctx, 'loose');
    assert.deepEqual(await kept(), []);
    assert.equal(meta.backend.blobs.size, 0);
    assert.equal(meta.bytesBelow.snapshots.size, 0);
    assert.ok(meta.bytesBelow.cleanups > 0);
    assert.ok(meta.topics().includes('ns /snapshot/remove'));
  });

  it('follows an image to its manifest, layers, config and snapshots, parents too', async () => {
    const layer = await meta.blob(ctx, 'layer');
    await meta.layer(ctx, 'base');
    await meta.layer(ctx, 'top', 'base');
    const config = await meta.blob(ctx, 'config', { 'containerd.io/gc.ref.snapshot.memory': 'top' });
    const manifest = await meta.blob(ctx, 'manifest', {
      'containerd.io/gc.ref.content.config': config,
      'containerd.io/gc.ref.content.l.0': layer,
    });
    await image('img', manifest);
    const all = [layer, config, manifest, 'base', 'top'].sort();
    assert.deepEqual(await kept(), all);
    await meta.images.delete(ctx, 'img', { synchronous: true });
    assert.deepEqual(await kept(), []);
    assert.equal(meta.bytesBelow.snapshots.size, 0);
  });

  it('keeps a snapshot that was there already for the lease of who goes on from it', async () => {
    await meta.layer(ctx, 'there');
    await meta.layer(ctx, 'on it', 'there');
    await meta.leases.create(ctx, { id: 'pull', labels: {} });
    const leased = contextOf('ns', 'pull');
    assert.equal(await meta.snapshotters.get(ctx, 'memory').hold(leased, 'on it'), true);
    assert.equal(await meta.snapshotters.get(ctx, 'memory').hold(leased, 'nowhere'), false);
    assert.deepEqual(await kept(), ['on it', 'there']);
    await meta.leases.delete(ctx, 'pull');
    assert.deepEqual(await kept(), []);
    assert.equal(await meta.snapshotters.get(ctx, 'memory').hold(ctx, 'on it'), false);
  });

  it('keeps what a label calls a root, or what is not to expire yet', async () => {
    const root = await meta.blob(ctx, 'root', { 'containerd.io/gc.root': past });
    const young = await meta.blob(ctx, 'young', { 'containerd.io/gc.expire': future });
    await meta.blob(ctx, 'old', { 'containerd.io/gc.expire': past });
    await meta.layer(ctx, 'young layer', '', { 'containerd.io/gc.expire': future });
    await meta.layer(ctx, 'old layer', '', { 'containerd.io/gc.expire': past });
    assert.deepEqual(await kept(), [root, young, 'young layer'].sort());
  });

  it('reads every form of reference label, and no other', async () => {
    const ref = async (name: string, label: string) => {
      const digest = await meta.blob(ctx, name);
      return { [label]: digest };
    };
    const labels = {
      ...(await ref('plain', 'containerd.io/gc.ref.content')),
      ...(await ref('dotted', 'containerd.io/gc.ref.content.x.y')),
      ...(await ref('slashed', 'containerd.io/gc.ref.content/x')),
      ...(await ref('other word', 'containerd.io/gc.ref.contents')),
      'containerd.io/gc.ref.snapshot.memory/one': 's1',
      'containerd.io/gc.ref.snapshot.memory/two': 's2',
      'containerd.io/gc.ref.snapshot.elsewhere': 's3',
      'containerd.io/gc.ref.image.x': 'second',
    };
    for (const name of ['s1', 's2', 's3']) await meta.layer(ctx, name);
    const second = await meta.blob(ctx, 'second target');
    await image('second', second, { 'containerd.io/gc.expire': past });
    const top = await meta.blob(ctx, 'top', labels);
    await image('first', top);
    const texts = ['plain', 'dotted', 'slashed', 'second target'].map((text) => sha256(Buffer.from(text)));
    assert.deepEqual(await kept(), [...texts, top, 's1', 's2'].sort());
    assert.equal((await meta.images.get(ctx, 'second')).name, 'second');
  });

  it('keeps by back references while what they name lives', async () => {
    const top = await meta.blob(ctx, 'top');
    await image('img', top);
    const spec = { typeUrl: 'x', value: new Uint8Array() } as never;
    const container = { labels: {}, image: '', runtime: { name: 'r' }, spec, snapshotter: '', snapshotKey: '' };
    await meta.containers.create(ctx, { id: 'c', ...container, extensions: {}, sandboxId: '' });
    const ofContent = await meta.blob(ctx, 'referrer', { 'containerd.io/gc.bref.content': top });
    const ofImage = await meta.blob(ctx, 'of image', { 'containerd.io/gc.bref.image.x': 'img' });
    await meta.layer(ctx, 'of container', '', { 'containerd.io/gc.bref.container': 'c' });
    await image('expired', ofImage, { 'containerd.io/gc.expire': past, 'containerd.io/gc.bref.image': 'img' });
    await meta.blob(ctx, 'of nobody', { 'containerd.io/gc.bref.image': 'no such' });
    assert.deepEqual(await kept(), [top, ofContent, ofImage, 'of container'].sort());
    assert.equal((await meta.images.list(ctx)).length, 2);
    await meta.containers.delete(ctx, 'c');
    await meta.images.delete(ctx, 'img');
    assert.deepEqual(await kept(), []);
    assert.deepEqual(await meta.images.list(ctx), []);
    assert.ok(meta.topics().filter((topic) => topic === 'ns /images/delete').length === 2);
  });

  it('keeps by conditional references snapshots that were used lately', async () => {
    const used = (ageMs: number) => ({
      'containerd.io/gc.cond.value-usedat': new Date(Date.now() - ageMs).toISOString(),
    });
    await meta.layer(ctx, 'fresh', '', used(60_000));
    await meta.layer(ctx, 'stale', '', used(3 * 3_600_000));
    await meta.layer(ctx, 'unknown');
    const top = await meta.blob(ctx, 'top', {
      'containerd.io/gc.cond.snapshot.memory/a': 'usedat<1h|fresh',
      'containerd.io/gc.cond.snapshot.memory/b': 'usedat<1h|stale',
      'containerd.io/gc.cond.snapshot.memory/c': 'usedat<1h|unknown',
      'containerd.io/gc.cond.snapshot.memory/d': 'nonsense',
    });
    await image('img', top);
    assert.deepEqual(await kept(), [top, 'fresh'].sort());
  });

  it('holds what a lease holds, deeply or flatly, until it ends', async () => {
    const deep = contextOf('ns', 'deep');
    await meta.leases.create(ctx, { id: 'deep', labels: {} });
    await meta.leases.create(ctx, { id: 'flat', labels: { 'containerd.io/gc.flat': past } });
    await meta.leases.create(ctx, { id: 'over', labels: { 'containerd.io/gc.expire': past } });
    const child = await meta.blob(ctx, 'child');
    const parent = await meta.blob(deep, 'parent', { 'containerd.io/gc.ref.content': child });
    const flat = contextOf('ns', 'flat');
    const flatChild = await meta.blob(ctx, 'flat child');
    const flatParent = await meta.blob(flat, 'flat parent', { 'containerd.io/gc.ref.content': flatChild });
    await meta.layer(ctx, 'base');
    await meta.layer(flat, 'top', 'base');
    await meta.blob(contextOf('ns', 'over'), 'held too long');
    assert.deepEqual(await kept(), [child, parent, flatParent, 'base', 'top'].sort());
    assert.deepEqual(
      (await meta.leases.list(ctx)).map(({ id }) => id),
      ['deep', 'flat'],
    );
    await meta.leases.delete(ctx, 'deep');
    await meta.leases.delete(ctx, 'flat', { synchronous: true });
    assert.deepEqual(await kept(), []);
  });

  it('keeps a namespace out of the affairs of another, sharing the bytes', async () => {
    const other = contextOf('other');
    const digest = await meta.blob(ctx, 'shared', { 'containerd.io/gc.root': past });
    await meta.blob(other, 'shared');
    await meta.gc.collect();
    assert.deepEqual(await meta.digests('other'), []);
    assert.deepEqual(await meta.digests('ns'), [digest]);
    assert.ok(meta.backend.blobs.has(digest));
  });

  it('keeps ingests that are leased or young, and ends the others, orphans too', async () => {
    await meta.leases.create(ctx, { id: 'l', labels: {} });
    const open = async (from: RequestContext, ref: string) => {
      const writer = await meta.content.writer(from, { ref });
      await writer.write(Buffer.from(ref));
      await writer.close();
    };
    await open(contextOf('ns', 'l'), 'leased');
    await open(ctx, 'young');
    const orphan = await meta.backend.writer({ ref: 'nobody/1/orphan' });
    await orphan.close();
    await meta.gc.collect();
    assert.deepEqual((await meta.content.listStatuses(ctx)).map(({ ref }) => ref).sort(), ['leased', 'young']);
    assert.equal(meta.backend.ingests.size, 2);
    await meta.leases.delete(ctx, 'l', { synchronous: true });
    assert.deepEqual(
      (await meta.content.listStatuses(ctx)).map(({ ref }) => ref),
      ['young'],
    );
    assert.equal(meta.backend.ingests.size, 1);
  });

  it('keeps of a broken transfer what can be taken up again: ingests whose digest is known', async () => {
    await meta.leases.create(ctx, { id: 'l', labels: {} });
    const held = contextOf('ns', 'l');
    for (const [ref, expected] of [
      ['known', { expected: `sha256:${'a'.repeat(64)}` }],
      ['unknown', {}],
    ] as const) {
      const writer = await meta.content.writer(held, { ref, ...expected });
      await writer.write(Buffer.from(ref));
      await writer.close();
    }
    await meta.leases.delete(ctx, 'l', { keepIngests: true });
    await meta.gc.collect();
    assert.deepEqual(
      (await meta.content.listStatuses(ctx)).map(({ ref }) => ref),
      ['known'],
    );
    assert.equal(meta.backend.ingests.size, 1);
  });

  it('takes bytes and snapshots that no record names, leaves first', async () => {
    const writer = await meta.backend.writer({ ref: 'x' });
    await writer.write(Buffer.from('orphan'));
    await writer.commit();
    await meta.bytesBelow.prepare('a-active', '');
    await meta.bytesBelow.commit('a', 'a-active');
    await meta.bytesBelow.prepare('b', 'a');
    await meta.gc.collect();
    assert.equal(meta.backend.blobs.size, 0);
    assert.equal(meta.bytesBelow.snapshots.size, 0);
    assert.deepEqual(meta.warnings, []);
  });

  it('leaves containers their snapshots', async () => {
    await meta.layer(ctx, 'base');
    await meta.leases.create(ctx, { id: 'l', labels: {} });
    await meta.snapshotter.prepare(contextOf('ns', 'l'), 'rw', 'base');
    const spec = { typeUrl: 'x', value: new Uint8Array() } as never;
    const container = { labels: {}, image: '', runtime: { name: 'r' }, spec, snapshotter: 'memory', snapshotKey: 'rw' };
    await meta.containers.create(ctx, { id: 'c', ...container, extensions: {}, sandboxId: '' });
    await meta.leases.delete(ctx, 'l');
    assert.deepEqual(await kept(), ['base', 'rw']);
    await meta.containers.delete(ctx, 'c');
    assert.deepEqual(await kept(), []);
  });

  it('loses nothing that is leased or referenced, however writers and collections fall', {
    timeout: 60_000,
  }, async () => {
    // Every writer works as a client does: under a lease, then a reference from an image, then the lease ends.
    let stop = false;
    let collections = 0;
    const collecting = (async () => {
      while (!stop) {
        await meta.gc.collect();
        collections++;
        await pauseMs(Math.random() * 3);
      }
    })();
    const writer = async (id: number) => {
      for (let round = 0; round < 25; round++) {
        const lease = `lease-${id}-${round}`;
        await meta.leases.create(ctx, { id: lease, labels: {} });
        const held = contextOf('ns', lease);
        // Few texts, so that writers meet at the same digests.
        const layerText = `layer-${Math.floor(Math.random() * 4)}`;
        const layer = await put(held, layerText);
        assert.equal((await meta.content.info(held, layer)).digest, layer, 'leased blob is there');
        const snapshot = `snap-${Math.floor(Math.random() * 4)}`;
        await snap(held, snapshot);
        const manifestText = `manifest-${id}-${round}`;
        const manifest = await put(held, manifestText, {
          'containerd.io/gc.ref.content.l.0': layer,
          'containerd.io/gc.ref.snapshot.memory': snapshot,
        });
        await meta.images.create(held, { name: `image-${id}`, labels: {}, target: target(manifest) });
        await meta.leases.delete(ctx, lease, { synchronous: Math.random() < 0.3 });
        await pauseMs(Math.random() * 2);
        for (const [digest, text] of [
          [layer, layerText],
          [manifest, manifestText],
        ] as const) {
          await using reader = await meta.content.reader(ctx, digest);
          assert.equal(Buffer.from(await reader.read(0, reader.size)).toString(), text);
        }
        const { name } = await meta.snapshotter.stat(ctx, snapshot);
        assert.ok((await meta.snapshotter.usage(ctx, name)).size > 0);
        await meta.images.delete(ctx, `image-${id}`);
      }
    };
    const put = async (held: RequestContext, text: string, labels: Record<string, string> = {}) => {
      const bytes = Buffer.from(text);
      const digest = sha256(bytes);
      for (;;) {
        try {
          const opened = await meta.content.writer(held, {
            ref: `${held.lease}-${text}`,
            size: bytes.length,
            ...(Math.random() < 0.7 ? { expected: digest } : {}),
          });
          try {
            if (opened.status().offset < bytes.length) await opened.write(bytes.subarray(opened.status().offset));
            await opened.commit({ expected: digest, labels });
          } finally {
            await opened.close();
          }
        } catch (error) {
          if (!hasCode(error, Code.AlreadyExists)) throw error;
        }
        return digest;
      }
    };
    const snap = async (held: RequestContext, name: string) => {
      const key = `extract-${held.lease}-${name}`;
      try {
        await meta.snapshotter.prepare(held, key, '', { labels: { 'containerd.io/snapshot.ref': name } });
        await meta.snapshotter.commit(held, name, key);
      } catch (error) {
        if (!hasCode(error, Code.AlreadyExists)) throw error;
      }
      await meta.leases.addResource(held, held.lease!, { type: 'snapshots/memory', id: name });
      try {
        await meta.snapshotter.stat(held, name);
      } catch (error) {
        // It may have gone before we held it: again.
        if (!hasCode(error, Code.NotFound)) throw error;
        await snap(held, name);
      }
    };
    try {
      await Promise.all([0, 1, 2, 3, 4, 5].map(writer));
    } finally {
      stop = true;
      await collecting;
    }
    assert.ok(collections > 20, `only ${collections} collections`);
    assert.deepEqual(await kept(), []);
    assert.equal(meta.backend.blobs.size, 0);
    assert.equal(meta.backend.ingests.size, 0);
    assert.equal(meta.bytesBelow.snapshots.size, 0);
    assert.deepEqual(meta.warnings, []);
  });
});
