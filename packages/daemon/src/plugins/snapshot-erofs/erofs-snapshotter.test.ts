import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WorkerPool } from '@gantry/archive';
import { type Mount, unmountRecursive } from '@gantry/mount';
import type { Logger } from '../../core/log/logger.ts';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { TestingMounts } from '../../core/mounts/testing-mounts.ts';
import { snapshotterContract } from '../../core/snapshots/snapshotter-contract.ts';
import { type ErofsOptions, ErofsSnapshotter } from './erofs-snapshotter.ts';
import { setImmutable, verityProblem } from './file-flags.ts';
import { layerDirectory } from './layer-files.ts';

const kernel = /^\s*erofs$/m.test(readFileSync('/proc/filesystems', 'utf8'));
const skip = process.getuid?.() !== 0 ? 'needs root' : kernel ? false : 'the kernel has no erofs';

const pool = new WorkerPool();
after(() => pool.close());
const warnings: string[] = [];
const quiet = () => {};
const log: Logger = {
  trace: quiet,
  debug: quiet,
  info: quiet,
  warn: (text) => warnings.push(text),
  error: quiet,
  with: () => log,
};

const plain: ErofsOptions = {
  overlayOptions: [],
  writableSize: 0,
  verityMode: 'auto',
  fsverity: false,
  remapIds: true,
  immutable: false,
  pool,
  log,
};

async function open(options: Partial<ErofsOptions> = {}) {
  const directory = await mkdtemp(path.join(tmpdir(), 'gantry-erofs-'));
  const mounts = await TestingMounts.open(directory);
  const root = path.join(directory, 'r');
  await mkdir(root);
  const start = async () => {
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true });
    return await ErofsSnapshotter.open(root, store, { ...plain, ...options });
  };
  const under = {
    directory,
    root,
    snapshotter: await start(),
    mount: (wanted: Mount[], target: string) => mounts.mount(wanted, target),
    /** Mounts on a directory for as long as `use` takes. */
    async within(wanted: Mount[], use: (root: string) => unknown): Promise<void> {
      const target = path.join(directory, 'mnt');
      await mkdir(target, { recursive: true });
      const undo = await mounts.mount(wanted, target);
      try {
        await use(target);
      } finally {
        await undo();
      }
    },
    async reopen() {
      await under.snapshotter.close();
      under.snapshotter = await start();
      return under.snapshotter;
    },
    async close() {
      await under.snapshotter.close();
      await unmountRecursive(directory);
      await mounts.close();
      await rm(directory, { recursive: true });
    },
  };
  return under;
}

if (kernel) snapshotterContract('erofs', () => open(), { rebase: true, images: true });

