import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { packAny, unpackAny } from '@gantry/api';
import { MetricsSchema as MetricsV1Schema } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { MetricsSchema as MetricsV2Schema } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { ContainerConfigSchema, PodSandboxConfigSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { statsForPid } from '@gantry/cgroups';
import { newStatus } from '../store/container-status.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { usageOf } from './cgroup-usage.ts';
import { containerDetails } from './container-details.ts';
import { CpuRates } from './cpu-rates.ts';
import { metricDescriptors, podMetrics } from './metrics.ts';
import { parseNetDev } from './network-usage.ts';
import { wireCpu, wireMemory, wireSwap } from './wire-usage.ts';

const MiB = 1n << 20n;

test('memory of version 1: what is available and swapped follows from limits that count both', () => {
  const usage = usageOf(
    packAny(MetricsV1Schema, {
      memory: {
        usage: { usage: 30n * MiB, limit: 100n * MiB },
        swap: { usage: 35n * MiB, limit: 120n * MiB },
        totalInactiveFile: 10n * MiB,
      },
    }),
  )!;
  const memory = wireMemory(usage, 1n);
  assert.deepEqual([memory.workingSetBytes?.value, memory.availableBytes?.value], [20n * MiB, 80n * MiB]);
  const swap = wireSwap(usage, 1n);
  assert.deepEqual([swap?.swapUsageBytes?.value, swap?.swapAvailableBytes?.value], [5n * MiB, 15n * MiB]);
});

test('no limit is no memory available, in either version', () => {
  const none = 9_223_372_036_854_771_712n;
  const first = usageOf(packAny(MetricsV1Schema, { memory: { usage: { usage: 1n, limit: none } } }))!;
  const second = usageOf(
    packAny(MetricsV2Schema, { memory: { usage: 1n, usageLimit: (1n << 64n) - 1n }, cpu: { usageUsec: 7n } }),
  )!;
  for (const usage of [first, second]) assert.equal(wireMemory(usage, 1n).availableBytes?.value, 0n);
  assert.equal(second.cpu.total, 7000n);
});

test('rates are of the time between samples, and begin anew when a counter does', () => {
  const rates = new CpuRates();
  const thing = {};
  const second = 1_000_000_000n;
  assert.equal(rates.next(thing, 10n * second, second), undefined);
  assert.equal(rates.next(thing, 12n * second, 2n * second), second / 2n);
  assert.equal(rates.next(thing, 12n * second + 1n, 9n * second), second / 2n);
  assert.equal(rates.next(thing, 14n * second, 1n), undefined);
});

test('interfaces are read as the kernel prints them', () => {
  const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       1    0    0    0     0          0         0        1       1    0    0    0     0       0          0
  eth0:     576       8    1    2    0     0          0         0      472       6    3    4    0     0       0          0
`;
  assert.deepEqual(parseNetDev(text), [
    {
      name: 'eth0',
      rx: { bytes: 576n, packets: 8n, errors: 1n, dropped: 2n },
      tx: { bytes: 472n, packets: 6n, errors: 3n, dropped: 4n },
    },
  ]);
});

test('every metric that is told has a descriptor with as many labels', () => {
  const entry = { device: 'sda', major: 8n, minor: 0n, value: 5n };
  const usage = usageOf(
    packAny(MetricsV1Schema, {
      blkio: {
        ioServiceBytesRecursive: [
          { ...entry, op: 'Read' },
          { ...entry, op: 'Total' },
        ],
        ioServicedRecursive: [{ ...entry, op: 'Write', value: 2n }],
      },
    }),
  )!;
  const details = {
    descriptors: 3n,
    sockets: 1n,
    threads: 2n,
    limits: [{ name: 'RLIMIT_NOFILE', soft: 1024n }],
    spec: { cpuPeriod: 1n, cpuShares: 2n, memoryReservation: 3n },
    filesystem: { usedBytes: 1n, limitBytes: 2n, inodes: 3n, inodesFree: 4n },
  };
  const config = create(PodSandboxConfigSchema, { metadata: { name: 'p' } });
  const sandbox = {
    id: 's',
    metadata: {
      id: 's',
      name: 'p',
      config,
      netnsPath: '/n',
      ip: '',
      additionalIps: [],
      runtimeHandler: '',
      processLabel: '',
    },
    status: { state: 'ready' as const, pid: 1, createdAt: 1n, exitedAt: 0n, exitStatus: 0 },
    sandboxer: 'podsandbox',
    exited: Promise.resolve(),
  } satisfies PodSandbox;
  const container = {
    id: 'c',
    metadata: {
      id: 'c',
      name: 'c',
      sandboxId: 's',
      config: create(ContainerConfigSchema, {}),
      imageRef: '',
      logPath: '',
      stopSignal: '',
      processLabel: '',
    },
    status: newStatus(1n),
    exited: Promise.resolve(),
  };
  const [network] = parseNetDev('eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0');
  const { metrics, containerMetrics } = podMetrics(sandbox, usage, [network!], [{ container, usage, details }], 5n);
  const labels = new Map(metricDescriptors().map(({ name, labelKeys }) => [name, labelKeys.length]));
  const told = [...metrics, ...containerMetrics.flatMap((one) => one.metrics)];
  for (const { name, labelValues } of told) assert.equal(labelValues.length, labels.get(name), name);
  const value = (name: string, ...more: string[]) =>
    containerMetrics[0]!.metrics.find(
      (one) => one.name === name && more.every((label) => one.labelValues.includes(label)),
    )?.value?.value;
  assert.equal(value('container_blkio_device_usage_total', 'sda', '8', '0', 'Read'), 5n);
  assert.equal(value('container_fs_writes_total', 'sda'), 2n);
  assert.equal(value('container_ulimits_soft', 'RLIMIT_NOFILE'), 1024n);
  assert.deepEqual([...new Set(told.map(({ name }) => name))].sort(), [...labels.keys()].sort());
});

test('version 2 counts disks by their numbers', () => {
  const usage = usageOf(
    packAny(MetricsV2Schema, {
      pids: { current: 4n, limit: 100n },
      io: { usage: [{ major: 259n, minor: 1n, rbytes: 1n, wbytes: 2n, rios: 3n, wios: 4n }] },
    }),
  )!;
  assert.deepEqual(usage.disks, [
    { device: '259:1', major: 259n, minor: 1n, readBytes: 1n, writeBytes: 2n, reads: 3n, writes: 4n },
  ]);
  assert.equal(usage.processLimit, 100n);
});

const recorded = path.resolve(import.meta.dirname, '../../../../../shared/facts/cri-metric-descriptors.json');

test('descriptors have containerd’s names and labels', {
  skip: existsSync(recorded) ? false : 'no recorded facts',
}, () => {
  const facts = JSON.parse(readFileSync(recorded, 'utf8')) as { descriptors: { name: string; labelKeys: string[] }[] };
  const known = new Map(metricDescriptors().map(({ name, labelKeys }) => [name, labelKeys]));
  for (const { name, labelKeys } of facts.descriptors) assert.deepEqual(known.get(name), labelKeys, name);
});

test('descriptors, sockets and threads of processes are counted', async () => {
  const server = net.createServer().listen(path.join(tmpdir(), `gantry-details-${process.pid}`));
  await once(server, 'listening');
  const { descriptors, sockets, threads } = await containerDetails(
    [process.pid, 0x3fffff],
    undefined,
    undefined,
    undefined,
  );
  assert.ok(sockets >= 1n && descriptors > sockets && threads >= 2n, `${descriptors} ${sockets} ${threads}`);
  server.close();
});

test('a sample from long ago says nothing of the rate now', () => {
  const rates = new CpuRates(10_000);
  const second = 1_000_000_000n;
  const thing = {};
  rates.next(thing, second, 0n);
  assert.equal(rates.next(thing, 12n * second, 5n * second), undefined);
  assert.equal(rates.next(thing, 14n * second, 6n * second), second / 2n);
});

/** Files of cgroups as kernels have them, of both versions. */
const samples = path.resolve(import.meta.dirname, '../../../cgroups/src/testdata');
const sampled = async (name: string) =>
  usageOf(await statsForPid(42, { root: path.join(samples, name, 'fs'), proc: path.join(samples, name, 'proc') }))!;

test('recorded files of version 2 become CRI’s numbers', async () => {
  const usage = await sampled('unified');
  const cpu = wireCpu(usage, 1n, 5n);
  assert.deepEqual([cpu.usageCoreNanoSeconds?.value, cpu.usageNanoCores?.value], [5_000_001_000n, 5n]);
  assert.equal(cpu.psi?.Some?.Avg10, 1.5);
  const memory = wireMemory(usage, 1n);
  const { usageBytes, workingSetBytes, availableBytes, rssBytes } = memory;
  assert.deepEqual([usageBytes?.value, rssBytes?.value], [104_857_600n, 65_536n]);
  assert.equal(availableBytes?.value, 268_435_456n - (workingSetBytes?.value ?? 0n));
  // Swap without a limit is none that could be told.
  const swap = wireSwap(usage, 1n);
  assert.deepEqual([swap?.swapUsageBytes?.value, swap?.swapAvailableBytes?.value], [4096n, 0n]);
  assert.deepEqual([usage.processes, usage.processLimit, usage.oomKills], [7n, 0n, 4n]);
  assert.deepEqual(
    usage.disks.map(({ device, readBytes, writes }) => [device, readBytes, writes]),
    [
      ['8:0', 4096n, 2n],
      ['253:1', 1n, 0n],
    ],
  );
});

test('recorded files of version 1 become the same', async () => {
  const usage = await sampled('legacy');
  const metrics = unpackAny(
    MetricsV1Schema,
    await statsForPid(42, { root: path.join(samples, 'legacy/fs'), proc: path.join(samples, 'legacy/proc') }),
  );
  assert.equal(wireCpu(usage, 1n, undefined).usageCoreNanoSeconds?.value, metrics.cpu?.usage?.total);
  assert.ok((metrics.cpu?.usage?.total ?? 0n) > 0n);
  const { memory } = metrics;
  assert.equal(wireMemory(usage, 1n).usageBytes?.value, memory?.usage?.usage);
  const both = (memory?.swap?.usage ?? 0n) - (memory?.usage?.usage ?? 0n);
  if (memory?.swap) assert.equal(wireSwap(usage, 1n)?.swapUsageBytes?.value, both > 0n ? both : 0n);
  assert.equal(usage.processes, metrics.pids?.current ?? 0n);
  assert.ok(usage.disks.length > 0);
});
