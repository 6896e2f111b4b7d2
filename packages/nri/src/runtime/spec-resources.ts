import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type LinuxResources, LinuxResourcesSchema } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import type { SpecResources } from '@gantry/oci';
import { specNumber, wireNumber } from './spec-numbers.ts';

type Optional = { value: bigint } | undefined;
const numeric = (value: Optional): number | undefined => (value === undefined ? undefined : specNumber(value.value));
const optional = (value: number | undefined): Optional =>
  value === undefined ? undefined : { value: wireNumber(value) };
const optionalFlag = (value: boolean | undefined) => (value === undefined ? undefined : { value });

/** Without the members that are undefined. */
function present<T extends object>(members: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as T;
}

/** Limits as a specification has them: those that are said. Classes are not among them; a file of CDI or a class decides those. */
export function toSpecResources(resources: LinuxResources): SpecResources {
  const { memory, cpu, hugepageLimits, unified, pids, devices } = resources;
  const specMemory = present<NonNullable<SpecResources['memory']>>({
    limit: numeric(memory?.limit),
    reservation: numeric(memory?.reservation),
    swap: numeric(memory?.swap),
    kernel: numeric(memory?.kernel),
    kernelTCP: numeric(memory?.kernelTcp),
    swappiness: numeric(memory?.swappiness),
    disableOOMKiller: memory?.disableOomKiller?.value,
    useHierarchy: memory?.useHierarchy?.value,
  });
  const specCpu = present<NonNullable<SpecResources['cpu']>>({
    shares: numeric(cpu?.shares),
    quota: numeric(cpu?.quota),
    period: numeric(cpu?.period),
    realtimeRuntime: numeric(cpu?.realtimeRuntime),
    realtimePeriod: numeric(cpu?.realtimePeriod),
    cpus: cpu?.cpus || undefined,
    mems: cpu?.mems || undefined,
  });
  return {
    ...(Object.keys(specMemory).length > 0 && { memory: specMemory }),
    ...(Object.keys(specCpu).length > 0 && { cpu: specCpu }),
    ...(hugepageLimits.length > 0 && {
      hugepageLimits: hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit: specNumber(limit) })),
    }),
    ...(Object.keys(unified).length > 0 && { unified: { ...unified } }),
    ...(pids && { pids: { limit: specNumber(pids.limit) } }),
    ...(devices.length > 0 && {
      devices: devices.map(({ allow, type, major, minor, access }) => ({
        allow,
        ...(type !== '' && { type }),
        ...(major && { major: specNumber(major.value) }),
        ...(minor && { minor: specNumber(minor.value) }),
        ...(access !== '' && { access }),
      })),
    }),
  };
}

/** Limits of a specification as plugins are told them. */
export function fromSpecResources(resources: SpecResources): LinuxResources {
  const { memory, cpu, hugepageLimits = [], unified = {}, pids, devices = [] } = resources;
  type Init = Exclude<MessageInitShape<typeof LinuxResourcesSchema>, LinuxResources>;
  return create(
    LinuxResourcesSchema,
    present<Init>({
      memory: present({
        limit: optional(memory?.limit),
        reservation: optional(memory?.reservation),
        swap: optional(memory?.swap),
        kernel: optional(memory?.kernel),
        kernelTcp: optional(memory?.kernelTCP),
        swappiness: optional(memory?.swappiness),
        disableOomKiller: optionalFlag(memory?.disableOOMKiller),
        useHierarchy: optionalFlag(memory?.useHierarchy),
      }),
      cpu: present({
        shares: optional(cpu?.shares),
        quota: optional(cpu?.quota),
        period: optional(cpu?.period),
        realtimeRuntime: optional(cpu?.realtimeRuntime),
        realtimePeriod: optional(cpu?.realtimePeriod),
        cpus: cpu?.cpus,
        mems: cpu?.mems,
      }),
      hugepageLimits: hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit: wireNumber(limit) })),
      unified,
      pids: pids?.limit === undefined ? undefined : { limit: wireNumber(pids.limit) },
      devices: devices.map(({ allow, type = '', major, minor, access = '' }) =>
        present({ allow, type, access, major: optional(major), minor: optional(minor) }),
      ),
    }) as Init,
  );
}
