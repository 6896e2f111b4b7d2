import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { TestDaemon } from '../lib/daemon.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'the daemon needs root';
const temp = makeTempDir('docs');
const daemon = new TestDaemon(temp.path);

before(async () => {
  if (!skip) await daemon.start();
});
after(async () => {
  if (!skip) await daemon.stop();
  await temp.remove();
});

// packages/client runs them against Debian's containerd by itself.
test('every example of docs/client.md runs against gantryd', { skip }, async () => {
  const file = path.resolve(import.meta.dirname, '../../packages/client/src/docs.test.ts');
  // With the variable the inner run would take itself for a part of this one.
  const words = ['-u', 'NODE_TEST_CONTEXT', process.execPath, '--test', '--test-reporter=spec', file];
  const { stdout } = await run('env', words, { env: { GANTRY_TEST_ADDRESS: daemon.address }, timeoutMs: 120_000 });
  assert.match(stdout, /^ℹ fail 0$/m);
  const passed = Number(/^ℹ pass (\d+)$/m.exec(stdout)?.[1] ?? 0);
  assert.ok(passed >= 11, `only ${passed} examples ran:\n${stdout}`);
});
