import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

// containerd's own client labels the containers; the daemon keeps them as their labels want.
const client = ctrClients().find(({ name, missing }) => name === 'ctr 2.3.4' && !missing) ?? ctrClients()[0]!;
const skip = process.getuid?.() === 0 ? (client.missing ?? false) : 'containers need root';

describe('the monitors of containers and tasks', { skip }, () => {
  const temp = makeTempDir('restart');
  const daemon = new TestDaemon(
    path.join(temp.path, 'd'),
    `[plugins.'io.containerd.monitor.container.v1.restart']
  interval = '100ms'
[metrics]
  address = '${temp.path}/metrics.sock'
`,
  );
  const ctr = new CtrSession(client, daemon.address, 'restart');
  const log = path.join(temp.path, 'output.log');

  before(async () => {
    const layout = path.join(temp.path, 'busybox');
    await buildImage(layout, [busyboxLayer], { Cmd: ['sh'] });
    await run('tar', ['-C', layout, '-cf', `${layout}.tar`, '.']);
    await daemon.start();
    await ctr.ok('images', 'import', '--index-name', 'busybox:1', `${layout}.tar`);
  });

  after(async () => {
    await daemon.stop();
    // A shim that was starting when its daemon was killed stays for as long as a place for a container is kept.
    await eventually(
      'no process is left',
      () => processesMentioning(daemon.directory).length === 0 || undefined,
      60_000,
    ).catch(() => assert.deepEqual(processesMentioning(daemon.directory), []));
    await temp.remove();
  });

  const start = (id: string, labels: Record<string, string>, ...command: string[]) =>
    ctr.ok(
      'run',
      '-d',
      ...Object.entries(labels).flatMap(([name, value]) => ['--label', `containerd.io/restart.${name}=${value}`]),
      'busybox:1',
      id,
      ...command,
    );

  async function task(id: string): Promise<{ pid: number; status: string } | undefined> {
    const line = (await ctr.ok('tasks', 'ls')).split('\n').find((one) => one.split(/\s+/)[0] === id);
    const [, pid, status] = line?.split(/\s+/) ?? [];
    return line === undefined ? undefined : { pid: Number(pid), status: status ?? '' };
  }

  async function label(id: string, name: string): Promise<string | undefined> {
    const info = JSON.parse(await ctr.ok('containers', 'info', id)) as { Labels: Record<string, string> };
    return info.Labels[`containerd.io/restart.${name}`];
  }

  function scrape(): Promise<string> {
    return new Promise((resolve, reject) => {
      const request = http.get(
        { socketPath: path.join(temp.path, 'metrics.sock'), path: '/v1/metrics' },
        (response) => {
          text(response).then(resolve, reject);
        },
      );
      request.on('error', reject);
    });
  }

  async function remove(id: string): Promise<void> {
    await ctr.ok('containers', 'label', id, 'containerd.io/restart.status=');
    await ctr.try('tasks', 'rm', '-f', id);
    await ctr.ok('containers', 'rm', id);
  }

  test('a running container shows its numbers to Prometheus, a removed one does not', async () => {
    await start('counted', {}, 'sleep', '600');
    const shown = await scrape();
    const runtime = 'io.containerd.runc.v2';
    for (const name of ['container_pids_current', 'container_memory_oom_total']) {
      const line = new RegExp(
        `^${name}\\{container_id="counted",namespace="restart",runtime="${runtime}"\\} \\d+$`,
        'm',
      );
      assert.match(shown, line);
    }
    assert.match(shown, /^container_(cpu_total_nanoseconds|cpu_usage_usec_microseconds)\{[^}]*\} [1-9]/m);
    assert.match(shown, /^container_(memory_usage_usage_bytes|memory_usage_bytes)\{[^}]*\} [1-9]/m);
    await remove('counted');
    assert.doesNotMatch(await scrape(), /counted/);
  });

  test('a killed container comes back, its output in the log', async () => {
    const first = await start('web', { status: 'running', loguri: `file://${log}` }, 'sh', '-c', 'echo up; sleep 600');
    assert.doesNotMatch(first, /error/);
    const before = await task('web');
    assert.equal(before?.status, 'RUNNING');
    await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'web');
    const again = await eventually('it runs again', async () => {
      const now = await task('web');
      return now?.status === 'RUNNING' && now.pid !== before?.pid ? now : undefined;
    });
    assert.equal(await label('web', 'count'), '1');
    await eventually('its output is in the log', () => readFileSync(log, 'utf8').includes('up\n') || undefined);

    // And across a restart of the daemon, which finds it ended.
    await daemon.kill();
    process.kill(again.pid, 'SIGKILL');
    await daemon.start();
    await eventually('the next daemon starts it', async () => {
      const now = await task('web');
      return (now?.status === 'RUNNING' && now.pid !== again.pid) || undefined;
    });
    assert.equal(await label('web', 'count'), '2');
  });

  test('a container whose label says stopped is ended and stays ended', async () => {
    await ctr.ok('containers', 'label', 'web', 'containerd.io/restart.status=stopped');
    await eventually('it has no task', async () => ((await task('web')) === undefined ? true : undefined));
    await remove('web');
  });

  test('on-failure:1 tries once more', async () => {
    await start(
      'fails',
      { status: 'running', policy: 'on-failure:1', loguri: `file://${log}.2` },
      'sh',
      '-c',
      'echo x; exit 3',
    );
    await eventually('it was started a second time and ended', async () => {
      const count = await label('fails', 'count');
      return (count === '1' && (await task('fails'))?.status === 'STOPPED') || undefined;
    });
    const rounds = daemon.log().split('container restarted').length;
    // Another container that is restarted shows that the monitor has looked again.
    await start('other', { status: 'running' }, 'true');
    await eventually(
      'the monitor goes on',
      () => daemon.log().split('container restarted').length > rounds + 1 || undefined,
    );
    assert.equal(await label('fails', 'count'), '1');
    await remove('other');
    await remove('fails');
  });

  test('unless-stopped leaves alone what somebody stopped', async () => {
    await start('mine', { status: 'running', policy: 'unless-stopped', 'explicitly-stopped': 'true' }, 'sleep', '600');
    await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'mine');
    await eventually('it is stopped', async () => ((await task('mine'))?.status === 'STOPPED' ? true : undefined));
    await ctr.ok('containers', 'label', 'mine', 'containerd.io/restart.explicitly-stopped=');
    await eventually('it is started', async () => ((await task('mine'))?.status === 'RUNNING' ? true : undefined));
    await remove('mine');
    await ctr.ok('images', 'rm', '--sync', 'busybox:1');
    await ctr.ok('namespaces', 'rm', '-c', 'restart');
  });
});
