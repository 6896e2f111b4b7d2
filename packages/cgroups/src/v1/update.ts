/** OCI resources as writes to v1's files. */
import type { LinuxResources, Setting } from '../group.ts';
import { plain } from '../v2/update.ts';

/** The writes an update needs. Memory is last: its order depends on what is set now (see memorySettings). */
export function settings(resources: LinuxResources): Setting[] {
  const list: Setting[] = [];
  const put = (controller: string, file: string, value: string | number | bigint) =>
    list.push({ controller, file, value: String(value) });
  const { memory, cpu, pids, blockIO } = resources;
  if (cpu?.cpus) put('cpuset', 'cpuset.cpus', cpu.cpus);
  if (cpu?.mems) put('cpuset', 'cpuset.mems', cpu.mems);
  if (cpu?.idle !== undefined) put('cpu', 'cpu.idle', cpu.idle);
  if (cpu?.shares) put('cpu', 'cpu.shares', cpu.shares);
  if (cpu?.period) put('cpu', 'cpu.cfs_period_us', cpu.period);
  if (cpu?.quota) put('cpu', 'cpu.cfs_quota_us', cpu.quota);
  if (cpu?.burst !== undefined) put('cpu', 'cpu.cfs_burst_us', cpu.burst);
  if (cpu?.realtimePeriod) put('cpu', 'cpu.rt_period_us', cpu.realtimePeriod);
  if (cpu?.realtimeRuntime) put('cpu', 'cpu.rt_runtime_us', cpu.realtimeRuntime);
  if (pids?.limit !== undefined && BigInt(pids.limit) !== 0n) {
    put('pids', 'pids.max', BigInt(pids.limit) < 0n ? 'max' : pids.limit);
  }
  if (blockIO?.weight) put('blkio', 'blkio.weight', blockIO.weight);
  const throttles = [
    ['read_bps', blockIO?.throttleReadBpsDevice],
    ['write_bps', blockIO?.throttleWriteBpsDevice],
    ['read_iops', blockIO?.throttleReadIOPSDevice],
    ['write_iops', blockIO?.throttleWriteIOPSDevice],
  ] as const;
  for (const [name, devices] of throttles) {
    for (const { major, minor, rate } of devices ?? []) {
      put('blkio', `blkio.throttle.${name}_device`, `${major}:${minor} ${rate}`);
    }
  }
  for (const { pageSize, limit } of resources.hugepageLimits ?? []) {
    put('hugetlb', `hugetlb.${plain(pageSize)}.limit_in_bytes`, limit);
  }
  if (memory?.reservation) put('memory', 'memory.soft_limit_in_bytes', memory.reservation);
  if (memory?.swappiness !== undefined) put('memory', 'memory.swappiness', memory.swappiness);
  if (memory?.disableOOMKiller) put('memory', 'memory.oom_control', 1);
  return list;
}

/**
 * Memory and memory-with-swap: the kernel refuses a memory limit above the other one at every moment, so when the limit grows
 * past the present sum, the sum is set first.
 */
export function memorySettings(memory: LinuxResources['memory'], presentSum: bigint | undefined): Setting[] {
  const put = (file: string, value: number | bigint): Setting => ({ controller: 'memory', file, value: String(value) });
  const limit = memory?.limit ? put('memory.limit_in_bytes', memory.limit) : undefined;
  const sum = memory?.swap ? put('memory.memsw.limit_in_bytes', memory.swap) : undefined;
  if (!limit || !sum) return [limit, sum].filter((setting) => setting !== undefined);
  const grows = BigInt(sum.value) < 0n || (presentSum !== undefined && presentSum < BigInt(sum.value));
  return grows ? [sum, limit] : [limit, sum];
}
