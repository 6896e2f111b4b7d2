import { create } from '@bufbuild/protobuf';
import {
  Field,
  type LinuxCPU,
  LinuxCPUSchema,
  type LinuxMemory,
  LinuxMemorySchema,
  type LinuxResources,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import type { Owners } from './owners.ts';

const memoryFields = {
  limit: Field.MemLimit,
  reservation: Field.MemReservation,
  swap: Field.MemSwapLimit,
  kernel: Field.MemKernelLimit,
  kernelTcp: Field.MemTCPLimit,
  swappiness: Field.MemSwappiness,
  disableOomKiller: Field.MemDisableOomKiller,
  useHierarchy: Field.MemUseHierarchy,
} as const satisfies Partial<Record<keyof LinuxMemory, Field>>;

const cpuFields = {
  shares: Field.CPUShares,
  quota: Field.CPUQuota,
  period: Field.CPUPeriod,
  realtimeRuntime: Field.CPURealtimeRuntime,
  realtimePeriod: Field.CPURealtimePeriod,
  cpus: Field.CPUSetCPUs,
  mems: Field.CPUSetMems,
} as const satisfies Partial<Record<keyof LinuxCPU, Field>>;

/** Lays what a plugin asks for over limits, as that plugin's own. @throws InvalidArgument if another plugin has set one of them */
export function collectResources(
  owners: Owners,
  container: string,
  plugin: string,
  asked: LinuxResources,
  targets: readonly LinuxResources[],
): void {
  const claim = (field: Field, key?: string): void => owners.claim(container, field, plugin, key);
  for (const [name, field] of Object.entries(memoryFields)) {
    const value = asked.memory?.[name as keyof typeof memoryFields];
    if (value === undefined) continue;
    claim(field);
    for (const target of targets) {
      target.memory ??= create(LinuxMemorySchema);
      Object.assign(target.memory, { [name]: value });
    }
  }
  for (const [name, field] of Object.entries(cpuFields)) {
    const value = asked.cpu?.[name as keyof typeof cpuFields];
    if (value === undefined || value === '') continue;
    claim(field);
    for (const target of targets) {
      target.cpu ??= create(LinuxCPUSchema);
      Object.assign(target.cpu, { [name]: value });
    }
  }
  for (const limit of asked.hugepageLimits) {
    claim(Field.HugepageLimits, limit.pageSize);
    for (const target of targets) {
      target.hugepageLimits = [...target.hugepageLimits.filter(({ pageSize }) => pageSize !== limit.pageSize), limit];
    }
  }
  for (const [key, value] of Object.entries(asked.unified)) {
    claim(Field.CgroupsUnified, key);
    for (const target of targets) target.unified[key] = value;
  }
  for (const target of targets) target.devices.push(...asked.devices);
  const simple = { blockioClass: Field.BlockioClass, rdtClass: Field.RdtClass, pids: Field.PidsLimit } as const;
  for (const [name, field] of Object.entries(simple)) {
    const value = asked[name as keyof typeof simple];
    if (value === undefined) continue;
    claim(field);
    for (const target of targets) Object.assign(target, { [name]: value });
  }
}
