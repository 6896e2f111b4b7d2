// What is different where cgroup v2 is the only hierarchy: runs on such machines, and in the virtual one of `npm run test:vm`.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statfsSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { Client } from '@gantry/client';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const cgroup2Magic = 0x63677270;
// containerd's own client, and for crun of Debian, which knows the specification up to 1.1, the older one.
const old = ctrClients().find(({ name }) => name === 'ctr 1.6')!;
const client = ctrClients().find(({ name, missing }) => name === 'ctr 2.3.4' && !missing) ?? ctrClients()[0]!;

function whyNot(): string | false {
  if (process.getuid?.() !== 0) return 'containers need root';
  if (statfsSync('/sys/fs/cgroup').type !== cgroup2Magic)
    return 'the host has cgroup v1 (npm run test:vm has a v2-only one)';
  return client.missing ?? false;
}

describe('cgroup v2 only', { skip: whyNot() }, () => {
  const temp = makeTempDir('cgroup2');
  const metricsSocket = path.join(temp.path, 'metrics.sock');
  const daemon = new TestDaemon(path.join(temp.path, 'd'), `[metrics]\n  address = '${metricsSocket}'\n`);
  const ctr = new CtrSession(client, daemon.address, 'v2');
  const oldCtr = new CtrSession(old, daemon.address, 'v2');
  let api: Client;

  before(async () => {
    const layout = path.join(temp.path, 'busybox');
    await buildImage(layout, [busyboxLayer], { Cmd: ['sh'] });
    await run('tar', ['-C', layout, '-cf', `${layout}.tar`, '.']);
    await daemon.start();
    await ctr.ok('images', 'import', '--index-name', 'busybox:1', `${layout}.tar`);
    api = await Client.connect({ address: daemon.address, namespace: 'v2' });
  });

  after(async () => {
    await api.close();
    await daemon.stop();
    await eventually(
      'no process is left',
      () => processesMentioning(daemon.directory).length === 0 || undefined,
      60_000,
    ).catch(() => assert.deepEqual(processesMentioning(daemon.directory), []));
    await temp.remove();
  });

  const file = (group: string, name: string) => readFileSync(path.join('/sys/fs/cgroup', group, name), 'utf8').trim();
  /** The cgroup of a task's init process, below the root. */
  async function groupOf(id: string): Promise<string> {
    const line = (await ctr.ok('tasks', 'ls')).split('\n').find((one) => one.split(/\s+/)[0] === id);
    const pid = line?.split(/\s+/)[1];
    assert.ok(pid, `${id} runs`);
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8')
      .trim()
      .replace(/^0::\//, '');
  }
  const gone = (group: string) => !existsSync(path.join('/sys/fs/cgroup', group));
  async function remove(id: string): Promise<void> {
    await ctr.try('tasks', 'kill', '-s', 'SIGKILL', id);
    await eventually('the task is deleted', async () => (await ctr.try('tasks', 'rm', id)).code === 0 || undefined);
    await ctr.ok('containers', 'rm', id);
  }

  for (const runtime of ['runc', 'crun']) {
    const binary = ['/usr/bin', '/usr/sbin'].map((folder) => `${folder}/${runtime}`).find((name) => existsSync(name));
    const skip = binary ? (runtime === 'crun' ? (old.missing ?? false) : false) : `${runtime} is not installed`;
    const starter = runtime === 'crun' ? oldCtr : ctr;

    test(`limits, metrics, update and the freezer, with ${runtime}`, { skip }, async () => {
      const id = `limits-${runtime}`;
      const limits = ['--memory-limit', String(64 << 20), '--cpu-quota', '50000', '--cpu-period', '100000'];
      await starter.ok('run', '-d', '--runc-binary', binary!, ...limits, 'busybox:1', id, 'sleep', '1000');
      const group = await groupOf(id);
      assert.equal(group, `v2/${id}`);
      assert.equal(file(group, 'memory.max'), String(64 << 20));
      assert.equal(file(group, 'cpu.max'), '50000 100000');
      const table = await ctr.ok('tasks', 'metrics', id);
      assert.match(table, /^memory\.usage_in_bytes +[1-9]|^memory\.usage +[1-9]/m);
      const metric = await api.tasks.get(id).then((task) => task.metrics());
      const json = metric?.json() as { memory?: { usage_limit?: string }; pids?: { current?: string } };
      assert.equal(json.memory?.usage_limit, String(64 << 20));
      assert.equal(json.pids?.current, '1');

      const task = await api.tasks.get(id);
      await task.update({ memory: { limit: 128 << 20 }, pids: { limit: 77 } });
      assert.equal(file(group, 'memory.max'), String(128 << 20));
      assert.equal(file(group, 'pids.max'), '77');

      await ctr.ok('tasks', 'pause', id);
      assert.match(file(group, 'cgroup.events'), /^frozen 1$/m);
      assert.match(await ctr.ok('tasks', 'ls'), new RegExp(`^${id} +\\d+ +PAUSED`, 'm'));
      assert.match((await ctr.try('tasks', 'exec', '--exec-id', 'e', id, 'true')).stderr, /paused/);
      await ctr.ok('tasks', 'resume', id);
      assert.match(file(group, 'cgroup.events'), /^frozen 0$/m);
      await ctr.ok('tasks', 'exec', '--exec-id', 'e', id, 'true');
      await remove(id);
      assert.ok(gone(group), 'the cgroup went with the task');
    });

    test(`a kill for want of memory is told, with ${runtime}`, { skip }, async () => {
      const id = `oom-${runtime}`;
      const stop = new AbortController();
      const events = api.events.subscribe(['topic==/tasks/oom'], { signal: stop.signal });
      const first = (async () => {
        for await (const event of events) return event;
        return undefined;
      })().catch(() => undefined);
      const eat = 'x=$(head -c 100000000 /dev/zero | tr "\\0" x); sleep 1000';
      const limit = ['--memory-limit', String(20 << 20)];
      await starter.ok('run', '-d', '--runc-binary', binary!, ...limit, 'busybox:1', id, 'busybox', 'sh', '-c', eat);
      assert.ok(await first, 'an event came');
      stop.abort();
      await eventually('the metric counts it', async () => {
        const lines = await scrape();
        return (
          new RegExp(`^container_memory_oom_total\\{.*container_id="${id}".*\\} [1-9]`, 'm').test(lines) || undefined
        );
      });
      await remove(id);
    });

    const systemd = existsSync('/run/systemd/system') ? skip : 'systemd does not run here';
    test(`systemd's cgroup driver, with ${runtime}`, { skip: systemd }, async () => {
      const id = `systemd-${runtime}`;
      const unit = ['--runc-systemd-cgroup', '--cgroup', `system.slice:gantry:${id}`];
      const limit = ['--memory-limit', String(64 << 20)];
      await starter.ok('run', '-d', '--runc-binary', binary!, ...unit, ...limit, 'busybox:1', id, 'sleep', '1000');
      const group = await groupOf(id);
      assert.match(group, new RegExp(`^system\\.slice/gantry-${id}\\.scope`));
      assert.match((await run('systemctl', ['show', `gantry-${id}.scope`])).stdout, /^ActiveState=active$/m);
      assert.equal(file(group, 'memory.max'), String(64 << 20));
      const metric = await api.tasks.get(id).then((task) => task.metrics());
      assert.ok(Number((metric?.json() as { memory?: { usage?: string } } | undefined)?.memory?.usage) > 0);
      await ctr.ok('tasks', 'pause', id);
      assert.match(await ctr.ok('tasks', 'ls'), new RegExp(`^${id} +\\d+ +PAUSED`, 'm'));
      await ctr.ok('tasks', 'resume', id);
      await remove(id);
      await eventually('the scope is gone', () => gone(group) || undefined);
    });
  }

  function scrape(): Promise<string> {
    return new Promise((resolve, reject) => {
      http
        .get({ socketPath: metricsSocket, path: '/v1/metrics' }, (response) => text(response).then(resolve, reject))
        .on('error', reject);
    });
  }
});
