import type { MessageInitShape } from '@bufbuild/protobuf';
import type { PSIData, PSIStats } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import type {
  CpuUsageSchema,
  IoUsageSchema,
  MemoryUsageSchema,
  PsiStatsSchema,
  SwapUsageSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { CgroupUsage } from './cgroup-usage.ts';

/** Usage in CRI's messages. `timestamp` is nanoseconds since 1970. */

const number = (value: bigint): { value: bigint } => ({ value });

function wirePsi(psi: PSIStats | undefined): MessageInitShape<typeof PsiStatsSchema> | undefined {
  if (!psi) return undefined;
  const data = (part: PSIData | undefined) =>
    part && { Total: part.total, Avg10: part.avg10, Avg60: part.avg60, Avg300: part.avg300 };
  const full = data(psi.full);
  const some = data(psi.some);
  return { ...(full && { Full: full }), ...(some && { Some: some }) };
}

export function wireCpu(
  { cpu }: CgroupUsage,
  timestamp: bigint,
  nanoCores: bigint | undefined,
): MessageInitShape<typeof CpuUsageSchema> {
  const psi = wirePsi(cpu.psi);
  return {
    timestamp,
    usageCoreNanoSeconds: number(cpu.total),
    ...(nanoCores !== undefined && { usageNanoCores: number(nanoCores) }),
    ...(psi && { psi }),
  };
}

export function wireMemory({ memory }: CgroupUsage, timestamp: bigint): MessageInitShape<typeof MemoryUsageSchema> {
  const { limit, workingSet } = memory;
  const psi = wirePsi(memory.psi);
  return {
    timestamp,
    workingSetBytes: number(workingSet),
    availableBytes: number(limit > workingSet ? limit - workingSet : 0n),
    usageBytes: number(memory.usage),
    rssBytes: number(memory.rss),
    pageFaults: number(memory.pageFaults),
    majorPageFaults: number(memory.majorPageFaults),
    ...(psi && { psi }),
  };
}

export function wireSwap(
  { swap }: CgroupUsage,
  timestamp: bigint,
): MessageInitShape<typeof SwapUsageSchema> | undefined {
  if (!swap) return undefined;
  const available = swap.limit > swap.usage ? swap.limit - swap.usage : 0n;
  return { timestamp, swapUsageBytes: number(swap.usage), swapAvailableBytes: number(available) };
}

export function wireIo({ ioPsi }: CgroupUsage, timestamp: bigint): MessageInitShape<typeof IoUsageSchema> | undefined {
  const psi = wirePsi(ioPsi);
  return psi && { timestamp, psi };
}
