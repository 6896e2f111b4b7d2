import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { it } from 'node:test';
import { killSnapshotter } from '../../core/snapshots/snapshotter-crash-contract.ts';

it('survives kill -9 at any moment: no answered snapshot lost, no directory left after cleanup', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'gantry-overlay-crash-'));
  await killSnapshotter({
    module: new URL('./testing-open.ts', import.meta.url).href,
    directory,
    onDisk: async (root) => (await readdir(path.join(root, 'snapshots'))).length,
    viewsOnDisk: true,
  });
  await rm(directory, { recursive: true });
});
