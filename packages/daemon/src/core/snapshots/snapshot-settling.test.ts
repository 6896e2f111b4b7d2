import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { Logger } from '../log/logger.ts';
import { LmdbStore } from '../metadata/lmdb-store.ts';
import { keys } from '../metadata/schema.ts';
import { SnapshotSettling } from './snapshot-settling.ts';
import type { Snapshotter } from './snapshotter.ts';

test('what was brought to disk by itself is told to the collector, which has kept its layer until then', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-settling-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const store = await LmdbStore.open({ path: path.join(directory, 'meta.lmdb'), noSync: true });
  t.after(() => store.close());
  const told = Promise.withResolvers<boolean>();
  const quiet = (): void => undefined;
  const log: Logger = { trace: quiet, debug: quiet, info: quiet, warn: quiet, error: quiet, with: () => log };
  let settled = 0;
  const backend = { settle: async () => void settled++ } as unknown as Snapshotter;
  const settling = new SnapshotSettling('memory', backend, { store, log, mutated: told.resolve });
  const key = keys.snapshot('default', 'memory', 'committed');
  await store.update((tx) => {
    tx.put(keys.namespace('default'), {});
    tx.put(key, { backendKey: 'one', layer: { digest: 'sha256:0' } });
  });
  // Its own timer keeps nobody alive.
  const alive = setInterval(() => undefined, 1000);
  t.after(() => clearInterval(alive));
  settling.soon();
  assert.equal(await told.promise, true);
  assert.deepEqual([settled, store.view((tx) => tx.get(key))], [1, { backendKey: 'one' }]);
  // The collector's own look: it goes on by itself.
  assert.equal(await settling.settle(), false);
});
