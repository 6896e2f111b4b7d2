import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { markPrograms } from './stray-programs.ts';

const sleeper = (entry: string) => {
  const at = entry.indexOf('=');
  // Its child inherits the mark.
  return spawn('sh', ['-c', 'sleep 1000; true'], {
    env: { ...process.env, [entry.slice(0, at)]: entry.slice(at + 1) },
    stdio: 'ignore',
  });
};

test('programs of an earlier life are ended, others are not', async (t) => {
  const root = `/gantry-test-${process.pid}`;
  const earlier = sleeper(markPrograms(root).entry);
  const mark = markPrograms(root);
  const others = [sleeper(mark.entry), sleeper(markPrograms(`${root}-other`).entry)];
  t.after(async () => {
    for (const other of others) process.kill(other.pid!, 'SIGKILL');
    await markPrograms(root).endStrays();
    await markPrograms(`${root}-other`).endStrays();
  });
  await Promise.all([earlier, ...others].map((child) => once(child, 'spawn')));
  const exit = once(earlier, 'exit');
  assert.ok((await mark.endStrays()) >= 1);
  const [, signal] = await exit;
  assert.equal(signal, 'SIGKILL');
  assert.deepEqual(
    others.map(({ exitCode, signalCode }) => exitCode ?? signalCode),
    [null, null],
  );
});
