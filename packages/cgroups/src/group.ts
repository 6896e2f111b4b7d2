/** What a cgroup can do, whichever version of the interface the kernel has. */
import type { Any } from '@bufbuild/protobuf/wkt';

/** How many times the kernel met the memory limit, since the group was made where it counts (v2), else since the watch began. */
export interface OomEvent {
  /** Processes killed. */
  kills: bigint;
}

/** Something that runs until it is closed. */
export interface Watch {
  close(): void;
}

export type FreezerState = 'thawed' | 'freezing' | 'frozen';

export interface Cgroup {
  readonly version: 1 | 2;
  /** Its directories: one in each hierarchy of version 1 with controllers or a name, the only one of version 2. */
  readonly paths: readonly string[];
  /** Its metrics, packed: io.containerd.cgroups.v1.Metrics or io.containerd.cgroups.v2.Metrics. */
  stats(): Promise<Any>;
  /** The processes directly in it; with `recursive` in those beneath too. */
  procs(recursive?: boolean): Promise<number[]>;
  add(pid: number): Promise<void>;
  update(resources: LinuxResources): Promise<void>;
  freezerState(): Promise<FreezerState>;
  /** Resolves when all of its processes stand still. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** SIGKILL to all processes in it and beneath. */
  kill(): Promise<void>;
  /** Removes it and the groups beneath. EBUSY while a process is in one of them. */
  delete(): Promise<void>;
  /** Calls back at every out-of-memory kill until closed: close it when the group's processes have ended (v2's kernel does not tell of a
   * group's removal). With `fromStart` kills from before it began to watch are told of too. */
  watchOom(onOom: (event: OomEvent) => void, fromStart?: boolean): Promise<Watch>;
  /** How many of its processes the kernel has killed for want of memory; 0 if it does not count them, or the group is gone. */
  oomKills(): Promise<bigint>;
}

type Int = number | bigint;

/** The part of OCI's LinuxResources that can be changed at a running container. */
export interface LinuxResources {
  memory?: {
    limit?: Int | undefined;
    reservation?: Int | undefined;
    swap?: Int | undefined;
    swappiness?: Int | undefined;
    disableOOMKiller?: boolean | undefined;
  };
  cpu?: {
    shares?: Int | undefined;
    quota?: Int | undefined;
    burst?: Int | undefined;
    period?: Int | undefined;
    realtimeRuntime?: Int | undefined;
    realtimePeriod?: Int | undefined;
    cpus?: string | undefined;
    mems?: string | undefined;
    idle?: Int | undefined;
  };
  pids?: { limit?: Int | undefined };
  blockIO?: {
    weight?: number | undefined;
    throttleReadBpsDevice?: ThrottleDevice[];
    throttleWriteBpsDevice?: ThrottleDevice[];
    throttleReadIOPSDevice?: ThrottleDevice[];
    throttleWriteIOPSDevice?: ThrottleDevice[];
  };
  hugepageLimits?: { pageSize: string; limit: Int }[];
  /** v2 files and what to write into them. */
  unified?: Record<string, string>;
}

export interface ThrottleDevice {
  major: Int;
  minor: Int;
  rate: Int;
}

/** One write of an update. */
export interface Setting {
  controller: string;
  file: string;
  value: string;
}
