// gVisor’s runsc as the OCI runtime of our own shim: containers with a kernel of their own.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const image = 'x/busybox:1';
const client = ctrClients().find(({ name }) => name === 'ctr 2.3.4')!;
const skip =
  process.getuid?.() !== 0
    ? 'containers need root'
    : spawnSync('runsc', ['--version']).status === 0
      ? (client.missing ?? false)
      : 'runsc is not installed';

describe('runsc under gantry-shim', { skip }, () => {
  const temp = makeTempDir('runsc');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const ctr = new CtrSession(client, daemon.address, 'sandboxed');
  const runsc = path.join(temp.path, 'runsc');

  before(async () => {
    // ctr has no way to pass flags to the runtime. runsc wants a network namespace with a network in it, or this.
    writeFileSync(runsc, '#!/bin/sh\nexec runsc --network=none "$@"\n', { mode: 0o755 });
    const archive = await busyboxArchive(temp.path, image);
    await daemon.start();
    await ctr.ok('images', 'import', archive);
  });

  after(async () => {
    await ctr.try('tasks', 'rm', '-f', 'web');
    await daemon.stop();
    await temp.remove();
  });

  test('runs a container to its end', async () => {
    const script = 'cat /proc/version; echo err >&2; exit 4';
    const result = await ctr.try('run', '--rm', '--runc-binary', runsc, image, 'one', 'sh', '-c', script);
    assert.equal(result.code, 4);
    // gVisor’s own kernel, which says the same everywhere.
    assert.match(result.stdout, /^Linux version 4\.4\.0 #1 SMP/);
    assert.match(result.stderr, /^err$/m);
  });

  test('execs, outlives the daemon, is killed and deleted', async () => {
    await ctr.ok('run', '-d', '--runc-binary', runsc, image, 'web', 'sleep', '1000');
    const failed = await ctr.try('tasks', 'exec', '--exec-id', 'e1', 'web', 'sh', '-c', 'echo hi; exit 6');
    assert.deepEqual([failed.code, failed.stdout], [6, 'hi\n']);
    const before = await ctr.ok('tasks', 'ls');
    assert.match(before, /^web +\d+ +RUNNING/m);
    await daemon.kill();
    await daemon.start();
    assert.equal(await ctr.ok('tasks', 'ls'), before);
    assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e2', 'web', 'echo', 'still'), 'still\n');
    await ctr.ok('tasks', 'kill', '-s', 'KILL', 'web');
    await eventually('it has ended', async () => /STOPPED/.test(await ctr.ok('tasks', 'ls')) || undefined);
    assert.match((await ctr.try('tasks', 'rm', 'web')).stderr, /task web exit with non-zero exit code 137/);
    await ctr.ok('containers', 'rm', 'web');
  });
});
