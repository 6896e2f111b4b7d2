import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import zlib from 'node:zlib';
import { Code, hasCode } from '@gantry/api';
import { listTree, makeTar } from '@gantry/archive/testing/fixtures.ts';
import { type Mount, readonlyMounts, withTempMount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { ContentStore } from '../content/content-store.ts';
import { contextOf } from '../request-context.ts';
import type { Differ } from './differ.ts';

/** How the contract gets at an implementation: the differ, and the store it reads from and writes to. */
export interface DifferUnderTest {
  differ: Differ;
  content: ContentStore;
  close(): Promise<void>;
}

const ctx = contextOf('differ-contract', 'a-lease');
const tarType = 'application/vnd.oci.image.layer.v1.tar';
const gzipType = `${tarType}+gzip`;
const zstdType = `${tarType}+zstd`;
const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const pack = { [tarType]: (b: Buffer) => b, [gzipType]: zlib.gzipSync, [zstdType]: zlib.zstdCompressSync };

const withCode = (code: Code, message: RegExp) => (reason: unknown) => {
  assert.ok(hasCode(reason, code), `expected code ${code}, got ${reason}`);
  assert.match((reason as Error).message, message);
  return true;
};

const layer = makeTar(
  { path: 'etc/' },
  { path: 'etc/new', content: 'new', mode: 0o4755, uid: 5, gid: 6 },
  { path: 'etc/.wh.gone' },
  { path: 'opt/.wh..wh..opq' },
  { path: 'opt/fresh', content: 'fresh', xattrs: [['user.note', Buffer.from('n')]] },
  { path: 'hard', type: '1', linkPath: 'etc/new', mode: 0o4755, uid: 5, gid: 6 },
  { path: 'soft', type: '2', linkPath: 'etc/new' },
);

/** What every Differ has to do. Mounts, so it needs root; without it every test is skipped, saying so. */
export function differContract(name: string, open: () => Promise<DifferUnderTest>): void {
  const skip = process.getuid?.() === 0 ? false : 'mounting layers needs root';
  describe(`differ contract: ${name}`, { skip }, () => {
    let under: DifferUnderTest;
    let scratch: string;
    const at = (...names: string[]) => path.join(scratch, ...names);

    beforeEach(async () => {
      under = await open();
      scratch = await mkdtemp(path.join(tmpdir(), 'gantry-differ-'));
      for (const directory of ['lower', 'upper', 'work', 'bind', 'temp']) await mkdir(at(directory));
      const fill =
        'mkdir etc opt; echo 1 > etc/gone; echo 2 > etc/kept; echo 3 > opt/old; touch -d @1500000000 etc/kept opt';
      for (const directory of ['lower', 'bind']) execFileSync('sh', ['-ec', fill], { cwd: at(directory) });
    });
    afterEach(async () => {
      await under.close();
      await rm(scratch, { recursive: true });
    });

    const overlay = (): Mount[] => [
      {
        type: 'overlay',
        source: 'overlay',
        options: [`lowerdir=${at('lower')}`, `upperdir=${at('upper')}`, `workdir=${at('work')}`],
      },
    ];
    const bind = (directory: string): Mount[] => [{ type: 'bind', source: at(directory), options: ['rbind', 'rw'] }];
    const store = async (bytes: Buffer, mediaType: string): Promise<Descriptor> => {
      const writer = await under.content.writer(ctx, { ref: 'contract-input' });
      await writer.write(bytes);
      await writer.commit();
      await writer.close();
      return { mediaType, digest: sha256(bytes), size: bytes.length };
    };
    const list = (mounts: Mount[]) => withTempMount(readonlyMounts(mounts), at('temp'), async (root) => listTree(root));
    const names = async (mounts: Mount[]) => (await list(mounts)).map((line) => line.split(' ')[0]);
    const applied = ['etc', 'etc/kept', 'etc/new', 'hard', 'opt', 'opt/fresh', 'soft'];

    for (const [mediaType, packed] of Object.entries(pack)) {
      it(`applies ${mediaType} to an overlay and to a bind mount alike`, async () => {
        const descriptor = await store(packed(layer), mediaType);
        const expected = { mediaType: tarType, digest: sha256(layer), size: layer.length };
        assert.deepEqual(await under.differ.apply(ctx, descriptor, overlay()), expected);
        assert.deepEqual(await under.differ.apply(ctx, descriptor, bind('bind'), { syncFs: true }), expected);
        assert.deepEqual(await names(overlay()), applied);
        assert.deepEqual(await names(bind('bind')), applied);
      });
    }

    it('applies to mounts it has to perform, and leaves none behind', async () => {
      const descriptor = await store(layer, tarType);
      await mkdir(at('lower/inner'));
      await under.differ.apply(ctx, descriptor, [...overlay(), { ...bind('bind')[0]!, target: 'inner' }]);
      assert.deepEqual(await names(overlay()), [...applied.slice(0, 4), 'inner', ...applied.slice(4)]);
      const mounts = execFileSync('cat', ['/proc/self/mountinfo'], { encoding: 'utf8' });
      assert.ok(!mounts.includes(scratch));
    });

    it('looks at the bytes, not at the name, for the compression', async () => {
      const docker = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
      await under.differ.apply(ctx, await store(layer, docker), bind('bind'));
      assert.deepEqual(await names(bind('bind')), applied);
    });

    it('answers Unimplemented to what it does not know, so that another differ is asked', async () => {
      const descriptor = await store(layer, tarType);
      for (const mediaType of [`${gzipType}+encrypted`, 'application/octet-stream', '']) {
        const applying = under.differ.apply(ctx, { ...descriptor, mediaType }, bind('bind'));
        await assert.rejects(applying, withCode(Code.Unimplemented, /no processor for media-type/));
      }
      const diffing = under.differ.diff(ctx, bind('lower'), bind('bind'), { mediaType: 'application/x-other' });
      await assert.rejects(diffing, withCode(Code.Unimplemented, /unsupported diff media type/));
    });

    it('refuses a blob that is missing, broken or cut short', async () => {
      const missing = { mediaType: tarType, digest: sha256(Buffer.from('nothing')), size: 7 };
      await assert.rejects(under.differ.apply(ctx, missing, bind('bind')), withCode(Code.NotFound, /not found/));
      const cut = await store(zlib.gzipSync(layer).subarray(0, -20), gzipType);
      await assert.rejects(under.differ.apply(ctx, cut, bind('bind')));
    });

    it('stops when the caller gives up', async () => {
      const descriptor = await store(layer, tarType);
      const signal = AbortSignal.abort(new Error('gave up'));
      await assert.rejects(under.differ.apply({ ...ctx, signal }, descriptor, bind('bind')), /gave up/);
      await assert.rejects(under.differ.diff({ ...ctx, signal }, bind('lower'), bind('bind')), /gave up/);
    });

    for (const mediaType of Object.keys(pack)) {
      it(`compares to a ${mediaType} that gives the same tree again`, async () => {
        await under.differ.apply(ctx, await store(layer, tarType), overlay());
        const made = await under.differ.diff(ctx, bind('lower'), overlay(), { mediaType, labels: { mine: 'yes' } });
        assert.equal(made.mediaType, mediaType);
        const info = await under.content.info(ctx, made.digest);
        assert.equal(info.size, made.size);
        assert.equal(info.labels['mine'], 'yes');
        const result = await under.differ.apply(ctx, made, bind('bind'));
        assert.equal(info.labels['containerd.io/uncompressed'], result.digest);
        assert.deepEqual(await list(bind('bind')), await list(overlay()));
        assert.deepEqual(await under.content.listStatuses(ctx), []);
      });
    }

    it('takes the whole upper tree as new without a lower one, gzip by default', async () => {
      const made = await under.differ.diff(ctx, [], bind('lower'));
      assert.equal(made.mediaType, gzipType);
      await mkdir(at('empty'));
      await under.differ.apply(ctx, made, bind('empty'));
      assert.deepEqual(await list(bind('empty')), await list(bind('lower')));
    });

    it('gives the same digest twice; a layer that is there already is no error and gets its label', async () => {
      await under.differ.apply(ctx, await store(layer, tarType), bind('bind'));
      const options = { sourceDateEpoch: 1_000_000_000n, ref: 'my-ref' };
      const first = await under.differ.diff(ctx, bind('lower'), bind('bind'), options);
      const diffId = (await under.content.info(ctx, first.digest)).labels['containerd.io/uncompressed'];
      await under.content.update(ctx, { digest: first.digest, labels: {} }, ['labels']);
      assert.deepEqual(await under.differ.diff(ctx, bind('lower'), bind('bind'), options), first);
      const { labels } = await under.content.info(ctx, first.digest);
      assert.deepEqual(labels, { 'containerd.io/uncompressed': diffId });
    });
  });
}
