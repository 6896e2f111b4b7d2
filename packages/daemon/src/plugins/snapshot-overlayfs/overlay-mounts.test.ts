import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { mountAll, supportsIdmappedMounts, unmountAll } from '@gantry/mount';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { type OverlayOptions, OverlaySnapshotter } from './overlay-snapshotter.ts';

const mapping = {
  'containerd.io/snapshot/uidmapping': '0:100000:65536',
  'containerd.io/snapshot/gidmapping': '0:200000:65536',
};

describe("overlay snapshotter: what containerd's clients see", () => {
  let root: string;
  let overlay: OverlaySnapshotter;
  const openAt = async (options: OverlayOptions) => {
    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true });
    return OverlaySnapshotter.open(root, store, { mountOptions: ['index=off'], ...options });
  };
  const restart = async (options: OverlayOptions = {}) => {
    await overlay.close();
    overlay = await openAt(options);
  };
  const at = (id: number, name: string) => path.join(root, 'snapshots', String(id), name);
  const directories = async () => (await readdir(path.join(root, 'snapshots'))).sort();

  beforeEach(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'gantry-overlay-'));
    overlay = await openAt({});
  });
  afterEach(async () => {
    await overlay.close();
    await rm(root, { recursive: true });
  });

  it('gives mounts with the options in their order', async () => {
    const bind = (source: string, access: string) => [{ type: 'bind', source, target: '', options: [access, 'rbind'] }];
    assert.deepEqual(await overlay.prepare('p1', ''), bind(at(1, 'fs'), 'rw'));
    await overlay.commit('l1', 'p1');
    assert.deepEqual(await overlay.view('v0', ''), bind(at(2, 'fs'), 'ro'));
    assert.deepEqual(await overlay.view('v1', 'l1'), bind(at(1, 'fs'), 'ro'));
    await overlay.prepare('p2', 'l1');
    await overlay.commit('l2', 'p2');
    assert.deepEqual(await overlay.prepare('p3', 'l2'), [
      {
        type: 'overlay',
        source: 'overlay',
        target: '',
        options: [
          `workdir=${at(5, 'work')}`,
          `upperdir=${at(5, 'fs')}`,
          `lowerdir=${at(4, 'fs')}:${at(1, 'fs')}`,
          'index=off',
        ],
      },
    ]);
    assert.deepEqual(await overlay.mounts('p3'), await overlay.mounts('p3'));
    const [view] = await overlay.view('v2', 'l2');
    assert.deepEqual(view?.options, [`lowerdir=${at(4, 'fs')}:${at(1, 'fs')}`, 'index=off']);
    assert.equal((await stat(at(5, 'fs'))).mode & 0o7777, 0o755);
    assert.equal((await stat(at(5, 'work'))).mode & 0o7777, 0o711);
    assert.equal((await stat(path.dirname(at(5, 'fs')))).mode & 0o7777, 0o700);
  });

  it('leaves removed directories to cleanup, which deletes only what nobody owns', async () => {
    await overlay.prepare('a', '');
    await overlay.prepare('b', '');
    await overlay.remove('a');
    await mkdir(at(77, 'fs'), { recursive: true });
    assert.deepEqual(await directories(), ['1', '2', '77']);
    await restart();
    await overlay.prepare('c', '');
    assert.deepEqual(await directories(), ['1', '2', '77', '78']);
    await Promise.all([overlay.cleanup(), overlay.prepare('d', ''), overlay.cleanup()]);
    assert.deepEqual(await directories(), ['2', '78', '79']);
  });

  it('deletes at once with syncRemove', async () => {
    await restart({ syncRemove: true });
    await overlay.prepare('a', '');
    await overlay.remove('a');
    assert.deepEqual(await directories(), []);
  });

  it('leaves nothing of a prepare that failed', async () => {
    await overlay.prepare('a', '');
    await assert.rejects(overlay.prepare('a', ''), (reason) => hasCode(reason, Code.AlreadyExists));
    assert.deepEqual(await directories(), ['1']);
  });

  it('shows the upper directory in a label, if told to', async () => {
    await restart({ upperdirLabel: true });
    await overlay.prepare('a', '', { labels: { x: 'y' } });
    const expected = { x: 'y', 'containerd.io/snapshot/overlay.upperdir': at(1, 'fs') };
    assert.deepEqual((await overlay.stat('a')).labels, expected);
    for await (const info of overlay.list()) assert.deepEqual(info.labels, expected);
  });

  it('refuses half of an id mapping', async () => {
    const half = { 'containerd.io/snapshot/uidmapping': '0:100000:65536' };
    await assert.rejects(overlay.prepare('a', '', { labels: half }), (reason) => hasCode(reason, Code.InvalidArgument));
    assert.deepEqual(await directories(), []);
  });

  it('maps ids of the layers below by mount options', async (t) => {
    if (process.getuid?.() !== 0) return t.skip('idmapped mounts need root');
    if (!(await supportsIdmappedMounts(root))) return t.skip('this filesystem has no idmapped mounts');
    await restart({ remapIds: true });
    await overlay.prepare('p', '');
    await writeFile(path.join(at(1, 'fs'), 'file'), 'x');
    await overlay.commit('l', 'p');
    const mounts = await overlay.prepare('mapped', 'l', { labels: mapping });
    assert.deepEqual(mounts[0]?.options.slice(0, 2), ['uidmap=0:100000:65536', 'gidmap=0:200000:65536']);
    const target = await mkdtemp(path.join(tmpdir(), 'gantry-overlay-mnt-'));
    await mountAll(mounts, target);
    try {
      for (const name of ['', 'file']) {
        const { uid, gid } = await stat(path.join(target, name));
        assert.deepEqual([uid, gid], [100_000, 200_000], name);
      }
    } finally {
      await unmountAll(target);
      await rm(target, { recursive: true });
    }
  });
});
