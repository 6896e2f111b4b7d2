import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  rmdir,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { type Mount, mountAll, unmountAll } from '@gantry/mount';
import type { SnapshotInfo, Snapshotter } from './snapshotter.ts';

/** How the contract gets at an implementation. */
export interface SnapshotterUnderTest {
  snapshotter: Snapshotter;
  /** Closes it and opens it again on the same data, as a restarted daemon does. */
  reopen(): Promise<Snapshotter>;
  /** Performs mounts that mount(2) alone cannot; answers how to undo that. Default: `mountAll`. */
  mount?(mounts: Mount[], target: string): Promise<() => Promise<void>>;
  /** Closes it and deletes its data. */
  close(): Promise<void>;
}

export interface SnapshotterContractOptions {
  /** How high the highest chain of snapshots is. */
  layers?: number;
  /** Commit takes another parent than the snapshot was prepared on. */
  rebase?: boolean;
  /** Each snapshot is the image of a whole filesystem: usage counts its blocks, and one inode. */
  images?: boolean;
}

const withCode = (code: Code, message?: RegExp) => (reason: unknown) => {
  assert.ok(hasCode(reason, code), `expected code ${code}, got ${reason}`);
  if (message) assert.match((reason as Error).message, message);
  return true;
};

async function mountPlainly(mounts: Mount[], target: string): Promise<() => Promise<void>> {
  await mountAll(mounts, target);
  return () => unmountAll(target);
}

