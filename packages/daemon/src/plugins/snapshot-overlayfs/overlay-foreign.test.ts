import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code } from '@gantry/api';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { SnapshotStorage, type TakenSnapshot } from '../../core/snapshots/snapshot-storage.ts';
import { OverlaySnapshotter } from './overlay-snapshotter.ts';

const at = { seconds: 1n, nanos: 2 };

describe("overlay snapshotter: another daemon's directories", () => {
  let root: string;
  let theirs: string;
  let overlay: OverlaySnapshotter | undefined;

  const open = async () => {
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true });
    overlay = await OverlaySnapshotter.open(root, store, { syncRemove: true });
    return overlay;
  };
  const taken = (name: string, parent: string, more: Partial<TakenSnapshot> = {}): TakenSnapshot => ({
    name,
    kind: 'committed',
    parent,
    labels: {},
    createdAt: at,
    updatedAt: at,
    inodes: 3,
    size: 4,
    at: path.join(theirs, name),
    ...more,
  });
  async function take(...snapshots: TakenSnapshot[]): Promise<string[]> {
    await overlay?.close();
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true });
    const storage = new SnapshotStorage(store, 7);
    try {
      return await storage.take(snapshots);
    } finally {
      await storage.close();
      await open();
    }
  }

  async function names(): Promise<string[]> {
    const found: string[] = [];
    for await (const { name } of overlay!.list()) found.push(name);
    return found.sort();
  }

  beforeEach(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'gantry-foreign-'));
    theirs = path.join(root, 'theirs');
    for (const name of ['base', 'top', 'box']) await mkdir(path.join(theirs, name, 'fs'), { recursive: true });
    await writeFile(path.join(theirs, 'base/fs/file'), 'text');
    overlay = undefined;
  });
  afterEach(async () => {
    await overlay?.close();
    await rm(root, { recursive: true });
  });

  it('are used where they are', async () => {
    await take(taken('base', ''), taken('top', 'base'), taken('box', 'top', { kind: 'active' }));
    const lower = `lowerdir=${theirs}/top/fs:${theirs}/base/fs`;
    const [mine] = await overlay!.prepare('mine', 'top');
    assert.ok(mine!.options.includes(lower));
    assert.match(mine!.options[1]!, new RegExp(`^upperdir=${root}/snapshots/\\d+/fs$`));
    const [box] = await overlay!.mounts('box');
    assert.deepEqual(box!.options.slice(0, 3), [`workdir=${theirs}/box/work`, `upperdir=${theirs}/box/fs`, lower]);
    assert.deepEqual(await overlay!.stat('base'), {
      name: 'base',
      kind: 'committed',
      parent: '',
      labels: {},
      createdAt: at,
      updatedAt: at,
    });
    assert.deepEqual(await overlay!.usage('base'), { inodes: 3, size: 4 });
  });

  it('outlive their records', async () => {
    await take(taken('base', ''), taken('top', 'base'));
    await overlay!.prepare('mine', 'base');
    await overlay!.remove('top');
    await overlay!.remove('mine');
    await overlay!.remove('base');
    await overlay!.cleanup();
    assert.ok((await stat(path.join(theirs, 'base/fs/file'))).isFile());
    assert.deepEqual((await readdir(theirs)).sort(), ['base', 'box', 'top']);
    assert.deepEqual(await readdir(path.join(root, 'snapshots')), []);
  });

  it('are replaced as a whole by another take, but for those that snapshots of our own need', async () => {
    await take(taken('base', ''), taken('top', 'base'), taken('box', '', { kind: 'active' }));
    await overlay!.prepare('mine', 'top');
    assert.deepEqual(await take(taken('base', '', { labels: { 'containerd.io/snapshot/x': 'y' } })), ['top']);
    assert.deepEqual(await names(), ['base', 'mine', 'top']);
    assert.deepEqual((await overlay!.stat('base')).labels, { 'containerd.io/snapshot/x': 'y' });
    assert.ok((await overlay!.mounts('mine'))[0]!.options.includes(`lowerdir=${theirs}/top/fs:${theirs}/base/fs`));
    await assert.rejects(overlay!.remove('base'), { code: Code.FailedPrecondition });
    await overlay!.remove('mine');
    assert.deepEqual(await take(taken('base', '')), []);
    assert.deepEqual(await names(), ['base']);
  });

  it('may have been copied: then the copy is ours', async () => {
    await mkdir(path.join(root, 'snapshots/9/fs'), { recursive: true });
    await take(taken('box', '', { kind: 'active', copy: 9 }));
    assert.equal((await overlay!.mounts('box'))[0]!.source, path.join(root, 'snapshots/9/fs'));
    await overlay!.remove('box');
    assert.deepEqual(await readdir(path.join(root, 'snapshots')), []);
    assert.ok((await stat(path.join(theirs, 'box/fs'))).isDirectory());
  });
});
