import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Code, StatusError, unpackAny } from '@gantry/api';
import { MetricsSchema as V1 } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { MetricsSchema as V2 } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { spawn, waitExit } from '@gantry/sys';
import * as room from './index.ts';
import * as legacy from './v1/group.ts';
import { memorySettings, settings as v1Settings } from './v1/update.ts';
import * as unified from './v2/group.ts';
import { watchFiles } from './v2/oom.ts';
import { settings as v2Settings } from './v2/update.ts';

const samples = fileURLToPath(new URL('./testdata/', import.meta.url));
const rootsOf = (name: string): room.Roots => ({ root: join(samples, name, 'fs'), proc: join(samples, name, 'proc') });
const notRoot = process.geteuid?.() === 0 ? false : 'needs root';

test('the mode is told by the files', async () => {
  assert.equal(await room.cgroupMode(rootsOf('unified')), 'unified');
  assert.equal(await room.cgroupMode(rootsOf('legacy')), 'legacy');
});

test('v2 metrics of a process', async () => {
  const any = await room.statsForPid(42, rootsOf('unified'));
  assert.match(any.typeUrl, /io\.containerd\.cgroups\.v2\.Metrics$/);
  const metrics = unpackAny(V2, any);
  assert.deepEqual([metrics.pids?.current, metrics.pids?.limit], [7n, room.unlimited]);
  assert.deepEqual([metrics.cpu?.usageUsec, metrics.cpu?.throttledUsec, metrics.cpu?.burstUsec], [5000001n, 345n, 9n]);
  assert.deepEqual([metrics.cpu?.psi?.some?.avg10, metrics.cpu?.psi?.full?.total], [1.5, 7n]);
  const { memory } = metrics;
  assert.deepEqual(
    [memory?.anon, memory?.usage, memory?.usageLimit, memory?.maxUsage, memory?.swapUsage, memory?.swapLimit],
    [65536n, 104857600n, 268435456n, 134217728n, 4096n, room.unlimited],
  );
  assert.deepEqual([memory?.workingsetRefault, memory?.workingsetActivate, memory?.pgscan], [123n, 3n, 2n ** 64n - 1n]);
  assert.deepEqual([metrics.memoryEvents?.oomKill, metrics.memoryEvents?.oomGroupKill], [4n, 5n]);
  assert.deepEqual(
    metrics.io?.usage.map(({ major, minor, rbytes, wios }) => [major, minor, rbytes, wios]),
    [
      [8n, 0n, 4096n, 2n],
      [253n, 1n, 1n, 0n],
    ],
  );
  assert.equal(metrics.io?.psi, undefined);
  assert.deepEqual([metrics.rdma?.current[0]?.hcaObjects, metrics.rdma?.limit[0]?.hcaHandles], [20, 0xffffffff]);
  assert.deepEqual([metrics.hugetlb[0]?.pagesize, metrics.hugetlb[0]?.failcnt], ['2MB', 3n]);
});

test('v1 metrics of a process', async () => {
  const any = await room.statsForPid(42, rootsOf('legacy'));
  assert.match(any.typeUrl, /io\.containerd\.cgroups\.v1\.Metrics$/);
  const metrics = unpackAny(V1, any);
  assert.deepEqual([metrics.pids?.current, metrics.pids?.limit], [3n, 0n]);
  assert.deepEqual(
    [metrics.cpu?.usage?.total, metrics.cpu?.usage?.user, metrics.cpu?.usage?.kernel, metrics.cpu?.usage?.perCpu],
    [5000000001n, 3_000_000_000n, 2_000_000_000n, [2000000000n, 3000000001n]],
  );
  assert.equal(metrics.cpu?.throttling?.throttledTime, 345000n);
  const { memory } = metrics;
  assert.deepEqual([memory?.rss, memory?.totalInactiveFile, memory?.hierarchicalSwapLimit], [200n, 12n, 99n]);
  assert.deepEqual(
    [memory?.usage?.usage, memory?.usage?.failcnt, memory?.kernel?.usage, memory?.swap],
    [300n, 1n, 50n, undefined],
  );
  assert.equal(metrics.memoryOomControl?.oomKill, 2n);
  const [entry, ...others] = metrics.blkio?.ioServiceBytesRecursive ?? [];
  assert.deepEqual([entry?.op, entry?.device, entry?.value, others.length], ['Read', '/dev/sda', 4096n, 1]);
});

