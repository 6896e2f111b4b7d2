import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ProgramRunner } from './program-runner.ts';

describe('helper programs', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'gantry-programs-'));
  });
  after(() => rmSync(dir, { recursive: true }));

  test('are remembered while they run, and not longer', async () => {
    const records = path.join(dir, 'records');
    const runner = ProgramRunner.open(records);
    const script = `ls ${records} | wc -l; echo $$; ls ${records}`;
    const options = { file: '/bin/sh', args: ['-c', script], timeoutMs: 20_000, limit: 1000 };
    const { stdout } = await runner.run(options);
    const [count, pid, name] = stdout.bytes.toString().trim().split('\n');
    // The record may be written a moment after the program began.
    if (count === '1') assert.equal(name, pid);
    assert.deepEqual(readdirSync(records), []);
    await assert.rejects(runner.run({ ...options, file: '/nonexistent' }), /no such file or directory/);
    assert.deepEqual(readdirSync(records), []);
  });

  test('that a dead daemon left are ended by the next, and nothing else is', async () => {
    const records = path.join(dir, 'left');
    mkdirSync(records);
    const start = (mark: string, script: string) =>
      spawn('/bin/sh', ['-c', script], {
        detached: true,
        stdio: 'ignore',
        env: { ...process.env, GANTRY_PROGRAM: mark },
      });
    const left = start('mine', 'sleep 600 & wait');
    const stranger = start('another', 'sleep 600 & wait');
    const ended = once(left, 'exit');
    writeFileSync(path.join(records, String(left.pid)), 'mine');
    writeFileSync(path.join(records, String(stranger.pid)), 'mine');
    ProgramRunner.open(records);
    const [, signal] = (await ended) as [number | null, string];
    assert.equal(signal, 'SIGKILL');
    assert.ok(!existsSync(records));
    assert.equal(stranger.exitCode ?? stranger.signalCode, null);
    process.kill(-(stranger.pid ?? 0), 'SIGKILL');
    await once(stranger, 'exit');
  });
});
