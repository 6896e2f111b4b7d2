import path from 'node:path';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { OverlaySnapshotter } from './overlay-snapshotter.ts';

/** For the crash test, which opens it in a process of its own. */
export async function openForTest(root: string): Promise<OverlaySnapshotter> {
  return OverlaySnapshotter.open(root, await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') }));
}
