import type { Any } from '@bufbuild/protobuf/wkt';
import { isAny, unpackAny } from '@gantry/api';
import { type Metrics as MetricsV1, MetricsSchema as MetricsV1Schema } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import {
  type Metrics as MetricsV2,
  MetricsSchema as MetricsV2Schema,
  type PSIStats,
} from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { type DiskIo, diskIoOfV1, diskIoOfV2 } from './disk-io.ts';

/** What a cgroup uses, of either version, in the terms that CRI asks for. Times are nanoseconds, memory is bytes. */
export interface CgroupUsage {
  cpu: {
    total: bigint;
    user: bigint;
    system: bigint;
    periods: bigint;
    throttledPeriods: bigint;
    throttled: bigint;
    psi?: PSIStats | undefined;
  };
  memory: {
    usage: bigint;
    /** Without files that nobody has touched for a while. */
    workingSet: bigint;
    /** 0 for none. */
    limit: bigint;
    maxUsage: bigint;
    rss: bigint;
    cache: bigint;
    mappedFile: bigint;
    activeFile: bigint;
    inactiveFile: bigint;
    kernel: bigint;
    failures: bigint;
    pageFaults: bigint;
    majorPageFaults: bigint;
    psi?: PSIStats | undefined;
  };
  /** Without the memory; undefined where it is not counted. */
  swap?: { usage: bigint; limit: bigint } | undefined;
  processes: bigint;
  /** The most that it may have; 0 for no limit. */
  processLimit: bigint;
  disks: readonly DiskIo[];
  oomKills: bigint;
  ioPsi?: PSIStats | undefined;
}

/** More than any machine has: the kernel's word for no limit. */
const unlimited = 1n << 62n;
const limitOf = (limit: bigint): bigint => (limit >= unlimited ? 0n : limit);
const atLeastZero = (value: bigint): bigint => (value < 0n ? 0n : value);

/** undefined for metrics of another kind, as a shim for other systems may give. */
export function usageOf(metrics: Any | undefined): CgroupUsage | undefined {
  if (!metrics) return undefined;
  if (isAny(metrics, MetricsV1Schema)) return ofV1(unpackAny(MetricsV1Schema, metrics));
  if (isAny(metrics, MetricsV2Schema)) return ofV2(unpackAny(MetricsV2Schema, metrics));
  return undefined;
}

function ofV1(metrics: MetricsV1): CgroupUsage {
  const { cpu, memory, pids, memoryOomControl } = metrics;
  const usage = memory?.usage?.usage ?? 0n;
  const inactiveFile = memory?.totalInactiveFile ?? 0n;
  const both = memory?.swap;
  return {
    cpu: {
      total: cpu?.usage?.total ?? 0n,
      user: cpu?.usage?.user ?? 0n,
      system: cpu?.usage?.kernel ?? 0n,
      periods: cpu?.throttling?.periods ?? 0n,
      throttledPeriods: cpu?.throttling?.throttledPeriods ?? 0n,
      throttled: cpu?.throttling?.throttledTime ?? 0n,
    },
    memory: {
      usage,
      workingSet: atLeastZero(usage - inactiveFile),
      limit: limitOf(memory?.usage?.limit ?? 0n),
      maxUsage: memory?.usage?.max ?? 0n,
      rss: memory?.totalRss ?? 0n,
      cache: memory?.totalCache ?? 0n,
      mappedFile: memory?.totalMappedFile ?? 0n,
      activeFile: memory?.totalActiveFile ?? 0n,
      inactiveFile,
      kernel: memory?.kernel?.usage ?? 0n,
      failures: memory?.usage?.failcnt ?? 0n,
      pageFaults: memory?.totalPgFault ?? 0n,
      majorPageFaults: memory?.totalPgMajFault ?? 0n,
    },
    // Version 1 counts memory and swap together.
    swap: both && {
      usage: atLeastZero(both.usage - usage),
      limit: limitOf(both.limit) === 0n ? 0n : atLeastZero(both.limit - (memory?.usage?.limit ?? 0n)),
    },
    processes: pids?.current ?? 0n,
    processLimit: limitOf(pids?.limit ?? 0n),
    disks: diskIoOfV1(metrics),
    oomKills: memoryOomControl?.oomKill ?? 0n,
  };
}

function ofV2(metrics: MetricsV2): CgroupUsage {
  const { cpu, memory, pids, memoryEvents, io } = metrics;
  const usage = memory?.usage ?? 0n;
  const inactiveFile = memory?.inactiveFile ?? 0n;
  return {
    cpu: {
      total: (cpu?.usageUsec ?? 0n) * 1000n,
      user: (cpu?.userUsec ?? 0n) * 1000n,
      system: (cpu?.systemUsec ?? 0n) * 1000n,
      periods: cpu?.nrPeriods ?? 0n,
      throttledPeriods: cpu?.nrThrottled ?? 0n,
      throttled: (cpu?.throttledUsec ?? 0n) * 1000n,
      psi: cpu?.psi,
    },
    memory: {
      usage,
      workingSet: atLeastZero(usage - inactiveFile),
      limit: limitOf(memory?.usageLimit ?? 0n),
      maxUsage: memory?.maxUsage ?? 0n,
      rss: memory?.anon ?? 0n,
      cache: memory?.file ?? 0n,
      mappedFile: memory?.fileMapped ?? 0n,
      activeFile: memory?.activeFile ?? 0n,
      inactiveFile,
      kernel: (memory?.kernelStack ?? 0n) + (memory?.slab ?? 0n),
      failures: memoryEvents?.max ?? 0n,
      pageFaults: memory?.pgfault ?? 0n,
      majorPageFaults: memory?.pgmajfault ?? 0n,
      psi: memory?.psi,
    },
    swap: memory && { usage: memory.swapUsage, limit: limitOf(memory.swapLimit) },
    processes: pids?.current ?? 0n,
    processLimit: limitOf(pids?.limit ?? 0n),
    disks: diskIoOfV2(metrics),
    oomKills: memoryEvents?.oomKill ?? 0n,
    ioPsi: io?.psi,
  };
}
