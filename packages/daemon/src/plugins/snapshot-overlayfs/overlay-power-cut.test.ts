import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { contextOf } from '../../core/request-context.ts';
import { OverlaySnapshotter } from './overlay-snapshotter.ts';

test('a container’s snapshot whose directories, and those of its layer, are lost has both again once the layer is', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'gantry-overlay-cut-'));
  const open = async (name: string, boot: string) => {
    const root = path.join(directory, name);
    return OverlaySnapshotter.open(root, await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') }), { boot });
  };
  const before = await open('before', 'one');
  const step = { ...contextOf('default'), step: true };
  await before.prepare('unpacking', '', {}, step);
  await before.commit('layer', 'unpacking', { layer: { digest: 'sha256:1', mediaType: 'tar' } as never }, step);
  await before.prepare('container', 'layer');
  // What a power cut leaves: the records, and of the directories nothing.
  await cp(path.join(directory, 'before'), path.join(directory, 'after'), { recursive: true });
  await before.close();
  const snapshots = path.join(directory, 'after/snapshots');
  for (const id of ['1', '2']) await rm(path.join(snapshots, id), { recursive: true });

  const after = await open('after', 'two');
  assert.deepEqual(after.suspects(), ['layer']);
  await assert.rejects(after.mounts('container'), (error) => hasCode(error, Code.FailedPrecondition));
  await after.remake('layer', ([mount]) => writeFile(path.join(mount!.source, 'file'), 'again'));
  const options = (await after.mounts('container'))[0]!.options.join(',');
  assert.match(options, /lowerdir=[^,]*\/1\/fs/);
  for (const part of ['1/fs/file', '2/fs', '2/work']) assert.ok(existsSync(path.join(snapshots, part)), part);
  await after.close();
  await rm(directory, { recursive: true });
});
