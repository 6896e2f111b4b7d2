import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import zlib from 'node:zlib';
import { Code, hasCode } from '@gantry/api';
import { WorkerPool } from '@gantry/archive';
import { type FixtureEntry, listTree, makeTar } from '@gantry/archive/testing/fixtures.ts';
import { type Mount, unmountRecursive } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import { differContract } from '../../core/diff/differ-contract.ts';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { TestingMetadata } from '../../core/metadata/testing-metadata.ts';
import { TestingMounts } from '../../core/mounts/testing-mounts.ts';
import { contextOf } from '../../core/request-context.ts';
import { DifferChain } from '../../services/diff.ts';
import { WalkingDiffer } from '../diff-walking/walking-differ.ts';
import { ErofsSnapshotter } from '../snapshot-erofs/erofs-snapshotter.ts';
import { ErofsDiffer, type ErofsDifferOptions } from './erofs-differ.ts';

const kernel = /^\s*erofs$/m.test(readFileSync('/proc/filesystems', 'utf8'));
const skip = process.getuid?.() !== 0 ? 'needs root' : kernel ? false : 'the kernel has no erofs';
const pool = new WorkerPool();
after(() => pool.close());
const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const tarType = 'application/vnd.oci.image.layer.v1.tar';
const nativeType = 'application/vnd.erofs.layer.v1';

async function open(options: Partial<ErofsDifferOptions> = {}) {
  const directory = await mkdtemp(path.join(tmpdir(), 'gantry-erofs-differ-'));
  const meta = await TestingMetadata.open();
  const mounts = await TestingMounts.open(directory);
  const { content, log } = meta;
  const walking = new WalkingDiffer({ content, pool, temp: path.join(directory, 'tmp'), mounts: mounts.manager, log });
  const base = { content, pool, mounts: mounts.manager, walking, tarIndex: false, log };
  const root = path.join(directory, 'r');
  await mkdir(root);
  const snapshotter = await ErofsSnapshotter.open(
    root,
    await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true }),
    {
      overlayOptions: [],
      writableSize: 0,
      verityMode: 'auto',
      fsverity: false,
      remapIds: false,
      immutable: false,
      pool,
      log,
    },
  );
  return {
    directory,
    root,
    content,
    mounts,
    walking,
    snapshotter,
    differ: new ErofsDiffer({ ...base, ...options }),
    async close() {
      await snapshotter.close();
      await unmountRecursive(directory);
      await mounts.close();
      await meta.close();
      await rm(directory, { recursive: true });
    },
    meta,
  };
}

// For mounts that are not the snapshotter's, the next differ has its turn.
differContract('erofs, then walking', async () => {
  const { differ, walking, content, meta, close } = await open();
  await meta.leases.create(contextOf('differ-contract'), { id: 'a-lease', labels: {} });
  return { differ: new DifferChain([differ, walking]), content, close };
});

