// Containers of Kubernetes whose streams are messages (`io_type = "streaming"`): crictl against our daemon and our shim.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const patience = 60_000;

describe('containers with io_type = "streaming"', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('criio');
  const handler = (name: string, sandboxer: string) => `
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.${name}]
  runtime_type = 'io.containerd.gantry.v1'
  sandboxer = '${sandboxer}'
  io_type = 'streaming'
`;
  const lab = new CriLab(
    temp.path,
    { bridge: 'gantryio0', subnet: '10.226.0.0/24' },
    `  drain_exec_sync_io_timeout = '2s'\n${handler('streams', 'shim')}${handler('nowhere', 'podsandbox')}`,
  );
  let pod: string;
  let podId: string;

  before(async () => {
    await lab.start();
    await lab.ok('pull', 'busybox:1');
    pod = lab.pod('io', { dns_config: { servers: ['10.9.8.7'], searches: ['pods.test'] } });
    podId = await lab.ok('runp', '--runtime', 'streams', pod);
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  async function start(name: string, command: string[], more: object = {}): Promise<string> {
    const id = await lab.ok('create', podId, lab.container(name, command, more), pod);
    await lab.ok('start', id);
    return id;
  }
  const log = (name: string) =>
    readFileSync(path.join(temp.path, 'logs/io', `${name}.log`), 'latin1').replace(/^\S+ /gm, '');
  const says = (name: string, text: string) =>
    eventually(`${name} says ${text.slice(0, 40)}`, async () => log(name).includes(text) || undefined, patience);
  const ended = (id: string) =>
    eventually(
      `${id} ends`,
      async () => {
        const { status } = await lab.json<{ status: { state: string; exitCode: number } }>('inspect', id);
        return status.state === 'CONTAINER_EXITED' ? status : undefined;
      },
      patience,
    );

  test('output of one that ends is in its log, all of it', async () => {
    const lines = 'i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i + 1)); done; echo last >&2; exit 3';
    const id = await start('short', ['sh', '-c', lines]);
    assert.equal((await ended(id)).exitCode, 3);
    const told = log('short').split('\n');
    assert.deepEqual(
      told.filter((line) => line.startsWith('stdout')),
      Array.from({ length: 20_000 }, (_, index) => `stdout F line ${index}`),
    );
    assert.ok(told.includes('stderr F last'));
  });

  test('exec with output, input and exit code, and a terminal', async () => {
    const id = await start('long', ['sleep', '1000']);
    assert.equal(await lab.ok('exec', '-s', id, 'echo', 'hello'), 'hello');
    // The pod's own files are there, whoever made the sandbox.
    assert.equal(await lab.ok('exec', '-s', id, 'cat', '/etc/resolv.conf'), 'search pods.test\nnameserver 10.9.8.7');
    const failed = await lab.crictl(['exec', '-s', id, 'sh', '-c', 'echo wrong >&2; exit 7'], { mayFail: true });
    assert.notEqual(failed.code, 0);
    assert.match(failed.stdout + failed.stderr, /wrong/);
    const tty = await start('tty', ['sh', '-c', 'test -t 0 && echo terminal; sleep 1000'], { tty: true, stdin: true });
    await says('tty', 'stdout F terminal\r\n');
    await lab.ok('stop', '-t', '0', tty);
  });

  test('what an exec leaves behind does not hold up its answer for longer than drain_exec_sync_io_timeout', async () => {
    const id = await start('behind', ['sleep', '1000']);
    // The command's own time is up before that of its output, but it has ended in time.
    const { code, stderr } = await lab.crictl(
      ['exec', '-s', '--timeout', '1', id, 'sh', '-c', 'sleep 1000 & echo begun'],
      { mayFail: true },
    );
    assert.notEqual(code, 0);
    assert.match(
      stderr,
      /code = Unknown .*failed to drain exec process .* because io is still held by other processes/,
    );
    await lab.ok('stop', '-t', '0', id);
  });

  test('after kill -9 of the daemon it goes on', async () => {
    const id = await start('kill', [
      'sh',
      '-c',
      'echo before; until [ -e /go ]; do sleep 0.1; done; echo after; sleep 1000',
    ]);
    await says('kill', 'stdout F before');
    await lab.daemon.kill();
    await lab.daemon.start();
    assert.equal(await lab.ok('exec', '-s', id, 'touch', '/go'), '');
    await says('kill', 'stdout F after');
    await lab.ok('stop', '-t', '0', id);
  });

  test('nothing is left of what carried it', async () => {
    await lab.ok('rmp', '-a', '-f');
    const left = readdirSync(lab.daemon.state, { recursive: true, encoding: 'utf8' }).filter((name) =>
      path.basename(name).startsWith('streams-'),
    );
    assert.deepEqual(left, []);
  });

  test('a sandbox without an address is told so', async () => {
    const other = lab.pod('other');
    const id = await lab.ok('runp', '--runtime', 'nowhere', other);
    const { code, stderr } = await lab.crictl(['create', id, lab.container('none', ['true']), other], {
      mayFail: true,
    });
    assert.notEqual(code, 0);
    assert.match(stderr, /address can not be empty for io stream/);
  });
});
