// `ctr shim`: our ctr, and containerd's, speaking to the shim of a running container without the daemon.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'containers need root';
const [own, , theirs] = ctrClients();

describe('ctr shim', { skip: skip || (own!.missing ?? false) }, () => {
  const temp = makeTempDir('shim-command');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const ctr = new CtrSession(own!, daemon.address, 'shims');

  before(async () => {
    const archive = await busyboxArchive(temp.path, 'x/busybox:1');
    await daemon.start();
    await ctr.ok('images', 'import', archive);
    await ctr.ok('run', '-d', 'x/busybox:1', 'web', 'sh', '-c', 'trap "exit 5" TERM; while :; do sleep 0.1; done');
  });

  after(async () => {
    await ctr.try('tasks', 'rm', '-f', 'web');
    await daemon.stop();
    await temp.remove();
  });

  test('tells the state of the task, as containerd’s ctr reads it', async () => {
    const state = await ctr.ok('shim', '--id', 'web', 'state');
    const json = JSON.parse(state) as { id: string; pid: number; status: number; bundle: string };
    assert.equal(json.id, 'web');
    assert.equal(json.status, 2);
    assert.match(await ctr.ok('tasks', 'ls'), new RegExp(`^web +${json.pid} +RUNNING`, 'm'));
    assert.equal(await ctr.ok('shim', '--id', 'web', 'state', '--api-version', '2'), state);
    const bootstrap = path.join(json.bundle, 'bootstrap.json');
    const { address } = JSON.parse(readFileSync(bootstrap, 'utf8')) as { address: string };
    const args = ['shim', '--shim-address', address, 'state', '-t', 'web'];
    assert.equal(await ctr.ok(...args), state);
    if (theirs!.missing) return;
    const other = new CtrSession(theirs!, daemon.address, 'shims');
    assert.equal((await other.ok(...args)).trim(), state.trim());
  });

  test('runs another process, attached to its output', async () => {
    const spec = path.join(temp.path, 'process.json');
    const args = ['sh', '-c', 'echo "$WHAT in $(pwd)"'];
    writeFileSync(spec, JSON.stringify({ user: { uid: 0, gid: 0 }, args, env: ['PATH=/bin'], cwd: '/' }));
    const flags = ['--spec', spec, '--stdout', path.join(temp.path, 'out'), '--stderr', path.join(temp.path, 'err')];
    const printed = await ctr.ok(
      'shim',
      '--id',
      'web',
      'exec',
      ...flags,
      '-a',
      '-e',
      'WHAT=here',
      '--cwd',
      '/tmp',
      'e1',
    );
    assert.match(printed, /^exec running with pid \d+$/m);
    assert.match(printed, /^here in \/tmp$/m);
  });

  test('names what is missing', async () => {
    for (const [args, message] of [
      [['state'], /shim ID \(--id\) or address \(--shim-address\) must be specified/],
      [
        ['--id', 'nobody', 'state'],
        /fail to connect to container shim with sockets: \[unix:\/\/\/run\/containerd\/s\//,
      ],
      [['--id', 'web', 'state', '--api-version', '4'], /api-version must be 2 or 3/],
      [['--id', 'web', 'state', '-t', 'other'], /container not created/],
      [['--id', 'web', 'exec'], /exec id must be provided/],
    ] as const) {
      const { code, stderr } = await ctr.try('shim', ...args);
      assert.equal(code, 1);
      assert.match(stderr, message);
    }
  });

  test('deletes a task that has ended', async () => {
    await ctr.ok('tasks', 'kill', 'web');
    for (let tries = 0; tries < 100; tries++) {
      if ((JSON.parse(await ctr.ok('shim', '--id', 'web', 'state')) as { status: number }).status === 3) break;
    }
    assert.equal(await ctr.ok('shim', '--id', 'web', 'delete'), 'container deleted and returned exit status 5\n');
  });
});