describe('erofs differ', { skip }, () => {
  const ctx = contextOf('ns');
  let under: Awaited<ReturnType<typeof open>>;
  beforeEach(async () => {
    under = await open();
  });
  afterEach(() => under.close());

  const store = async (bytes: Buffer, mediaType: string): Promise<Descriptor> => {
    const writer = await under.content.writer(ctx, { ref: `input-${Math.random()}` });
    await writer.write(bytes);
    await writer.commit().catch(() => undefined);
    await writer.close();
    return { mediaType, digest: sha256(bytes), size: bytes.length };
  };
  let views = 0;
  /** A directory that a layer only implies has the time of its making, or none. */
  const untimed = (line: string) => line.replace(/^(deep\S* 4.*) time \d+/, '$1');
  /** A layer applied and committed. */
  const layer = async (name: string, parent: string, bytes: Buffer, mediaType = tarType, differ = under.differ) => {
    const mounts = await under.snapshotter.prepare(`p-${name}`, parent);
    const applied = await differ.apply(ctx, await store(bytes, mediaType), mounts);
    await under.snapshotter.commit(name, `p-${name}`);
    return applied;
  };
  const shown = async (name: string): Promise<string[]> =>
    within(await under.snapshotter.view(`v-${++views}-${name}`, name), (root) => listTree(root).map(untimed));
  const within = async <T>(mounts: Mount[], use: (root: string) => T): Promise<T> => {
    const target = path.join(under.directory, 'mnt');
    await mkdir(target, { recursive: true });
    const undo = await under.mounts.mount(mounts, target);
    try {
      return use(target);
    } finally {
      await undo();
    }
  };
  const base: FixtureEntry[] = [
    { path: 'etc/', mode: 0o711 },
    { path: 'etc/gone', content: 'gone' },
    { path: 'etc/kept', content: 'kept', uid: 7 },
    { path: 'opaque/' },
    { path: 'opaque/hidden', content: 'hidden' },
  ];
  const top: FixtureEntry[] = [
    { path: 'etc/.wh.gone' },
    { path: 'etc/new', content: 'new', mode: 0o4755, uid: 5, gid: 6 },
    { path: 'opaque/' },
    { path: 'opaque/.wh..wh..opq' },
    { path: 'opaque/fresh', content: 'fresh', xattrs: [['user.note', Buffer.from('n')]] },
    { path: 'hard', type: '1', linkPath: 'etc/new', mode: 0o4755, uid: 5, gid: 6 },
    { path: 'deep/er/file', content: 'x' },
  ];
  /** The walking differ has no way to link what is only below. */
  const linked: FixtureEntry[] = [...top, { path: 'below', type: '1', linkPath: 'etc/kept', uid: 7 }];

  it('makes what the walking differ makes, without unpacking', async () => {
    const [one, two] = [makeTar(...base), makeTar(...top)];
    const applied = await layer('one', '', zlib.gzipSync(one), `${tarType}+gzip`);
    assert.deepEqual(applied, { mediaType: tarType, digest: sha256(one), size: one.length });
    // It leaves out `etc`, which then looks as it does below.
    await layer('two', 'one', zlib.zstdCompressSync(two), `${tarType}+zstd`);
    const walking = under.walking as unknown as ErofsDiffer;
    await layer('walked one', '', one, tarType, walking);
    await layer('walked two', 'walked one', two, tarType, walking);
    assert.deepEqual(await shown('one'), await shown('walked one'));
    assert.deepEqual(await shown('two'), await shown('walked two'));
    assert.deepEqual(await readdir(`${under.root}/snapshots/1/fs`), []);
    assert.deepEqual(await under.mounts.manager.list(contextOf('ns')), []);
  });

  it('keeps the archive in tar index mode, unless it has sparse files', async () => {
    await under.close();
    under = await open({ tarIndex: true });
    const [one, two] = [makeTar(...base), makeTar(...top)];
    await layer('one', '', one);
    await layer('two', 'one', two);
    const image = readFileSync(`${under.root}/snapshots/1/layer.erofs`);
    assert.ok(image.includes(one));
    const walking = under.walking as unknown as ErofsDiffer;
    await layer('walked one', '', one, tarType, walking);
    await layer('walked two', 'walked one', two, tarType, walking);
    assert.deepEqual(await shown('two'), await shown('walked two'));
    const file = path.join(under.directory, 'sparse');
    execFileSync('truncate', ['-s', '10M', file]);
    await appendFile(file, 'end');
    const sparse = execFileSync('tar', ['-S', '-C', under.directory, '-cf', '-', 'sparse']);
    await layer('sparse', '', sparse);
    const [line] = await shown('sparse');
    assert.match(line!, /^sparse .*10485763/);
  });

  it('takes layers that are images as they are', async () => {
    await layer('one', '', makeTar(...base));
    const image = readFileSync(`${under.root}/snapshots/1/layer.erofs`);
    const expected = { mediaType: nativeType, digest: sha256(image), size: image.length };
    assert.deepEqual(await layer('native', '', image, nativeType), expected);
    assert.deepEqual(await layer('packed', '', zlib.zstdCompressSync(image), `${nativeType}+zstd`), expected);
    assert.deepEqual(await shown('native'), await shown('one'));
    assert.deepEqual(await shown('packed'), await shown('one'));
    const mounts = await under.snapshotter.prepare('p', '');
    const refused = (bytes: Buffer, type: string, message: RegExp) =>
      assert.rejects(async () => await under.differ.apply(ctx, await store(bytes, type), mounts), message);
    await refused(makeTar(...base), nativeType, /not an EROFS image/);
    await refused(image, `${nativeType}+gzip`, /unsupported erofs layer suffix: gzip/);
    assert.deepEqual((await readdir(path.dirname(mounts[0]!.source))).sort(), ['.erofslayer', 'fs', 'work']);
  });

  it('reads a blob that still grows, and says what it cannot do alone', async () => {
    const one = makeTar(...base);
    const two = makeTar(...linked);
    const file = path.join(under.directory, 'growing');
    await writeFile(file, two.subarray(0, 700));
    const done = Promise.withResolvers<void>();
    const blob = {
      path: file,
      complete: done.promise,
      onGrowth(listener: (available: number) => void) {
        listener(700);
        void done.promise.then(() => listener(two.length));
        return () => {};
      },
    };
    await layer('one', '', one);
    const mounts = await under.snapshotter.prepare('p', 'one');
    const applying = under.differ.applyGrowing(ctx, await store(two, tarType), blob, mounts);
    await appendFile(file, two.subarray(700));
    done.resolve();
    assert.equal((await applying).digest, sha256(two));
    await under.snapshotter.commit('two', 'p');
    assert.ok((await shown('two')).some((line) => line.startsWith('below ')));
    const alone = await under.snapshotter.prepare('alone', '');
    const standing = under.differ.apply(ctx, await store(two, tarType), alone, { standalone: true });
    await assert.rejects(standing, /does not have|no entries for/);
    assert.ok(!existsSync(`${under.root}/snapshots/4/layer.erofs`));
  });

  it('bounds what a layer may become, and stops when the caller gives up', async () => {
    await under.close();
    under = await open({ sizeLimit: () => 4096 });
    const bomb = zlib.gzipSync(makeTar({ path: 'zeros', content: Buffer.alloc(1 << 20) }));
    const mounts = await under.snapshotter.prepare('p', '');
    const descriptor = await store(bomb, `${tarType}+gzip`);
    await assert.rejects(under.differ.apply(ctx, descriptor, mounts), /larger than 4096 bytes/);
    const signal = AbortSignal.abort(new Error('gave up'));
    await assert.rejects(under.differ.apply({ ...ctx, signal }, descriptor, mounts), /gave up/);
    assert.deepEqual((await readdir(`${under.root}/snapshots/1`)).sort(), ['.erofslayer', 'fs', 'work']);
  });

  it('writes the layer that an active snapshot adds; images are for the next differ', async () => {
    await layer('one', '', makeTar(...base));
    const mounts = await under.snapshotter.prepare('work', 'one');
    await within(mounts, (root) => execFileSync('sh', ['-ec', 'rm etc/gone; echo more > etc/more'], { cwd: root }));
    const lower = await under.snapshotter.view('below', 'one');
    const made = await under.differ.diff(ctx, lower, mounts, { mediaType: tarType });
    await under.snapshotter.commit('two', 'work');
    const again = await under.snapshotter.prepare('again', 'one');
    await under.differ.apply(ctx, made, again);
    await under.snapshotter.commit('three', 'again');
    assert.deepEqual(await shown('three'), await shown('two'));
    const view = await under.snapshotter.view('v', 'two');
    await assert.rejects(under.differ.diff(ctx, lower, view), (error) => hasCode(error, Code.Unimplemented));
    const chain = new DifferChain([under.differ, under.walking]);
    const compared = await chain.diff(ctx, lower, view, { mediaType: tarType });
    assert.equal(compared.digest, made.digest);
  });
});
