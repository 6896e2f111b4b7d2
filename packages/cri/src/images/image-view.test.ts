import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Code, hasCode } from '@gantry/api';
import { TestingMetadata } from '@gantry/daemon/core/metadata/testing-metadata.ts';
import type { Transferrer } from '@gantry/daemon/core/transfer/transferrer.ts';
import { type Descriptor, defaultPlatform, MediaType } from '@gantry/oci';
import type { ImagesConfig } from '../config/images-config.ts';
import { CriImages } from './cri-images.ts';
import { followImages } from './follow-images.ts';
import { ImageView } from './image-view.ts';

const ctx = { namespace: 'k8s.io' };

describe('the images that CRI sees', () => {
  let meta: TestingMetadata;
  let images: CriImages;
  let stop: () => Promise<void>;
  beforeEach(async () => {
    meta = await TestingMetadata.open();
    images = new CriImages({
      config: { registry: {}, pinned_images: { sandbox: 'pinned.test/pause:1' } } as unknown as ImagesConfig,
      images: meta.images,
      content: meta.content,
      transfer: {} as Transferrer,
      collect: () => meta.gc.collect(),
      flush: () => meta.store.flush(),
      log: meta.log,
    });
    stop = followImages(images, meta.exchange, meta.log);
  });
  afterEach(async () => {
    await stop();
    await meta.close();
  });

  /** The blobs of an image without layers; answers its target. */
  async function content(text: string): Promise<Descriptor> {
    const { os, architecture } = defaultPlatform();
    const config = JSON.stringify({
      os,
      architecture,
      config: { Env: [text] },
      rootfs: { type: 'layers', diff_ids: [] },
    });
    const described = {
      mediaType: MediaType.OciConfig,
      digest: await meta.blob(ctx, config, { 'containerd.io/gc.root': 'now' }),
      size: config.length,
    };
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.OciManifest,
      config: described,
      layers: [],
    });
    const digest = await meta.blob(ctx, manifest, { 'containerd.io/gc.root': 'now' });
    return { mediaType: MediaType.OciManifest, digest, size: manifest.length };
  }

  /** What somebody sees who reads all records now. */
  async function truth() {
    const view = new ImageView({ images: meta.images, content: meta.content, log: meta.log });
    await view.refresh(ctx);
    return view.list();
  }

  const settled = async () => {
    await turn();
    return await images.list(ctx);
  };

  async function eventually(holds: () => Promise<boolean>, what: string): Promise<void> {
    for (const startedAt = performance.now(); !(await holds()); await turn()) {
      if (performance.now() - startedAt < 60_000) continue;
      assert.deepEqual(await settled(), await truth(), what);
    }
  }

  it('are shown when they are as CRI’s are: one that came otherwise has its labels and its id first', async () => {
    const target = await content('pause');
    await meta.images.create(ctx, { name: 'pinned.test/pause:1', labels: {}, target });
    const image = await images.get(ctx, 'pinned.test/pause:1');
    assert.ok(image.pinned);
    const labels = async (name: string) => (await meta.images.get(ctx, name)).labels;
    const managed = { 'io.cri-containerd.image': 'managed' };
    assert.deepEqual(await labels('pinned.test/pause:1'), { ...managed, 'io.cri-containerd.pinned': 'pinned' });
    assert.deepEqual(await labels(image.id), managed);
  });

  it('are true after every kind of change, whoever makes it and in whatever order', async () => {
    const targets = await Promise.all(['a', 'b', 'c'].map(content));
    const names = ['r/x:1', 'r/x:2', 'r/y:1', `r/x@${targets[0]!.digest}`];
    let seed = 7;
    const below = (limit: number): number => {
      seed = (seed * 48271) % 2147483647;
      return seed % limit;
    };
    const target = () => targets[below(targets.length)]!;
    const changes: ((name: string) => Promise<unknown>)[] = [
      (name) => meta.images.create(ctx, { name, labels: {}, target: target() }),
      (name) => meta.images.update(ctx, { name, labels: {}, target: target() }, ['target']),
      (name) =>
        meta.images.update(ctx, { name, labels: { 'io.cri-containerd.pinned': 'pinned' }, target: target() }, [
          'labels',
        ]),
      (name) => meta.images.delete(ctx, name),
      (name) => meta.images.delete({ ...ctx, step: true }, name),
      // The collector takes this one.
      (name) =>
        meta.images.update(
          ctx,
          { name, labels: { 'containerd.io/gc.expire': '2020-01-01T00:00:00Z' }, target: target() },
          ['labels'],
        ),
      () => meta.gc.collect(),
      (name) => images.remove(ctx, name),
      (name) => images.find(ctx, name),
    ];
    for (let round = 0; round < 150; round++) {
      const some = Array.from({ length: 1 + below(4) }, () =>
        changes[below(changes.length)]!(names[below(names.length)]!),
      );
      for (const { status, reason } of (await Promise.allSettled(some)) as PromiseRejectedResult[]) {
        if (status !== 'rejected') continue;
        assert.ok(hasCode(reason, Code.NotFound) || hasCode(reason, Code.AlreadyExists), String(reason));
      }
      // Those made here are adopted meanwhile, which changes them again.
      await eventually(async () => isDeepStrictEqual(await settled(), await truth()), `round ${round}`);
    }
  });

  it('are told when their blobs come later than their names', async () => {
    const described = await content('late');
    const bytes = Buffer.from(meta.backend.blobs.get(described.digest)!.bytes);
    await meta.content.delete(ctx, described.digest);
    const name = 'r/late:1';
    await meta.images.create(ctx, { name, labels: {}, target: described });
    assert.deepEqual(await settled(), []);
    assert.equal(await images.find(ctx, name), undefined);
    await meta.blob(ctx, bytes.toString());
    assert.deepEqual((await settled())[0]?.tags, [name]);
    assert.equal((await images.find(ctx, name))?.manifest, described.digest);
  });

  it('go with all their names, and their content with them', async () => {
    const described = await content('gone');
    await meta.content.update(ctx, { digest: described.digest, labels: {} }, ['labels']);
    for (const name of ['r/gone:1', 'r/gone:2', `r/gone@${described.digest}`]) {
      await meta.images.create(ctx, { name, labels: {}, target: described });
    }
    await images.remove(ctx, 'r/gone:1');
    assert.deepEqual(await meta.images.list(ctx), []);
    assert.deepEqual(await images.list(ctx), []);
    assert.equal((await meta.digests('k8s.io')).includes(described.digest), false);
    assert.equal(meta.backend.blobs.has(described.digest), false);
    await images.remove(ctx, 'r/gone:1');
  });
});
