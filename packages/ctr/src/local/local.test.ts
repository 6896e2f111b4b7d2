import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Descriptor, Limiter } from '@gantry/client';
import { Annotation, allPlatforms, MediaType, parsePlatform, strictPlatform } from '@gantry/oci';
import { inBatches } from '../batches.ts';
import { mountSource, sourceLabels, sourceOf } from './distribution-source.ts';
import { wantedChildren } from './image-tree.ts';
import { imageName } from './import-archive.ts';

const descriptor = (mediaType: string, rest: Partial<Descriptor> = {}): Descriptor => ({
  mediaType,
  digest: `sha256:${'0'.repeat(64)}`,
  size: 1,
  ...rest,
});

describe('what --local stands on', () => {
  it('names imported images as containerd does', () => {
    const name = (annotations: Record<string, string>, base = 'example.com/app', filter = true) =>
      imageName({ annotations }, { base, filter });
    const ref = (text: string) => ({ [Annotation.RefName]: text });
    assert.equal(name({ [Annotation.ImageName]: 'docker.io/library/x:1', ...ref('1') }), 'docker.io/library/x:1');
    assert.equal(name(ref('v1')), 'example.com/app:v1');
    assert.equal(name(ref('example.com/app:v2')), 'example.com/app:v2');
    assert.equal(name(ref('example.com/app/more:v2')), 'example.com/app/more:v2');
    assert.equal(name(ref('example.com/apple:v2')), '', 'another name that begins alike');
    assert.equal(name(ref('other.example.com/x:1')), '');
    assert.equal(name(ref('other.example.com/x:1'), 'import-2026-11-28', false), 'other.example.com/x:1');
    assert.equal(name({}), '');
  });

  it('remembers from which repositories a blob came', () => {
    const { key, repository } = sourceOf('localhost:5000/a/b:1');
    assert.deepEqual([key, repository], ['containerd.io/distribution.source.localhost', 'a/b']);
    assert.deepEqual(sourceLabels({ [key]: 'x/y' }, 'localhost:5000/a/b:1'), { [key]: 'a/b,x/y' });
    assert.deepEqual(sourceLabels({ [key]: 'a/b' }, 'localhost:5000/a/b:1'), {});
    assert.deepEqual(sourceLabels({ [key]: 'x'.repeat(4090) }, 'localhost:5000/a/b:1'), {}, 'labels end somewhere');
    assert.equal(mountSource({ [key]: 'a/b,c/d' }, 'localhost:5000/a/b:1'), 'c/d');
    assert.equal(mountSource({ [key]: 'a/b' }, 'localhost:5000/a/b:1'), undefined);
    assert.equal(mountSource({ [key]: 'c/d' }, 'example.com/a/b:1'), undefined, 'of another registry');
  });

  it('goes on to the parts that are wanted', () => {
    const amd = descriptor(MediaType.OciManifest, { platform: parsePlatform('linux/amd64') });
    const arm = descriptor(MediaType.OciManifest, { platform: parsePlatform('linux/arm64') });
    const index = descriptor(MediaType.OciIndex);
    const parts = [descriptor(MediaType.OciConfig), descriptor(MediaType.OciLayerGzip)];
    const platforms = strictPlatform(parsePlatform('linux/arm64'));
    assert.deepEqual(wantedChildren(index, [amd, arm], { platforms, allMetadata: false }), [arm]);
    assert.deepEqual(wantedChildren(index, [amd, arm], { platforms, allMetadata: true }), [amd, arm]);
    assert.deepEqual(wantedChildren(amd, parts, { platforms, allMetadata: true }), parts.slice(0, 1));
    assert.deepEqual(wantedChildren(arm, parts, { platforms, allMetadata: true }), parts);
    assert.deepEqual(
      wantedChildren(descriptor(MediaType.OciManifest), parts, {
        platforms: allPlatforms,
        allMetadata: true,
        metadataOnly: true,
      }),
      parts.slice(0, 1),
    );
  });

  it('gathers small pieces without losing any', async () => {
    const pieces = async function* () {
      for (let at = 0; at < 10; at++) yield Buffer.from(String(at));
    };
    const batches: string[] = [];
    for await (const batch of inBatches(pieces(), 4)) batches.push(Buffer.from(batch).toString());
    assert.deepEqual(batches, ['0123', '4567', '89']);
  });

  it('runs so many at a time, and goes on when one fails', async () => {
    const limiter = new Limiter(2);
    let running = 0;
    let most = 0;
    const work = (at: number) => async () => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
      if (at === 1) throw new Error('broken');
      return at;
    };
    const results = await Promise.allSettled([0, 1, 2, 3, 4].map((at) => limiter.run(work(at))));
    assert.equal(most, 2);
    assert.deepEqual(
      results.map((result) => (result.status === 'fulfilled' ? result.value : 'broken')),
      [0, 'broken', 2, 3, 4],
    );
  });
});
