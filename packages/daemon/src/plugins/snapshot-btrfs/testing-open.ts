import path from 'node:path';
import { lookupMount } from '@gantry/sys';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { BtrfsSnapshotter } from './btrfs-snapshotter.ts';

/** For the crash test, which opens it in a process of its own. */
export async function openForTest(root: string): Promise<BtrfsSnapshotter> {
  const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
  return BtrfsSnapshotter.open(root, lookupMount(root)!.source, store);
}
