import type { BlkIOEntry, BlkIOStat, MemoryEntry, MemoryStat, Metrics } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { type CgroupMetric, several, single } from './cgroup-metric.ts';

type Amount = { [K in keyof MemoryStat]: MemoryStat[K] extends bigint ? K : never }[keyof MemoryStat] & string;
type Device = { [K in keyof BlkIOStat]: BlkIOStat[K] extends BlkIOEntry[] ? K : never }[keyof BlkIOStat] & string;

/** The lines of `memory.stat`, as the kernel names them. */
const amounts: Record<string, Amount> = {
  cache: 'cache',
  rss: 'rss',
  rss_huge: 'rssHuge',
  mapped_file: 'mappedFile',
  dirty: 'dirty',
  writeback: 'writeback',
  pgpgin: 'pgPgIn',
  pgpgout: 'pgPgOut',
  pgfault: 'pgFault',
  pgmajfault: 'pgMajFault',
  inactive_anon: 'inactiveAnon',
  active_anon: 'activeAnon',
  inactive_file: 'inactiveFile',
  active_file: 'activeFile',
  unevictable: 'unevictable',
  hierarchical_memory_limit: 'hierarchicalMemoryLimit',
  hierarchical_memsw_limit: 'hierarchicalSwapLimit',
  total_cache: 'totalCache',
  total_rss: 'totalRss',
  total_rss_huge: 'totalRssHuge',
  total_mapped_file: 'totalMappedFile',
  total_dirty: 'totalDirty',
  total_writeback: 'totalWriteback',
  total_pgpgin: 'totalPgPgIn',
  total_pgpgout: 'totalPgPgOut',
  total_pgfault: 'totalPgFault',
  total_pgmajfault: 'totalPgMajFault',
  total_inactive_anon: 'totalInactiveAnon',
  total_active_anon: 'totalActiveAnon',
  total_inactive_file: 'totalInactiveFile',
  total_active_file: 'totalActiveFile',
  total_unevictable: 'totalUnevictable',
};

/** The four counters of `memory.*`, `memory.memsw.*`, `memory.kmem.*` and `memory.kmem.tcp.*`. */
function entry(name: string, noun: string, read: (memory: MemoryStat) => MemoryEntry | undefined) {
  const of = (stats: Metrics): MemoryEntry | undefined => stats.memory && read(stats.memory);
  return [
    single<Metrics>(`memory_${name}_failcnt_total`, `How often ${noun} hit its limit.`, (stats) => of(stats)?.failcnt),
    single<Metrics>(`memory_${name}_limit_bytes`, `Limit of ${noun}.`, (stats) => of(stats)?.limit),
    single<Metrics>(`memory_${name}_max_bytes`, `Most of ${noun} so far.`, (stats) => of(stats)?.max),
    single<Metrics>(`memory_${name}_usage_bytes`, `Present ${noun}.`, (stats) => of(stats)?.usage),
  ];
}

const devices: Record<string, Device> = {
  io_merged_recursive_total: 'ioMergedRecursive',
  io_queued_recursive_total: 'ioQueuedRecursive',
  io_service_bytes_recursive_bytes: 'ioServiceBytesRecursive',
  io_service_time_recursive_total: 'ioServiceTimeRecursive',
  io_serviced_recursive_total: 'ioServicedRecursive',
  io_time_recursive_total: 'ioTimeRecursive',
  sectors_recursive_total: 'sectorsRecursive',
};

/** What containerd shows of a container in cgroups of version 1. */
export const cgroupMetricsV1: readonly CgroupMetric<Metrics>[] = [
  single('pids_current', 'Present number of processes.', ({ pids }) => pids?.current),
  single('pids_limit', 'Limit on the number of processes.', ({ pids }) => pids?.limit),
  single('cpu_total_nanoseconds', 'CPU time in all.', ({ cpu }) => cpu?.usage?.total),
  single('cpu_kernel_nanoseconds', 'CPU time in the kernel.', ({ cpu }) => cpu?.usage?.kernel),
  single('cpu_user_nanoseconds', 'CPU time in user space.', ({ cpu }) => cpu?.usage?.user),
  several(
    'per_cpu_nanoseconds',
    'CPU time on each CPU.',
    ({ cpu }) => cpu?.usage?.perCpu,
    (value, index) => ({
      value,
      labels: { cpu: String(index) },
    }),
  ),
  single('cpu_throttle_periods_total', 'Periods of the CPU quota.', ({ cpu }) => cpu?.throttling?.periods),
  single(
    'cpu_throttled_periods_total',
    'Periods in which the CPU quota was used up.',
    ({ cpu }) => cpu?.throttling?.throttledPeriods,
  ),
  single(
    'cpu_throttled_time_nanoseconds',
    'Time spent waiting for the CPU quota.',
    ({ cpu }) => cpu?.throttling?.throttledTime,
  ),
  ...Object.entries(amounts).map(([name, field]) =>
    single<Metrics>(`memory_${name}_bytes`, `\`${name}\` of memory.stat.`, ({ memory }) => memory?.[field]),
  ),
  ...entry('usage', 'memory', ({ usage }) => usage),
  ...entry('swap', 'memory and swap', ({ swap }) => swap),
  ...entry('kernel', 'kernel memory', ({ kernel }) => kernel),
  ...entry('kerneltcp', 'memory of TCP buffers', ({ kernelTcp }) => kernelTcp),
  ...Object.entries(devices).map(([name, field]) =>
    several<Metrics, BlkIOEntry>(
      `blkio_${name}`,
      `Of the blkio controller, \`${field}\`.`,
      ({ blkio }) => blkio?.[field],
      ({ value, op, device, major, minor }) => ({
        value,
        labels: { op, device, major: String(major), minor: String(minor) },
      }),
    ),
  ),
  several(
    'hugetlb_usage_bytes',
    'Huge pages in use.',
    ({ hugetlb }) => hugetlb,
    ({ usage, pagesize }) => ({
      value: usage,
      labels: { page: pagesize },
    }),
  ),
  several(
    'hugetlb_failcnt_total',
    'How often the limit on huge pages was hit.',
    ({ hugetlb }) => hugetlb,
    ({ failcnt, pagesize }) => ({
      value: failcnt,
      labels: { page: pagesize },
    }),
  ),
  several(
    'hugetlb_max_bytes',
    'Most huge pages so far.',
    ({ hugetlb }) => hugetlb,
    ({ max, pagesize }) => ({
      value: max,
      labels: { page: pagesize },
    }),
  ),
];
