/** A v2 group's files as io.containerd.cgroups.v2.Metrics. */
import { readdir } from 'node:fs/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Metrics, MetricsSchema, type PSIStatsSchema } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { parseNested, readKeyed, readNumber, readText, toNumber } from '../files.ts';

type Init = MessageInitShape<typeof MetricsSchema>;

/** Reads all there is. Controllers that are off leave their part out. */
export async function readStats(directory: string): Promise<Metrics> {
  const [pids, cpu, memory, memoryEvents, io, rdma, hugetlb] = await Promise.all([
    readPidsStat(directory),
    readCpu(directory),
    readMemory(directory),
    readKeyed(directory, 'memory.events'),
    readIo(directory),
    readRdma(directory),
    readHugetlb(directory),
  ]);
  const metrics: Init = { hugetlb };
  if (pids) metrics.pids = pids;
  if (cpu) metrics.cpu = cpu;
  if (memory) metrics.memory = memory;
  if (io) metrics.io = io;
  if (rdma) metrics.rdma = rdma;
  if (memoryEvents) {
    metrics.memoryEvents = {
      low: memoryEvents['low'] ?? 0n,
      high: memoryEvents['high'] ?? 0n,
      max: memoryEvents['max'] ?? 0n,
      oom: memoryEvents['oom'] ?? 0n,
      oomKill: memoryEvents['oom_kill'] ?? 0n,
      oomGroupKill: memoryEvents['oom_group_kill'] ?? 0n,
    };
  }
  return create(MetricsSchema, metrics);
}

async function readPidsStat(directory: string): Promise<Init['pids']> {
  const current = await readNumber(directory, 'pids.current');
  if (current === undefined) return undefined;
  return { current, limit: (await readNumber(directory, 'pids.max')) ?? 0n };
}

/** Pressure stall information, absent where the kernel keeps none. */
async function readPressure(
  directory: string,
  name: string,
): Promise<{ psi?: MessageInitShape<typeof PSIStatsSchema> }> {
  const text = await readText(directory, name);
  if (text === undefined) return {};
  const psi: MessageInitShape<typeof PSIStatsSchema> = {};
  for (const { subject, values } of parseNested(text)) {
    if (subject !== 'some' && subject !== 'full') continue;
    psi[subject] = {
      avg10: Number(values['avg10'] ?? 0),
      avg60: Number(values['avg60'] ?? 0),
      avg300: Number(values['avg300'] ?? 0),
      total: toNumber(values['total']),
    };
  }
  return { psi };
}

async function readCpu(directory: string): Promise<Init['cpu']> {
  const stat = await readKeyed(directory, 'cpu.stat');
  if (!stat) return undefined;
  return {
    usageUsec: stat['usage_usec'] ?? 0n,
    userUsec: stat['user_usec'] ?? 0n,
    systemUsec: stat['system_usec'] ?? 0n,
    nrPeriods: stat['nr_periods'] ?? 0n,
    nrThrottled: stat['nr_throttled'] ?? 0n,
    throttledUsec: stat['throttled_usec'] ?? 0n,
    nrBursts: stat['nr_bursts'] ?? 0n,
    burstUsec: stat['burst_usec'] ?? 0n,
    ...(await readPressure(directory, 'cpu.pressure')),
  };
}

async function readMemory(directory: string): Promise<Init['memory']> {
  const stat = await readKeyed(directory, 'memory.stat');
  if (!stat) return undefined;
  const value = (name: string) => stat[name] ?? 0n;
  // Since Linux 5.9 these three are counted apart for anonymous and file pages.
  const both = (name: string) => stat[name] ?? value(`${name}_anon`) + value(`${name}_file`);
  const number = async (name: string) => (await readNumber(directory, name)) ?? 0n;
  return {
    anon: value('anon'),
    file: value('file'),
    kernelStack: value('kernel_stack'),
    slab: value('slab'),
    sock: value('sock'),
    shmem: value('shmem'),
    fileMapped: value('file_mapped'),
    fileDirty: value('file_dirty'),
    fileWriteback: value('file_writeback'),
    anonThp: value('anon_thp'),
    inactiveAnon: value('inactive_anon'),
    activeAnon: value('active_anon'),
    inactiveFile: value('inactive_file'),
    activeFile: value('active_file'),
    unevictable: value('unevictable'),
    slabReclaimable: value('slab_reclaimable'),
    slabUnreclaimable: value('slab_unreclaimable'),
    pgfault: value('pgfault'),
    pgmajfault: value('pgmajfault'),
    workingsetRefault: both('workingset_refault'),
    workingsetActivate: both('workingset_activate'),
    workingsetNodereclaim: value('workingset_nodereclaim'),
    pgrefill: value('pgrefill'),
    pgscan: value('pgscan'),
    pgsteal: value('pgsteal'),
    pgactivate: value('pgactivate'),
    pgdeactivate: value('pgdeactivate'),
    pglazyfree: value('pglazyfree'),
    pglazyfreed: value('pglazyfreed'),
    thpFaultAlloc: value('thp_fault_alloc'),
    thpCollapseAlloc: value('thp_collapse_alloc'),
    usage: await number('memory.current'),
    usageLimit: await number('memory.max'),
    maxUsage: await number('memory.peak'),
    swapUsage: await number('memory.swap.current'),
    swapLimit: await number('memory.swap.max'),
    swapMaxUsage: await number('memory.swap.peak'),
    ...(await readPressure(directory, 'memory.pressure')),
  };
}

async function readIo(directory: string): Promise<Init['io']> {
  const text = await readText(directory, 'io.stat');
  if (text === undefined) return undefined;
  const usage = parseNested(text).flatMap(({ subject, values }) => {
    const match = /^(\d+):(\d+)$/.exec(subject);
    if (!match) return [];
    return [
      {
        major: BigInt(match[1]!),
        minor: BigInt(match[2]!),
        rbytes: toNumber(values['rbytes']),
        wbytes: toNumber(values['wbytes']),
        rios: toNumber(values['rios']),
        wios: toNumber(values['wios']),
      },
    ];
  });
  return { usage, ...(await readPressure(directory, 'io.pressure')) };
}

/** rdma.current and rdma.max; the same in v1. */
export async function readRdma(directory: string) {
  const [current, limit] = await Promise.all([readText(directory, 'rdma.current'), readText(directory, 'rdma.max')]);
  if (current === undefined && limit === undefined) return undefined;
  const number = (text: string | undefined) => (text === 'max' ? 0xffff_ffff : Number(text ?? 0));
  const entries = (text = '') =>
    parseNested(text).map(({ subject, values }) => ({
      device: subject,
      hcaHandles: number(values['hca_handle']),
      hcaObjects: number(values['hca_object']),
    }));
  return { current: entries(current), limit: entries(limit) };
}

async function readHugetlb(directory: string): Promise<NonNullable<Init['hugetlb']>> {
  const names = await readdir(directory);
  const sizes = names.flatMap((name) => /^hugetlb\.([^.]+)\.current$/.exec(name)?.[1] ?? []).sort();
  return Promise.all(
    sizes.map(async (pagesize) => ({
      pagesize,
      current: (await readNumber(directory, `hugetlb.${pagesize}.current`)) ?? 0n,
      max: (await readNumber(directory, `hugetlb.${pagesize}.max`)) ?? 0n,
      failcnt: (await readKeyed(directory, `hugetlb.${pagesize}.events`))?.['max'] ?? 0n,
    })),
  );
}
