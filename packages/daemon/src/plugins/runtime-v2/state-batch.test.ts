import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, hasCode, unavailable, unimplemented } from '@gantry/api';
import type { ShimConnection } from './shim-connection.ts';
import { StateBatch } from './state-batch.ts';

/** A batch whose shim has the containers `a` and `b`, and what was asked of it. */
function batchOf(fail?: () => unknown) {
  const asked: string[][] = [];
  const states = async ({ ids }: { ids: string[] }) => {
    asked.push(ids);
    if (fail) throw fail();
    return { states: ids.filter((id) => id === 'a' || id === 'b').map((id) => ({ id, pid: id.charCodeAt(0) })) };
  };
  const connection = { shim: { states } } as unknown as ShimConnection;
  return { asked, batch: new StateBatch('ns', () => Promise.resolve(connection)) };
}

test('questions of one turn are one call, and who is not there is left to be asked for alone', async () => {
  const { asked, batch } = batchOf();
  const answers = await Promise.all(['a', 'c', 'b'].map((id) => batch.ask(id, 1000)));
  assert.deepEqual(
    answers.map((answer) => answer?.pid),
    [97, undefined, 98],
  );
  assert.deepEqual(asked, [['a', 'c', 'b']]);
});

test('a question alone is no batch', async () => {
  const { asked, batch } = batchOf();
  assert.equal(await batch.ask('a', 1000), undefined);
  assert.deepEqual(asked, []);
});

test('an older shim is tried once; one that fails is tried again', async () => {
  for (const [fail, calls] of [
    [() => unimplemented('unknown service'), 1],
    [() => unavailable('closed'), 2],
  ] as const) {
    const { asked, batch } = batchOf(fail);
    for (let round = 0; round < 2; round++)
      assert.deepEqual(await Promise.all([batch.ask('a', 1000), batch.ask('b', 1000)]), [undefined, undefined]);
    assert.equal(asked.length, calls);
  }
});

test('a shim that does not come up is waited for no longer than the call may take', async () => {
  const batch = new StateBatch('ns', () => new Promise(() => undefined));
  const late = (error: unknown): boolean => hasCode(error, Code.DeadlineExceeded);
  await Promise.all([assert.rejects(batch.ask('a', 5), late), assert.rejects(batch.ask('b', 5), late)]);
});