test('where a process is', async () => {
  const paths = await room.pidCgroupPaths(42, rootsOf('legacy'));
  assert.equal(paths.controllers.get('name=systemd'), '/system.slice/x:y.scope');
  assert.equal(paths.unified, '/');
  const roots = rootsOf('legacy');
  assert.equal(await room.cgroupPathFor(42, 'memory', roots), join(roots.root!, 'memory/web'));
  assert.equal(await room.cgroupPathFor(42, 'cpuacct', roots), join(roots.root!, 'cpu,cpuacct/demo/web'));
  await assert.rejects(room.cgroupPathFor(42, 'name=systemd', roots), { code: Code.FailedPrecondition });
  const other = rootsOf('unified');
  assert.equal(await room.cgroupPathFor(42, 'memory', other), join(other.root!, 'demo.slice/web.scope'));
  await assert.rejects(room.statsForPid(43, other), { code: Code.NotFound });
});

test('groups that are not there', async () => {
  for (const name of ['unified', 'legacy']) {
    await assert.rejects(
      room.loadCgroup('/none', rootsOf(name)),
      (error) => error instanceof StatusError && error.code === Code.NotFound,
    );
  }
  const group = await room.loadCgroup('/demo/web', rootsOf('legacy'));
  assert.deepEqual(await group.procs(true), [42]);
});

test('systemd names', () => {
  assert.equal(
    room.expandSlice('kubepods-burstable-pod1.slice'),
    'kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice',
  );
  assert.equal(room.expandSlice('-.slice'), '');
  assert.equal(room.systemdCgroupPath('a-b.slice:cri-containerd:x'), '/a.slice/a-b.slice/cri-containerd-x.scope');
  assert.equal(room.systemdCgroupPath('::x'), '/system.slice/x.scope');
  assert.equal(room.systemdCgroupPath('-.slice:p:own.slice'), '/own.slice');
  assert.ok(room.isSystemdPath('a.slice:b:c') && !room.isSystemdPath('/a:b:c'));
  for (const bad of ['a/b.slice', '.slice', 'a--b.slice', 'a'])
    assert.throws(() => room.expandSlice(bad), { code: Code.InvalidArgument });
});

const resources: room.LinuxResources = {
  cpu: { shares: 1024, quota: 50_000n, period: 100_000, cpus: '0-1' },
  memory: { limit: 1000n, swap: 1500, reservation: 500 },
  pids: { limit: -1 },
  blockIO: { weight: 500, throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 77 }] },
  hugepageLimits: [{ pageSize: '2MB', limit: 4096 }],
};

test('resources as v2 settings', () => {
  assert.deepEqual(
    v2Settings({ ...resources, unified: { 'memory.high': '9' } }).map(({ file, value }) => `${file}=${value}`),
    [
      'cpuset.cpus=0-1',
      'cpu.weight=39',
      'cpu.max=50000 100000',
      'memory.swap.max=500',
      'memory.max=1000',
      'memory.low=500',
      'pids.max=max',
      'io.weight=4950',
      'io.max=8:0 rbps=77',
      'hugetlb.2MB.max=4096',
      'memory.high=9',
    ],
  );
  assert.throws(() => v2Settings({ memory: { limit: 10, swap: 5 } }), /should be >= memory/);
  assert.throws(() => v2Settings({ unified: { '../cgroup.procs': '1' } }), /invalid cgroup file/);
  assert.deepEqual(v2Settings({}), []);
});

test('resources as v1 settings, memory in an order the kernel takes', () => {
  const files = v1Settings(resources).map(({ controller, file, value }) => `${controller}/${file}=${value}`);
  assert.ok(files.includes('cpu/cpu.cfs_quota_us=50000') && files.includes('pids/pids.max=max'));
  assert.ok(files.includes('blkio/blkio.throttle.read_bps_device=8:0 77'));
  const order = (present: bigint) => memorySettings(resources.memory, present).map(({ file }) => file.split('.')[1]);
  assert.deepEqual(order(1200n), ['memsw', 'limit_in_bytes']);
  assert.deepEqual(order(5000n), ['limit_in_bytes', 'memsw']);
});

