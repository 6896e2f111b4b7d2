import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type ContainerUpdate,
  ContainerUpdateSchema,
  type LinuxResources,
  LinuxResourcesSchema,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';

/** Limits of a container. What is absent stays as it is. Sizes are bytes, times microseconds. */
export interface ResourceChanges {
  memory?: {
    limit?: number | bigint;
    reservation?: number | bigint;
    /** Of memory and swap together. */
    swap?: number | bigint;
    swappiness?: number;
    disableOomKiller?: boolean;
    /** Of cgroup v1 of old kernels. */
    kernel?: number | bigint;
    kernelTcp?: number | bigint;
    useHierarchy?: boolean;
  };
  cpu?: {
    shares?: number;
    quota?: number;
    period?: number;
    realtimeRuntime?: number;
    realtimePeriod?: number;
    /** CPUs and memory nodes, as lists: `0-3,7`. */
    cpus?: string;
    mems?: string;
  };
  /** At most so many processes. */
  pids?: number;
  /** By page size, `2MB`. */
  hugepages?: Record<string, number | bigint>;
  blockioClass?: string;
  rdtClass?: string;
  /** Files of cgroup v2. */
  unified?: Record<string, string>;
  /** Rules of access, after those there are. Types are `a`, `b`, `c`; a number that is absent stands for all. */
  devices?: { allow: boolean; type: string; major?: number; minor?: number; access: string }[];
}

const whole = <T extends number | bigint>(value: T | undefined): { value: bigint } | undefined =>
  value === undefined ? undefined : { value: BigInt(value) };
const same = <T>(value: T | undefined): { value: T } | undefined => (value === undefined ? undefined : { value });

/** Without the members that are undefined: an optional field is there or not. */
function present<T extends object>(members: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as T;
}

export function resources(changes: ResourceChanges): LinuxResources {
  const { memory, cpu, pids, hugepages, blockioClass, rdtClass, unified, devices } = changes;
  type Init = Exclude<MessageInitShape<typeof LinuxResourcesSchema>, LinuxResources>;
  return create(
    LinuxResourcesSchema,
    present<Init>({
      memory:
        memory &&
        present({
          limit: whole(memory.limit),
          reservation: whole(memory.reservation),
          swap: whole(memory.swap),
          swappiness: whole(memory.swappiness),
          disableOomKiller: same(memory.disableOomKiller),
          kernel: whole(memory.kernel),
          kernelTcp: whole(memory.kernelTcp),
          useHierarchy: same(memory.useHierarchy),
        }),
      cpu:
        cpu &&
        present({
          shares: whole(cpu.shares),
          quota: whole(cpu.quota),
          period: whole(cpu.period),
          realtimeRuntime: whole(cpu.realtimeRuntime),
          realtimePeriod: whole(cpu.realtimePeriod),
          cpus: cpu.cpus,
          mems: cpu.mems,
        }),
      pids: pids === undefined ? undefined : { limit: BigInt(pids) },
      hugepageLimits:
        hugepages && Object.entries(hugepages).map(([pageSize, limit]) => ({ pageSize, limit: BigInt(limit) })),
      blockioClass: same(blockioClass),
      rdtClass: same(rdtClass),
      unified,
      devices: devices?.map(({ major, minor, ...rule }) =>
        present({ ...rule, major: whole(major), minor: whole(minor) }),
      ),
    }) as Init,
  );
}

/** New limits for a container that is there already. With `ignoreFailure` it is no error if they cannot be set. */
export function update(containerId: string, changes: ResourceChanges, ignoreFailure = false): ContainerUpdate {
  return create(ContainerUpdateSchema, { containerId, linux: { resources: resources(changes) }, ignoreFailure });
}
