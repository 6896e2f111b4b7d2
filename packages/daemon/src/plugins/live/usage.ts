import type { Any } from '@bufbuild/protobuf/wkt';
import { isAny, unpackAny } from '@gantry/api';
import { MetricsSchema as MetricsV1Schema } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { MetricsSchema as MetricsV2Schema } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';

/** What a container uses: processor time since its start in nanoseconds, memory in bytes. */
export interface Usage {
  readonly cpuNs: number;
  readonly memory: number;
  /** 0: none. */
  readonly memoryLimit: number;
  readonly pids: number;
}

/** A sample as the page gets it: CPU in per cent of one processor (null: not known yet), bytes of memory, their limit, processes. */
export type UsageSample = readonly [cpu: number | null, memory: number, memoryLimit: number, pids: number];

/** Above this a limit is none: cgroup v1 has the largest number of pages, v2 says so in another way. */
const noLimit = 2 ** 60;

/** Out of cgroup metrics of either version. Memory is what cannot be had back: without the page cache that is not in use. */
export function usageOf(stats: Any): Usage | undefined {
  if (isAny(stats, MetricsV1Schema)) {
    const { cpu, memory, pids } = unpackAny(MetricsV1Schema, stats);
    const used = Number(memory?.usage?.usage ?? 0n) - Number(memory?.totalInactiveFile ?? 0n);
    return {
      cpuNs: Number(cpu?.usage?.total ?? 0n),
      memory: Math.max(0, used),
      memoryLimit: limit(memory?.usage?.limit),
      pids: Number(pids?.current ?? 0n),
    };
  }
  if (isAny(stats, MetricsV2Schema)) {
    const { cpu, memory, pids } = unpackAny(MetricsV2Schema, stats);
    return {
      cpuNs: Number(cpu?.usageUsec ?? 0n) * 1000,
      memory: Math.max(0, Number(memory?.usage ?? 0n) - Number(memory?.inactiveFile ?? 0n)),
      memoryLimit: limit(memory?.usageLimit),
      pids: Number(pids?.current ?? 0n),
    };
  }
  return undefined;
}

function limit(bytes: bigint | undefined): number {
  const value = Number(bytes ?? 0n);
  return value > noLimit ? 0 : value;
}

/** Turns times of processors into shares, by what each had used when it was last seen. The page keeps the series. */
export class UsageRates {
  #last = new Map<string, { at: number; cpuNs: number }>();

  /**
   * @param at milliseconds of a clock that only goes on
   * @returns by `namespace/id`
   */
  add(at: number, samples: readonly { namespace: string; id: string; usage: Usage }[]): Record<string, UsageSample> {
    const last = new Map<string, { at: number; cpuNs: number }>();
    const found = samples.map(({ namespace, id, usage }) => {
      const name = `${namespace}/${id}`;
      const before = this.#last.get(name);
      last.set(name, { at, cpuNs: usage.cpuNs });
      // A container that was started again begins at nothing.
      const goesOn = before && at > before.at && usage.cpuNs >= before.cpuNs;
      const share = goesOn ? (usage.cpuNs - before.cpuNs) / ((at - before.at) * 1e4) : null;
      const rounded = share === null ? null : Math.round(share * 100) / 100;
      return [name, [rounded, usage.memory, usage.memoryLimit, usage.pids]] as const;
    });
    this.#last = last;
    return Object.fromEntries(found);
  }
}
