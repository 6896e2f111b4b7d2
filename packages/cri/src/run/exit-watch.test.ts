import assert from 'node:assert/strict';
import { test } from 'node:test';
import { notFound, unavailable } from '@gantry/api';
import type { Cri } from '../cri.ts';
import { removeTask } from './exit-watch.ts';

test('a task that cannot be removed is tried again with longer and longer waits, and nobody waits for ever', async () => {
  const waits: number[] = [];
  let heldUp = 0;
  let released = false;
  let tries = 0;
  const over = Promise.withResolvers<void>();
  const cri = {
    tasks: {
      delete: async () => {
        tries += 1;
        if (tries < 10) throw unavailable('its shim is away');
        over.resolve();
        throw notFound('gone');
      },
    },
    log: { error() {} },
  } as unknown as Pick<Cri, 'tasks' | 'log'>;
  const pause = async (ms: number): Promise<void> => {
    waits.push(ms / 1000);
    // Whoever waits for the removal gets a turn.
    await new Promise((resolve) => setImmediate(resolve));
    if (!released) heldUp += ms / 1000;
  };
  void removeTask(cri, 'c', 'k8s.io', pause).then(() => {
    released = true;
  });
  await over.promise;
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
  assert.equal(heldUp, 15);
  assert.equal(tries, 10);
});
