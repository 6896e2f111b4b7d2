import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MemoryMetadataStore } from '../../core/snapshots/memory-metadata-store.ts';
import { snapshotterContract } from '../../core/snapshots/snapshotter-contract.ts';
import { OverlaySnapshotter } from './overlay-snapshotter.ts';

snapshotterContract(
  'overlayfs',
  async () => {
    const root = await mkdtemp(path.join(tmpdir(), 'gantry-overlay-'));
    const store = new MemoryMetadataStore();
    const start = () => OverlaySnapshotter.open(root, store, { mountOptions: ['index=off'] });
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
