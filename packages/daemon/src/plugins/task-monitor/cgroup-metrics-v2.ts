import type { IOEntry, MemoryStat, Metrics } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { type CgroupMetric, several, single } from './cgroup-metric.ts';

type Amount = { [K in keyof MemoryStat]: MemoryStat[K] extends bigint ? K : never }[keyof MemoryStat] & string;

/** The memory numbers that containerd shows, all in bytes by its names, counters of events too. */
const amounts: readonly Amount[] = [
  ...(['usage', 'usageLimit', 'swapUsage', 'swapLimit', 'fileMapped', 'fileDirty', 'fileWriteback'] as const),
  ...(['pgactivate', 'pgdeactivate', 'pgfault', 'pgmajfault', 'pglazyfree', 'pgrefill', 'pglazyfreed'] as const),
  ...(['pgscan', 'pgsteal', 'inactiveAnon', 'activeAnon', 'inactiveFile', 'activeFile', 'unevictable'] as const),
  ...(['anon', 'file', 'kernelStack', 'slab', 'sock', 'shmem', 'anonThp', 'slabReclaimable'] as const),
  ...(['slabUnreclaimable', 'workingsetRefault', 'workingsetActivate', 'workingsetNodereclaim'] as const),
  ...(['thpFaultAlloc', 'thpCollapseAlloc'] as const),
];

/** `fileMapped` → `file_mapped`. */
function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function io(name: string, help: string, read: (entry: IOEntry) => bigint): CgroupMetric<Metrics> {
  return several<Metrics, IOEntry>(
    `io_${name}`,
    help,
    (stats) => stats.io?.usage,
    (entry) => ({ value: read(entry), labels: { major: String(entry.major), minor: String(entry.minor) } }),
  );
}

/** What containerd shows of a container in a cgroup of version 2. */
export const cgroupMetricsV2: readonly CgroupMetric<Metrics>[] = [
  single('pids_current', 'Present number of processes.', ({ pids }) => pids?.current),
  single('pids_limit', 'Limit on the number of processes.', ({ pids }) => pids?.limit),
  single('cpu_usage_usec_microseconds', 'CPU time in all.', ({ cpu }) => cpu?.usageUsec),
  single('cpu_user_usec_microseconds', 'CPU time in user space.', ({ cpu }) => cpu?.userUsec),
  single('cpu_system_usec_microseconds', 'CPU time in the kernel.', ({ cpu }) => cpu?.systemUsec),
  single('cpu_nr_periods_total', 'Periods of the CPU quota.', ({ cpu }) => cpu?.nrPeriods),
  single('cpu_nr_throttled_total', 'Periods in which the CPU quota was used up.', ({ cpu }) => cpu?.nrThrottled),
  single('cpu_throttled_usec_microseconds', 'Time spent waiting for the CPU quota.', ({ cpu }) => cpu?.throttledUsec),
  ...amounts.map((field) =>
    single<Metrics>(
      `memory_${snakeCase(field)}_bytes`,
      `\`${snakeCase(field)}\` of memory.`,
      ({ memory }) => memory?.[field],
    ),
  ),
  single(
    'memory_oom_total',
    'Times that the memory limit was hit and nothing could be freed.',
    ({ memoryEvents }) => memoryEvents?.oom,
  ),
  io('rbytes_bytes', 'Bytes read.', ({ rbytes }) => rbytes),
  io('wbytes_bytes', 'Bytes written.', ({ wbytes }) => wbytes),
  io('rios_total', 'Reads.', ({ rios }) => rios),
  io('wios_total', 'Writes.', ({ wios }) => wios),
];
