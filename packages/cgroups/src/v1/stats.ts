/** A v1 group's files as io.containerd.cgroups.v1.Metrics. */
import { readdir } from 'node:fs/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Metrics, MetricsSchema } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { procOf, type Roots, readKeyed, readNumber, readText, toNumber, unlimited } from '../files.ts';
import { readRdma } from '../v2/stats.ts';

type Init = MessageInitShape<typeof MetricsSchema>;

/** Reads all there is; `directories` maps a controller to the group's directory in its hierarchy. */
export async function readStats(directories: ReadonlyMap<string, string>, roots: Roots = {}): Promise<Metrics> {
  const of = async <T>(controller: string, read: (directory: string) => Promise<T>): Promise<T | undefined> => {
    const directory = directories.get(controller);
    return directory === undefined ? undefined : read(directory);
  };
  const [hugetlb, pids, cpu, memory, oom, blkio, rdma] = await Promise.all([
    of('hugetlb', readHugetlb),
    of('pids', readPidsStat),
    readCpu(directories),
    of('memory', readMemory),
    of('memory', (directory) => readKeyed(directory, 'memory.oom_control')),
    of('blkio', (directory) => readBlkio(directory, roots)),
    of('rdma', readRdma),
  ]);
  const metrics: Init = { hugetlb: hugetlb ?? [] };
  if (pids) metrics.pids = pids;
  if (cpu) metrics.cpu = cpu;
  if (memory) metrics.memory = memory;
  if (blkio) metrics.blkio = blkio;
  if (rdma) metrics.rdma = rdma;
  if (oom) {
    metrics.memoryOomControl = {
      oomKillDisable: oom['oom_kill_disable'] ?? 0n,
      underOom: oom['under_oom'] ?? 0n,
      oomKill: oom['oom_kill'] ?? 0n,
    };
  }
  return create(MetricsSchema, metrics);
}

async function readPidsStat(directory: string): Promise<Init['pids']> {
  const current = await readNumber(directory, 'pids.current');
  if (current === undefined) return undefined;
  const limit = (await readNumber(directory, 'pids.max')) ?? 0n;
  // In v1's message no limit is 0.
  return { current, limit: limit === unlimited ? 0n : limit };
}

/** Kernel's USER_HZ is 100 on every processor Gantry runs on. */
const nanosPerTick = 10_000_000n;

async function readCpu(directories: ReadonlyMap<string, string>): Promise<Init['cpu']> {
  const accounting = directories.get('cpuacct');
  const scheduler = directories.get('cpu');
  const cpu: NonNullable<Init['cpu']> = {};
  const total = accounting === undefined ? undefined : await readNumber(accounting, 'cpuacct.usage');
  if (accounting !== undefined && total !== undefined) {
    const ticks = await readKeyed(accounting, 'cpuacct.stat');
    const each = await readText(accounting, 'cpuacct.usage_percpu');
    cpu.usage = {
      total,
      user: (ticks?.['user'] ?? 0n) * nanosPerTick,
      kernel: (ticks?.['system'] ?? 0n) * nanosPerTick,
      perCpu: (each ?? '').trim().split(/\s+/).filter(Boolean).map(toNumber),
    };
  }
  const stat = scheduler === undefined ? undefined : await readKeyed(scheduler, 'cpu.stat');
  if (stat) {
    cpu.throttling = {
      periods: stat['nr_periods'] ?? 0n,
      throttledPeriods: stat['nr_throttled'] ?? 0n,
      throttledTime: stat['throttled_time'] ?? 0n,
    };
  }
  return cpu.usage || cpu.throttling ? cpu : undefined;
}

async function readMemoryEntry(directory: string, prefix: string) {
  const number = (name: string) => readNumber(directory, `${prefix}.${name}`);
  const usage = await number('usage_in_bytes');
  if (usage === undefined) return undefined;
  const [limit, max, failcnt] = await Promise.all([
    number('limit_in_bytes'),
    number('max_usage_in_bytes'),
    number('failcnt'),
  ]);
  return { usage, limit: limit ?? 0n, max: max ?? 0n, failcnt: failcnt ?? 0n };
}

