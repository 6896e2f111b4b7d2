import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { snapshotterContract } from '../../core/snapshots/snapshotter-contract.ts';
import { NativeSnapshotter } from './native-snapshotter.ts';

snapshotterContract('native', async () => {
  const root = await mkdtemp(path.join(tmpdir(), 'gantry-native-'));
  const store = () => LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true });
  let snapshotter = await NativeSnapshotter.open(root, await store());
  return {
    snapshotter,
    async reopen() {
      await snapshotter.close();
      snapshotter = await NativeSnapshotter.open(root, await store());
      return snapshotter;
    },
    async close() {
      await snapshotter.close();
      await rm(root, { recursive: true });
    },
  };
});
