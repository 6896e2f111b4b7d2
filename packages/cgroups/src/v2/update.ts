/** OCI resources as writes to v2's files, by the conversions of the OCI runtime specification. */
import { invalidArgument } from '@gantry/api';
import type { LinuxResources, Setting } from '../group.ts';

/** CPU shares (2–262144) as a weight (1–10000). */
export function sharesToWeight(shares: bigint): bigint {
  const bounded = shares < 2n ? 2n : shares > 262_144n ? 262_144n : shares;
  return 1n + ((bounded - 2n) * 9999n) / 262_142n;
}

/** Block I/O weight (10–1000) as v2 counts it (1–10000). */
export function blkioToIoWeight(weight: number): number {
  return 1 + Math.trunc(((Math.min(Math.max(weight, 10), 1000) - 10) * 9999) / 990);
}

const limit = (value: number | bigint) => (BigInt(value) < 0n ? 'max' : String(value));

/** The writes an update needs, in their order. */
export function settings(resources: LinuxResources): Setting[] {
  const list: Setting[] = [];
  const put = (file: string, value: string | number | bigint) =>
    list.push({ controller: file.split('.')[0]!, file, value: String(value) });
  const { memory, cpu, pids, blockIO } = resources;
  if (cpu?.cpus) put('cpuset.cpus', cpu.cpus);
  if (cpu?.mems) put('cpuset.mems', cpu.mems);
  if (cpu?.idle !== undefined) put('cpu.idle', cpu.idle);
  if (cpu?.shares) put('cpu.weight', sharesToWeight(BigInt(cpu.shares)));
  if (cpu?.burst !== undefined) put('cpu.max.burst', cpu.burst);
  if (cpu?.quota || cpu?.period) {
    const quota = cpu.quota && BigInt(cpu.quota) > 0n ? String(cpu.quota) : 'max';
    put('cpu.max', cpu.period ? `${quota} ${cpu.period}` : quota);
  }
  putMemory(memory, put);
  if (pids?.limit !== undefined && BigInt(pids.limit) !== 0n) put('pids.max', limit(pids.limit));
  if (blockIO?.weight) put('io.weight', blkioToIoWeight(blockIO.weight));
  const throttles = [
    ['rbps', blockIO?.throttleReadBpsDevice],
    ['wbps', blockIO?.throttleWriteBpsDevice],
    ['riops', blockIO?.throttleReadIOPSDevice],
    ['wiops', blockIO?.throttleWriteIOPSDevice],
  ] as const;
  for (const [name, devices] of throttles) {
    for (const { major, minor, rate } of devices ?? []) {
      put('io.max', `${major}:${minor} ${name}=${BigInt(rate) === 0n ? 'max' : rate}`);
    }
  }
  for (const { pageSize, limit: bytes } of resources.hugepageLimits ?? []) put(`hugetlb.${plain(pageSize)}.max`, bytes);
  for (const [file, value] of Object.entries(resources.unified ?? {})) put(plain(file), value);
  return list;
}

function putMemory(
  memory: LinuxResources['memory'],
  put: (file: string, value: string | number | bigint) => void,
): void {
  if (!memory) return;
  const max = BigInt(memory.limit ?? 0);
  const total = BigInt(memory.swap ?? 0);
  // OCI's swap is memory and swap together, v2's is swap alone.
  if (total !== 0n) {
    if (total < 0n) put('memory.swap.max', 'max');
    else {
      if (max <= 0n) throw invalidArgument('unable to set swap limit without memory limit');
      if (total < max) throw invalidArgument('memory+swap limit should be >= memory limit');
      put('memory.swap.max', total - max);
    }
  } else if (max < 0n) put('memory.swap.max', 'max');
  if (max !== 0n) put('memory.max', limit(max));
  if (memory.reservation) put('memory.low', limit(memory.reservation));
}

/** A file name of the group itself: no path out of it. */
export function plain(name: string): string {
  if (!/^[A-Za-z0-9_.-]+$/.test(name) || name.startsWith('.')) throw invalidArgument(`invalid cgroup file: ${name}`);
  return name;
}