describe('erofs snapshotter', { skip }, () => {
  const erofs = (root: string, id: number, ...more: string[]): Mount => {
    const source = `${root}/snapshots/${id}/layer.erofs`;
    return { type: 'erofs', source, target: '', options: ['ro', 'loop', ...more] };
  };

  it('answers with containerd’s mounts', async () => {
    const { snapshotter, root, close } = await open({ overlayOptions: ['volatile'] });
    const upper = (id: number) => `${root}/snapshots/${id}/fs`;
    const overlay = (...options: string[]): Mount => {
      return { type: 'format/mkdir/overlay', source: 'overlay', target: '', options: [...options, 'volatile'] };
    };
    const bind = (id: number, access: string): Mount => {
      return { type: 'bind', source: upper(id), target: '', options: [access, 'rbind'] };
    };
    assert.deepEqual(await snapshotter.prepare('p1', ''), [bind(1, 'rw')]);
    await snapshotter.commit('one', 'p1');
    assert.deepEqual(await snapshotter.view('v1', 'one'), [erofs(root, 1)]);
    assert.deepEqual(await snapshotter.mounts('one'), [erofs(root, 1)]);
    const writable = [`workdir=${root}/snapshots/3/work`, `upperdir=${upper(3)}`];
    assert.deepEqual(await snapshotter.prepare('p2', 'one'), [
      erofs(root, 1),
      overlay(...writable, 'lowerdir={{ mount 0 }}'),
    ]);
    await snapshotter.commit('two', 'p2');
    assert.deepEqual(await snapshotter.view('v2', 'two'), [
      erofs(root, 3),
      erofs(root, 1),
      overlay('lowerdir={{ overlay 0 1 }}'),
    ]);
    const labels = {
      'containerd.io/snapshot/uidmapping': '0:1000:10',
      'containerd.io/snapshot/gidmapping': '0:2000:10',
    };
    const mapped = await snapshotter.prepare('p3', 'two', { labels });
    assert.deepEqual(mapped.at(-1)!.options.slice(2), [
      'uidmap=0:1000:10',
      'gidmap=0:2000:10',
      'lowerdir={{ overlay 0 1 }}',
      'volatile',
    ]);
    assert.deepEqual([statSync(upper(5)).uid, statSync(upper(5)).gid], [1000, 2000]);
    assert.deepEqual(await snapshotter.view('v0', ''), [bind(6, 'ro')]);
    // An image that merges what is below takes its place.
    await writeFile(`${root}/snapshots/3/fsmeta.erofs`, 'x');
    const devices = [1, 3].map((id) => `device=${root}/snapshots/${id}/layer.erofs`);
    const merged = {
      type: 'erofs',
      source: `${root}/snapshots/3/fsmeta.erofs`,
      target: '',
      options: ['ro', 'loop', ...devices],
    };
    assert.deepEqual(await snapshotter.mounts('v2'), [
      merged,
      { type: 'format/bind', source: '{{ mount 0 }}', target: '', options: ['ro', 'rbind'] },
    ]);
    // Metadata of dm-verity are told to the handler, unless that is off.
    await writeFile(`${root}/snapshots/1/layer.erofs.dmverity`, '{}');
    const [first] = await snapshotter.mounts('v1');
    assert.equal(first!.options[2], `X-containerd.dmverity=${root}/snapshots/1/layer.erofs.dmverity`);
    assert.equal(await layerDirectory(mapped), `${root}/snapshots/5`);
    assert.equal(await layerDirectory([bind(6, 'ro')]), undefined);
    await close();
  });

  it('dm-verity can be demanded, and can be off', async () => {
    for (const verityMode of ['on', 'off'] as const) {
      const { snapshotter, root, close } = await open({ verityMode });
      await snapshotter.prepare('p', '');
      await snapshotter.commit('c', 'p');
      if (verityMode === 'on') await assert.rejects(snapshotter.view('v', 'c'), /dm-verity mode is 'on'/);
      await writeFile(`${root}/snapshots/1/layer.erofs.dmverity`, '{}');
      assert.equal((await snapshotter.view('w', 'c'))[0]!.options.length, verityMode === 'on' ? 3 : 2);
      await close();
    }
  });

  it('a file system of fixed size is what an active snapshot writes to', async (t) => {
    const { snapshotter, root, within, close } = await open({ writableSize: 8 << 20 });
    try {
      const mounts = await snapshotter.prepare('p1', '');
      assert.deepEqual(mounts, [
        {
          type: 'mkfs/ext4',
          source: `${root}/snapshots/1/rwlayer.img`,
          target: '',
          options: ['X-containerd.mkfs.fs=ext4', 'X-containerd.mkfs.size=8388608', 'rw', 'loop'],
        },
        {
          type: 'format/mkdir/bind',
          source: '{{ mount 0 }}/upper',
          target: '',
          options: ['X-containerd.mkdir.path={{ mount 0 }}/upper:0755', 'rw', 'rbind'],
        },
      ]);
      try {
        await within(mounts, (target) => writeFile(`${target}/one`, 'one'));
      } catch (error) {
        if (/ENOENT/.test(String(error))) return t.skip('no mkfs.ext4 (e2fsprogs)');
        throw error;
      }
      await snapshotter.commit('one', 'p1');
      assert.deepEqual((await readdir(`${root}/snapshots/1`)).sort(), ['.erofslayer', 'fs', 'layer.erofs']);
      await within(await snapshotter.prepare('p2', 'one'), async (target) => {
        await writeFile(`${target}/two`, readFileSync(`${target}/one`));
        await assert.rejects(writeFile(`${target}/big`, Buffer.alloc(16 << 20)), { code: 'ENOSPC' });
        await rm(`${target}/big`);
      });
      await snapshotter.commit('two', 'p2');
      await within(await snapshotter.view('v', 'two'), (target) => {
        assert.equal(readFileSync(`${target}/two`, 'utf8'), 'one');
      });
      // Nothing was ever written.
      await snapshotter.prepare('p3', 'two');
      await snapshotter.commit('three', 'p3');
    } finally {
      await close();
    }
  });

  it('protects images by the immutable attribute, and removes them all the same', async (t) => {
    const { snapshotter, root, close } = await open({ immutable: true });
    await snapshotter.prepare('p', '');
    await snapshotter.commit('c', 'p');
    const image = `${root}/snapshots/1/layer.erofs`;
    const protectedNow = await rename(image, `${image}.x`).then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === 'EPERM',
    );
    if (!protectedNow) {
      await close();
      return t.skip('files here cannot be immutable');
    }
    await snapshotter.remove('c');
    assert.deepEqual(await readdir(`${root}/snapshots`), []);
    // One whose record is gone, as after a crash.
    await snapshotter.prepare('p', '');
    await snapshotter.commit('c', 'p');
    await mkdir(`${root}/snapshots/99`);
    await copyFile(`${root}/snapshots/2/layer.erofs`, `${root}/snapshots/99/layer.erofs`);
    await setImmutable(`${root}/snapshots/99/layer.erofs`, true);
    await snapshotter.cleanup();
    assert.deepEqual(await readdir(`${root}/snapshots`), ['2']);
    await snapshotter.remove('c');
    await close();
  });

  it('seals images with fs-verity', async (t) => {
    const problem = await verityProblem(tmpdir());
    if (problem) return t.skip(`no fs-verity here: ${problem}`);
    const { snapshotter, root, close } = await open({ fsverity: true });
    await snapshotter.prepare('p', '');
    await snapshotter.commit('c', 'p');
    await snapshotter.view('v', 'c');
    await assert.rejects(writeFile(`${root}/snapshots/1/layer.erofs`, ''), { code: 'EPERM' });
    await close();
  });

  it('finishes or takes back a commit that a killed daemon was at', async () => {
    const under = await open();
    const { root } = under;
    await under.within(await under.snapshotter.prepare('p', ''), (target) => writeFile(`${target}/x`, 'x'));
    // Converted and not noted.
    await writeFile(`${root}/snapshots/1/commit.erofs`, 'half an image');
    await under.reopen();
    assert.ok(!existsSync(`${root}/snapshots/1/commit.erofs`));
    await under.snapshotter.commit('c', 'p');
    // Noted and not in its place, its files not yet removed.
    await rename(`${root}/snapshots/1/layer.erofs`, `${root}/snapshots/1/commit.erofs`);
    await writeFile(`${root}/snapshots/1/fs/x`, 'x');
    await under.reopen();
    assert.deepEqual(await readdir(`${root}/snapshots/1/fs`), []);
    await under.within(await under.snapshotter.view('v', 'c'), (target) => {
      assert.equal(readFileSync(`${target}/x`, 'utf8'), 'x');
    });
    await under.close();
  });

  it('survives kill -9 at any moment: every answered snapshot has its image, nothing else is left', async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'gantry-erofs-crash-'));
    const root = path.join(directory, 'r');
    await mkdir(root);
    const url = (module: string) => JSON.stringify(new URL(module, import.meta.url).href);
    const worker = `
      import { writeFile } from 'node:fs/promises';
      import { LmdbStore } from ${url('../../core/metadata/lmdb-store.ts')};
      import { WorkerPool } from ${JSON.stringify(import.meta.resolve('@gantry/archive'))};
      import { ErofsSnapshotter } from ${url('./erofs-snapshotter.ts')};
      const [root, round] = process.argv.slice(2);
      const store = await LmdbStore.open({ path: root + '/metadata.lmdb' });
      const options = { overlayOptions: [], writableSize: 0, verityMode: 'auto', fsverity: false, remapIds: false, immutable: false, pool: new WorkerPool() };
      const erofs = await ErofsSnapshotter.open(root, store, options);
      await Promise.all(['a', 'b'].map(async (name) => {
        for (let i = 0; ; i++) {
          const key = name + round + '.' + i;
          const [{ source }] = await erofs.prepare(key, '');
          await writeFile(source + '/' + key, key);
          await erofs.commit('done-' + key, key);
          process.stdout.write('done-' + key + '\\n');
        }
      }));`;
    // A file, because threads do not start in a program given on the command line.
    const program = path.join(directory, 'worker.mjs');
    await writeFile(program, worker);
    const known = new Set<string>();
    for (let round = 0; round < 2; round++) {
      const child = spawn(process.execPath, [program, root, String(round)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = new Promise((resolve) => child.once('exit', resolve));
      const lines = createInterface(child.stdout);
      const started = new Promise((resolve) => lines.once('line', resolve));
      lines.on('line', (line) => known.add(line));
      await Promise.race([started, ended]);
      assert.equal(child.exitCode, null);
      await sleep(20 + round * 53);
      child.kill('SIGKILL');
      await ended;
      const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
      const erofs = await ErofsSnapshotter.open(root, store, plain);
      const listed = new Set<string>();
      for await (const { name, kind } of erofs.list()) {
        listed.add(name);
        const [mount] = await erofs.mounts(name);
        if (kind === 'committed') assert.equal(path.basename(mount!.source), 'layer.erofs');
        assert.ok((await stat(mount!.source)).size > 0, name);
        if (kind === 'committed' && existsSync('/usr/bin/fsck.erofs')) execFileSync('fsck.erofs', [mount!.source]);
      }
      for (const name of known) assert.ok(listed.has(name), name);
      await erofs.cleanup();
      assert.equal((await readdir(path.join(root, 'snapshots'))).length, listed.size);
      await erofs.close();
    }
    assert.ok(known.size > 1);
    await rm(directory, { recursive: true });
  });
});
