import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { snapshotterContract } from '../../core/snapshots/snapshotter-contract.ts';
import { OverlaySnapshotter } from './overlay-snapshotter.ts';

snapshotterContract(
  'overlayfs',
  async () => {
    const root = await mkdtemp(path.join(tmpdir(), 'gantry-overlay-'));
    const store = () => LmdbStore.open({ path: path.join(root, 'metadata.lmdb'), noSync: true });
    const start = async () => OverlaySnapshotter.open(root, await store(), { mountOptions: ['index=off'] });
    let snapshotter = await start();
    return {
      snapshotter,
      async reopen() {
        await snapshotter.close();
        snapshotter = await start();
        return snapshotter;
      },
      async close() {
        await snapshotter.close();
        await rm(root, { recursive: true });
      },
    };
  },
  { rebase: true },
);
