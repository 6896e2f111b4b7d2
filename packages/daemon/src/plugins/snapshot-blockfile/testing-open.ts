import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { BlockfileSnapshotter } from './blockfile-snapshotter.ts';

/** For the crash test, which opens it in a process of its own. Nothing is mounted, so any bytes do for a filesystem. */
export async function openForTest(root: string): Promise<BlockfileSnapshotter> {
  const scratch = path.join(root, 'scratch');
  if (!existsSync(scratch)) writeFileSync(scratch, Buffer.alloc(1 << 20, 1));
  const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
  return BlockfileSnapshotter.open(root, store, { fsType: 'ext4', mountOptions: [] });
}
