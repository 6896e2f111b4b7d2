import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { PluginProcesses } from './plugin-processes.ts';

test('what a daemon before has left is ended, and nobody else', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'nri-processes-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const [left, ended, stranger] = [1, 2, 3].map(() => spawn('sleep', ['1000'], { stdio: 'ignore' }));
  t.after(() => stranger!.kill('SIGKILL'));
  await Promise.all([left, ended, stranger].map((child) => once(child!, 'spawn')));
  const before = new PluginProcesses(directory);
  before.note(left!.pid!);
  before.note(ended!.pid!);
  ended!.kill('SIGKILL');
  await once(ended!, 'exit');
  // As if its number had been another process's.
  writeFileSync(path.join(directory, String(stranger!.pid)), '1');
  const gone = once(left!, 'exit');
  await new PluginProcesses(directory).endLeftOver();
  await gone;
  assert.deepEqual([stranger!.exitCode, stranger!.signalCode], [null, null]);
  assert.deepEqual(readdirSync(directory), []);
  await new PluginProcesses(path.join(directory, 'never-made')).endLeftOver();
});