async function readMemory(directory: string): Promise<Init['memory']> {
  const stat = await readKeyed(directory, 'memory.stat');
  if (!stat) return undefined;
  const value = (name: string) => stat[name] ?? 0n;
  const [usage, swap, kernel, kernelTcp] = await Promise.all(
    ['memory', 'memory.memsw', 'memory.kmem', 'memory.kmem.tcp'].map((prefix) => readMemoryEntry(directory, prefix)),
  );
  return {
    cache: value('cache'),
    rss: value('rss'),
    rssHuge: value('rss_huge'),
    mappedFile: value('mapped_file'),
    dirty: value('dirty'),
    writeback: value('writeback'),
    pgPgIn: value('pgpgin'),
    pgPgOut: value('pgpgout'),
    pgFault: value('pgfault'),
    pgMajFault: value('pgmajfault'),
    inactiveAnon: value('inactive_anon'),
    activeAnon: value('active_anon'),
    inactiveFile: value('inactive_file'),
    activeFile: value('active_file'),
    unevictable: value('unevictable'),
    hierarchicalMemoryLimit: value('hierarchical_memory_limit'),
    hierarchicalSwapLimit: value('hierarchical_memsw_limit'),
    totalCache: value('total_cache'),
    totalRss: value('total_rss'),
    totalRssHuge: value('total_rss_huge'),
    totalMappedFile: value('total_mapped_file'),
    totalDirty: value('total_dirty'),
    totalWriteback: value('total_writeback'),
    totalPgPgIn: value('total_pgpgin'),
    totalPgPgOut: value('total_pgpgout'),
    totalPgFault: value('total_pgfault'),
    totalPgMajFault: value('total_pgmajfault'),
    totalInactiveAnon: value('total_inactive_anon'),
    totalActiveAnon: value('total_active_anon'),
    totalInactiveFile: value('total_inactive_file'),
    totalActiveFile: value('total_active_file'),
    totalUnevictable: value('total_unevictable'),
    ...(usage ? { usage } : {}),
    ...(swap ? { swap } : {}),
    ...(kernel ? { kernel } : {}),
    ...(kernelTcp ? { kernelTcp } : {}),
  };
}

const blkioFiles = [
  ['ioServiceBytesRecursive', 'io_service_bytes_recursive', 'throttle.io_service_bytes'],
  ['ioServicedRecursive', 'io_serviced_recursive', 'throttle.io_serviced'],
  ['ioQueuedRecursive', 'io_queued_recursive', undefined],
  ['ioServiceTimeRecursive', 'io_service_time_recursive', undefined],
  ['ioWaitTimeRecursive', 'io_wait_time_recursive', undefined],
  ['ioMergedRecursive', 'io_merged_recursive', undefined],
  ['ioTimeRecursive', 'time_recursive', undefined],
  ['sectorsRecursive', 'sectors_recursive', undefined],
] as const;

/** The scheduler's own counters where it keeps any (CFQ), else those of throttling, which every kernel has. */
async function readBlkio(directory: string, roots: Roots): Promise<Init['blkio']> {
  const devices = deviceNames((await readText(procOf(roots), 'diskstats')) ?? '');
  const own = (await readText(directory, 'blkio.io_serviced_recursive'))?.trim();
  const blkio: NonNullable<Init['blkio']> = {};
  for (const [field, name, throttle] of blkioFiles) {
    const file = own ? name : throttle;
    if (file !== undefined) blkio[field] = parseBlkio((await readText(directory, `blkio.${file}`)) ?? '', devices);
  }
  return blkio;
}

// `8:0 Read 4096`, or `8:0 12` where there is one number a device; the last line is a total.
function parseBlkio(text: string, devices: Map<string, string>) {
  return text.split('\n').flatMap((line) => {
    const match = /^(\d+):(\d+) (?:(\w+) )?(\d+)$/.exec(line);
    if (!match) return [];
    const [, major, minor, op, value] = match;
    return [
      {
        op: op ?? '',
        device: devices.get(`${major}:${minor}`) ?? '',
        major: BigInt(major!),
        minor: BigInt(minor!),
        value: BigInt(value!),
      },
    ];
  });
}

function deviceNames(diskstats: string): Map<string, string> {
  const names = new Map<string, string>();
  for (const line of diskstats.split('\n')) {
    const [major, minor, name] = line.trim().split(/\s+/);
    if (name) names.set(`${major}:${minor}`, `/dev/${name}`);
  }
  return names;
}

async function readHugetlb(directory: string): Promise<NonNullable<Init['hugetlb']>> {
  const names = await readdir(directory);
  const sizes = names.flatMap((name) => /^hugetlb\.([^.]+)\.usage_in_bytes$/.exec(name)?.[1] ?? []).sort();
  return Promise.all(
    sizes.map(async (pagesize) => ({
      pagesize,
      usage: (await readNumber(directory, `hugetlb.${pagesize}.usage_in_bytes`)) ?? 0n,
      max: (await readNumber(directory, `hugetlb.${pagesize}.max_usage_in_bytes`)) ?? 0n,
      failcnt: (await readNumber(directory, `hugetlb.${pagesize}.failcnt`)) ?? 0n,
    })),
  );
}