/** What every Snapshotter has to do. Mounts, so it needs root; without it every test is skipped, saying so. */
export function snapshotterContract(
  name: string,
  open: () => Promise<SnapshotterUnderTest>,
  { layers = 130, rebase = false, images = false }: SnapshotterContractOptions = {},
): void {
  const skip = process.getuid?.() === 0 ? false : 'mounting snapshots needs root';
  describe(`snapshotter contract: ${name}`, { skip }, () => {
    let under: SnapshotterUnderTest;
    let snapshotter: Snapshotter;
    let scratch: string;

    beforeEach(async () => {
      under = await open();
      snapshotter = under.snapshotter;
      scratch = await mkdtemp(path.join(tmpdir(), 'gantry-snapshotter-'));
    });
    afterEach(async () => {
      await under.close();
      await rmdir(scratch);
    });

    /** Mounts, lets `use` look and change, unmounts. */
    const within = async <T>(mounts: Mount[], use: (root: string) => Promise<T>): Promise<T> => {
      const target = await mkdtemp(path.join(scratch, 'mnt-'));
      const undo = await (under.mount ?? mountPlainly)(mounts, target);
      try {
        return await use(target);
      } finally {
        await undo();
        await rmdir(target);
      }
    };
    /** A committed layer: what `change` does to its parent. */
    const layer = async (layerName: string, parent: string, change: (root: string) => Promise<unknown>) => {
      const key = `prepare ${layerName}`;
      await within(await snapshotter.prepare(key, parent), change);
      await snapshotter.commit(layerName, key);
    };
    const names = async () => {
      const found: SnapshotInfo[] = [];
      for await (const info of snapshotter.list()) found.push(info);
      return found.map((info) => `${info.kind} ${info.name} < ${info.parent}`).sort();
    };

    it('shows in a child what its parents hold, and only there what the child changes', async () => {
      await layer('one', '', async (root) => {
        await writeFile(path.join(root, 'kept'), 'kept');
        await writeFile(path.join(root, 'changed'), 'before');
        await writeFile(path.join(root, 'gone'), 'gone');
        await mkdir(path.join(root, 'dir/sub'), { recursive: true });
        await writeFile(path.join(root, 'dir/sub/file'), 'deep');
      });
      await layer('two', 'one', async (root) => {
        await writeFile(path.join(root, 'changed'), 'after');
        await rm(path.join(root, 'gone'));
        await rm(path.join(root, 'dir'), { recursive: true });
        await mkdir(path.join(root, 'dir'));
        await writeFile(path.join(root, 'dir/new'), 'new');
      });
      await within(await snapshotter.view('look two', 'two'), async (root) => {
        assert.deepEqual((await readdir(root)).sort(), ['changed', 'dir', 'kept']);
        assert.equal(await readFile(path.join(root, 'changed'), 'utf8'), 'after');
        assert.deepEqual(await readdir(path.join(root, 'dir')), ['new']);
        await assert.rejects(writeFile(path.join(root, 'x'), 'x'), /EROFS/);
      });
      await within(await snapshotter.view('look one', 'one'), async (root) => {
        assert.deepEqual((await readdir(root)).sort(), ['changed', 'dir', 'gone', 'kept']);
        assert.equal(await readFile(path.join(root, 'changed'), 'utf8'), 'before');
        assert.equal(await readFile(path.join(root, 'dir/sub/file'), 'utf8'), 'deep');
        await assert.rejects(writeFile(path.join(root, 'x'), 'x'), /EROFS/);
      });
    });

    it('keeps what is in an active snapshot between mounts and across a restart', async () => {
      await layer('base', '', (root) => writeFile(path.join(root, 'base'), 'base'));
      await within(await snapshotter.prepare('work', 'base'), (root) => writeFile(path.join(root, 'mine'), 'mine'));
      snapshotter = await under.reopen();
      await within(await snapshotter.mounts('work'), async (root) => {
        assert.deepEqual((await readdir(root)).sort(), ['base', 'mine']);
      });
      assert.deepEqual(await names(), ['active work < base', 'committed base < ']);
      await snapshotter.prepare('other', 'base');
    });

    it('shows an empty view of nothing', async () => {
      await within(await snapshotter.view('empty', ''), async (root) => {
        assert.deepEqual(await readdir(root), []);
        await assert.rejects(writeFile(path.join(root, 'x'), 'x'), /EROFS/);
      });
    });

    it('keeps owners, modes, times, links, devices and attributes', async () => {
      await layer('base', '', async (root) => {
        await chmod(root, 0o751);
        await chown(root, 12, 34);
        await writeFile(path.join(root, 'file'), 'x');
        await chmod(path.join(root, 'file'), 0o4755);
        execFileSync('mknod', [path.join(root, 'null'), 'c', '1', '3']);
        execFileSync('mkfifo', [path.join(root, 'fifo')]);
        await symlink('../nowhere', path.join(root, 'symlink'));
        await link(path.join(root, 'file'), path.join(root, 'hardlink'));
        await utimes(path.join(root, 'file'), 1000, 2000.5);
      });
      await layer('child', 'base', async (root) => {
        await writeFile(path.join(root, 'more'), '');
        await chown(path.join(root, 'more'), 1, 2);
      });
      await within(await snapshotter.prepare('look', 'child'), async (root) => {
        const top = await stat(root);
        assert.deepEqual([top.uid, top.gid], [12, 34]);
        const file = await stat(path.join(root, 'file'));
        assert.deepEqual([file.mode & 0o7777, file.nlink, file.mtimeMs], [0o4755, 2, 2_000_500]);
        assert.equal((await stat(path.join(root, 'hardlink'))).ino, file.ino);
        assert.equal(await readlink(path.join(root, 'symlink')), '../nowhere');
        const device = await lstat(path.join(root, 'null'));
        assert.ok(device.isCharacterDevice() && device.rdev === 0x103);
        assert.ok((await lstat(path.join(root, 'fifo'))).isFIFO());
        const more = await stat(path.join(root, 'more'));
        assert.deepEqual([more.uid, more.gid], [1, 2]);
      });
    });

    it('renames directories, of the layer itself and of one below', async () => {
      await layer('base', '', async (root) => {
        await mkdir(path.join(root, 'old/sub'), { recursive: true });
        await writeFile(path.join(root, 'old/sub/file'), 'x');
      });
      await layer('child', 'base', async (root) => {
        await mkdir(path.join(root, 'fresh'));
        await rename(path.join(root, 'fresh'), path.join(root, 'renamed'));
        execFileSync('mv', [path.join(root, 'old'), path.join(root, 'new')]);
      });
      await within(await snapshotter.view('look', 'child'), async (root) => {
        assert.deepEqual((await readdir(root)).sort(), ['new', 'renamed']);
        assert.equal(await readFile(path.join(root, 'new/sub/file'), 'utf8'), 'x');
      });
    });

    it(`mounts ${layers} layers`, async () => {
      for (let i = 0; i < layers; i++) {
        await snapshotter.prepare(`p${i}`, i === 0 ? '' : `l${i - 1}`);
        if (i === 0 || i === layers - 1) {
          await within(await snapshotter.mounts(`p${i}`), (root) => writeFile(path.join(root, `f${i}`), ''));
        }
        await snapshotter.commit(`l${i}`, `p${i}`);
      }
      const expected = ['f0', `f${layers - 1}`];
      await within(await snapshotter.prepare('top', `l${layers - 1}`), async (root) => {
        assert.deepEqual((await readdir(root)).sort(), expected);
      });
      await within(await snapshotter.view('top view', `l${layers - 1}`), async (root) => {
        assert.deepEqual((await readdir(root)).sort(), expected);
      });
    });

    it('counts ahead of the commit, where it can, what was written by then', async (t) => {
      if (!snapshotter.measure) return t.skip('this snapshotter cannot');
      for (const key of ['first', 'second']) {
        await within(await snapshotter.prepare(key, ''), (root) =>
          writeFile(path.join(root, key), Buffer.alloc(1 << 18, 1)),
        );
        snapshotter.measure(key);
      }
      const { size } = await snapshotter.usage('first');
      await snapshotter.remove('second');
      await snapshotter.commit('done', 'first');
      assert.ok(size >= 1 << 18);
      assert.deepEqual(await snapshotter.usage('done'), { inodes: 2, size });
    });

    it('counts usage of a layer alone, hard links once', async () => {
      await layer('base', '', (root) => writeFile(path.join(root, 'big'), Buffer.alloc(1 << 20, 1)));
      const base = await snapshotter.usage('base');
      assert.ok(base.size >= 1 << 20 && base.size < (images ? 8 : 1.2) * (1 << 20), String(base.size));
      assert.equal(base.inodes, images ? 1 : 2);
      await within(await snapshotter.prepare('work', 'base'), async (root) => {
        await writeFile(path.join(root, 'a'), Buffer.alloc(1 << 18, 1));
        await link(path.join(root, 'a'), path.join(root, 'b'));
      });
      const live = await snapshotter.usage('work');
      assert.ok(live.size >= 1 << 18, String(live.size));
      await snapshotter.commit('done', 'work');
      const done = await snapshotter.usage('done');
      // What the filesystem around an image still has to write is not known exactly before the commit.
      if (images)
        assert.ok(done.inodes === 1 && Math.abs(done.size - live.size) < 1 << 18, `${done.size} ${live.size}`);
      else assert.deepEqual(done, live);
      await snapshotter.view('seen', 'done');
      assert.deepEqual(await snapshotter.usage('seen'), { inodes: 0, size: 0 });
      await assert.rejects(snapshotter.usage('nope'), withCode(Code.NotFound));
    });

    it('tells of a snapshot: kind, parent, labels, times', async () => {
      await snapshotter.prepare('work', '', { labels: { 'containerd.io/snapshot/x': '1' } });
      const active = await snapshotter.stat('work');
      assert.equal(active.kind, 'active');
      assert.deepEqual(active.labels['containerd.io/snapshot/x'], '1');
      assert.deepEqual(active.createdAt, active.updatedAt);
      await snapshotter.commit('done', 'work', { labels: { 'containerd.io/snapshot/y': '2' } });
      await assert.rejects(
        snapshotter.stat('work'),
        withCode(Code.NotFound, /snapshot work does not exist: not found/),
      );
      const done = await snapshotter.stat('done');
      assert.equal(done.kind, 'committed');
      assert.equal(done.labels['containerd.io/snapshot/y'], '2');
      await snapshotter.view('seen', 'done');
      const seen = await snapshotter.stat('seen');
      assert.deepEqual([seen.kind, seen.parent, seen.name], ['view', 'done', 'seen']);
    });

    it('updates labels by field mask', async () => {
      await snapshotter.prepare('work', '', { labels: { a: '1', b: '2' } });
      const one = await snapshotter.update({ name: 'work', labels: { a: 'x', c: 'y' } }, ['labels.a']);
      assert.deepEqual(pick(one.labels), { a: 'x', b: '2' });
      assert.deepEqual(pick((await snapshotter.update({ name: 'work', labels: {} }, ['labels.b'])).labels), { a: 'x' });
      const all = await snapshotter.update({ name: 'work', labels: { c: 'z' } }, []);
      assert.deepEqual(pick(all.labels), { c: 'z' });
      assert.deepEqual(pick((await snapshotter.stat('work')).labels), { c: 'z' });
      await assert.rejects(
        snapshotter.update({ name: 'work', labels: {} }, ['parent']),
        withCode(Code.InvalidArgument),
      );
      await assert.rejects(snapshotter.update({ name: 'nope', labels: {} }, []), withCode(Code.NotFound));
    });
    const pick = (labels: Record<string, string>) =>
      Object.fromEntries(Object.entries(labels).filter(([label]) => !label.startsWith('containerd.io/')));

    it('says what is wrong', async () => {
      await layer('base', '', async () => {});
      await snapshotter.prepare('work', 'base');
      await snapshotter.view('seen', 'base');
      const taken = withCode(Code.AlreadyExists, /already exists/);
      const missing = withCode(Code.NotFound, /not found/);
      const refused = withCode(Code.FailedPrecondition);
      await assert.rejects(snapshotter.prepare('work', 'base'), taken);
      await assert.rejects(snapshotter.view('work', ''), taken);
      await assert.rejects(snapshotter.prepare('base', ''), taken);
      await assert.rejects(snapshotter.prepare('new', 'nope'), missing);
      await assert.rejects(snapshotter.prepare('new', 'work'), withCode(Code.InvalidArgument, /not committed/));
      await assert.rejects(snapshotter.commit('base', 'work'), taken);
      await assert.rejects(snapshotter.commit('x', 'nope'), missing);
      await assert.rejects(snapshotter.commit('x', 'seen'), refused);
      await assert.rejects(snapshotter.commit('x', 'base'), refused);
      await assert.rejects(snapshotter.mounts('nope'), missing);
      await assert.rejects(snapshotter.remove('nope'), missing);
      await assert.rejects(snapshotter.remove('base'), refused);
      assert.deepEqual(await names(), ['active work < base', 'committed base < ', 'view seen < base']);
    });

    it('removes from the leaves down, and takes keys again', async () => {
      await layer('base', '', (root) => writeFile(path.join(root, 'old'), ''));
      await snapshotter.prepare('work', 'base');
      await snapshotter.remove('work');
      await snapshotter.remove('base');
      assert.deepEqual(await names(), []);
      await snapshotter.cleanup?.();
      await within(await snapshotter.prepare('work', ''), async (root) => assert.deepEqual(await readdir(root), []));
      await snapshotter.cleanup?.();
      await within(await snapshotter.mounts('work'), async (root) => assert.deepEqual(await readdir(root), []));
    });

    it('gives one key to one of many callers', async () => {
      const results = await Promise.allSettled(Array.from({ length: 10 }, () => snapshotter.prepare('same', '')));
      assert.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
      for (const result of results) if (result.status === 'rejected') withCode(Code.AlreadyExists)(result.reason);
      await Promise.all(Array.from({ length: 20 }, (_, i) => snapshotter.prepare(`key ${i}`, '')));
      assert.equal((await names()).length, 21);
    });

    it('commits onto another parent, where it can', {
      skip: !rebase && 'not a capability of this snapshotter',
    }, async () => {
      await layer('one', '', (root) => writeFile(path.join(root, 'one'), ''));
      await within(await snapshotter.prepare('p', ''), (root) => writeFile(path.join(root, 'two'), ''));
      await assert.rejects(snapshotter.commit('two', 'p', { parent: 'nope' }), withCode(Code.NotFound));
      await snapshotter.commit('two', 'p', { parent: 'one' });
      assert.deepEqual(await names(), ['committed one < ', 'committed two < one']);
      await within(await snapshotter.view('look', 'two'), async (root) => {
        assert.deepEqual((await readdir(root)).sort(), ['one', 'two']);
      });
    });
  });
}
