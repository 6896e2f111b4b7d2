import { readFileSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { invalidArgument } from '@gantry/api';
import { type LinuxContainerResources, LinuxContainerResourcesSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { type RuntimeSpec, resourcesOf, type SpecResources } from '@gantry/oci';

/** Limits of CRI as the OCI specification has them. What is 0 or '' is not said. @throws InvalidArgument for what can be no number of its kind */
export function specResources(linux: LinuxContainerResources, hasSwap: boolean, hasHugepages: boolean): SpecResources {
  for (const [name, value] of [
    ['cpu_period', linux.cpuPeriod],
    ['cpu_shares', linux.cpuShares],
  ] as const) {
    if (value < 0n) throw invalidArgument(`${name} ${value} is negative: invalid argument`);
  }
  const cpu: NonNullable<SpecResources['cpu']> = {};
  if (linux.cpuPeriod !== 0n) cpu.period = Number(linux.cpuPeriod);
  if (linux.cpuQuota !== 0n) cpu.quota = Number(linux.cpuQuota);
  if (linux.cpuShares !== 0n) cpu.shares = Number(linux.cpuShares);
  if (linux.cpusetCpus !== '') cpu.cpus = linux.cpusetCpus;
  if (linux.cpusetMems !== '') cpu.mems = linux.cpusetMems;
  const memory: NonNullable<SpecResources['memory']> = {};
  if (linux.memoryLimitInBytes !== 0n) {
    memory.limit = Number(linux.memoryLimitInBytes);
    // Without a word on swap there is none beyond the memory.
    if (hasSwap) memory.swap = memory.limit;
  }
  if (linux.memorySwapLimitInBytes !== 0n && hasSwap) memory.swap = Number(linux.memorySwapLimitInBytes);
  return {
    cpu,
    memory,
    ...(hasHugepages &&
      linux.hugepageLimits.length > 0 && {
        hugepageLimits: linux.hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit: Number(limit) })),
      }),
    ...(Object.keys(linux.unified).length > 0 && { unified: { ...linux.unified } }),
  };
}

/** Lays limits over those that are there. */
export function mergeResources(base: SpecResources, over: SpecResources): SpecResources {
  return {
    ...base,
    ...over,
    ...((base.cpu || over.cpu) && { cpu: { ...base.cpu, ...over.cpu } }),
    ...((base.memory || over.memory) && { memory: { ...base.memory, ...over.memory } }),
    ...((base.unified || over.unified) && { unified: { ...base.unified, ...over.unified } }),
  };
}

export function applyResources(spec: RuntimeSpec, over: SpecResources): void {
  spec.linux ??= {};
  spec.linux.resources = mergeResources(resourcesOf(spec), over);
}

/** The score a container gets: with `restrict_oom_score_adj` none below that of the daemon, which could not be set. */
export function oomScoreAdj(wanted: number, restrict: boolean): number {
  if (!restrict) return wanted;
  const own = Number(readFileSync('/proc/self/oom_score_adj', 'latin1'));
  return Math.max(wanted, own);
}

/** What is told of limits: those of the specification, and the others as they were asked for. */
export function toldResources(
  spec: RuntimeSpec,
  before: LinuxContainerResources | undefined,
  asked: LinuxContainerResources | undefined,
): LinuxContainerResources {
  const { cpu, memory, hugepageLimits } = spec.linux?.resources ?? {};
  return create(LinuxContainerResourcesSchema, {
    cpuPeriod: BigInt(cpu?.period ?? 0),
    cpuQuota: BigInt(cpu?.quota ?? 0),
    cpuShares: BigInt(cpu?.shares ?? 0),
    cpusetCpus: cpu?.cpus ?? '',
    cpusetMems: cpu?.mems ?? '',
    memoryLimitInBytes: BigInt(memory?.limit ?? 0),
    memorySwapLimitInBytes: BigInt(memory?.swap ?? 0),
    oomScoreAdj: BigInt(spec.process?.oomScoreAdj ?? 0),
    hugepageLimits: (hugepageLimits ?? []).map(({ pageSize, limit }) => ({ pageSize, limit: BigInt(limit) })),
    unified: { ...before?.unified, ...asked?.unified },
  });
}