test('updates are written and kills are told, on a copy of the samples', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'gantry-cgroups-'));
  t.after(() => rmSync(dir, { recursive: true }));
  await cp(join(samples, 'unified/fs'), dir, { recursive: true });
  const group = await room.loadCgroup('/demo.slice/web.scope', { root: dir });
  const file = (name: string) => join(dir, 'demo.slice/web.scope', name);
  await group.update({ pids: { limit: 99 } });
  assert.match(readFileSync(file('pids.max'), 'utf8'), /^99/);
  await assert.rejects(group.update({ unified: { 'no.file': '1' } }), { code: 'ENOENT' });
  assert.equal(existsSync(file('no.file')), false);
  const { promise, resolve } = Promise.withResolvers<room.OomEvent>();
  const watch = await group.watchOom(resolve);
  writeFileSync(file('memory.events'), 'oom 4\noom_kill 6\n');
  assert.deepEqual(await promise, { kills: 6n });
  watch.close();
  // Who comes late, and says so, hears of what was.
  const told: room.OomEvent[] = [];
  (await group.watchOom((event) => told.push(event))).close();
  (await group.watchOom((event) => told.push(event), true)).close();
  assert.deepEqual(told, [{ kills: 6n }]);
  assert.equal(await group.oomKills(), 6n);
});

test('freezing, killing and deleting a v2 group of this machine', { skip: notRoot }, async (t) => {
  const mode = await room.cgroupMode();
  const root = mode === 'unified' ? '/sys/fs/cgroup' : '/sys/fs/cgroup/unified';
  if (mode === 'legacy') return t.skip('no cgroup v2 here');
  const group = await unified.create(`/gantry-cgroups-test-${process.pid}`, { root });
  t.after(async () => {
    if (existsSync(group.directory)) await group.kill();
    await group.delete();
  });
  const child = spawn({ file: 'sleep', args: ['60'] });
  const end = waitExit(child);
  await group.add(child.pid);
  assert.deepEqual(await group.procs(), [child.pid]);
  await group.freeze();
  assert.equal(await group.freezerState(), 'frozen');
  await group.thaw();
  assert.equal(await group.freezerState(), 'thawed');
  const { promise, resolve } = Promise.withResolvers<void>();
  const watch = watchFiles(group.directory, ['cgroup.events'], () => {
    if (readFileSync(join(group.directory, 'cgroup.events'), 'utf8').includes('populated 0')) resolve();
  });
  await group.kill();
  assert.equal((await end).exitStatus, 137);
  await promise;
  watch.close();
  await group.delete();
  assert.equal(existsSync(group.directory), false);
});

test('freezing, limiting, an out-of-memory kill and deleting a v1 group of this machine', {
  skip: notRoot,
}, async (t) => {
  if ((await room.cgroupMode()) === 'unified') return t.skip('no cgroup v1 here');
  const group = await legacy.create(`/gantry-cgroups-test-${process.pid}`);
  t.after(async () => {
    await group.kill();
    await group.delete();
  });
  const idle = spawn({ file: 'sleep', args: ['60'] });
  await group.add(idle.pid);
  await group.freeze();
  assert.equal(await group.freezerState(), 'frozen');
  await group.thaw();
  await group.update({ memory: { limit: 16n << 20n }, pids: { limit: 50 }, cpu: { shares: 100 } });
  const metrics = await group.metrics();
  assert.deepEqual([metrics.pids?.limit, metrics.memory?.usage?.limit, metrics.pids?.current], [50n, 16n << 20n, 1n]);
  const { promise, resolve } = Promise.withResolvers<room.OomEvent>();
  const watch = await group.watchOom(resolve);
  const glutton = spawn({ file: process.execPath, args: ['-e', 'setTimeout(() => Buffer.alloc(512 << 20, 1), 300)'] });
  await group.add(glutton.pid);
  assert.equal((await waitExit(glutton)).exitStatus, 137);
  // The event comes when memory runs out, the count when somebody has been killed for it.
  await promise;
  assert.ok(((await group.metrics()).memoryOomControl?.oomKill ?? 0n) > 0n);
  assert.equal(await group.oomKills(), (await group.metrics()).memoryOomControl?.oomKill);
  watch.close();
  const told: bigint[] = [];
  (await group.watchOom(({ kills }) => told.push(kills))).close();
  (await group.watchOom(({ kills }) => told.push(kills), true)).close();
  assert.equal(told.length, 1);
  const end = waitExit(idle);
  await group.kill();
  assert.equal((await end).exitStatus, 137);
});
