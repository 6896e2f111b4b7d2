import { readdir, readlink, statfs } from 'node:fs/promises';
import type { RuntimeSpec } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';
import type { DiskUsage } from './disk-usage.ts';

/** What of a running container is known by looking at its processes, its specification and its file system. */
export interface ContainerDetails {
  descriptors: bigint;
  sockets: bigint;
  threads: bigint;
  /** Soft limits by their names; 2^64 - 1 is none. */
  limits: { name: string; soft: bigint }[];
  spec: { cpuPeriod?: bigint; cpuShares?: bigint; memoryReservation?: bigint };
  filesystem?: { usedBytes: bigint; limitBytes: bigint; inodes: bigint; inodesFree: bigint } | undefined;
}

/**
 * Counts what the processes have open. Those that end meanwhile have nothing.
 * @param root where the snapshotter keeps its files @param disk what the container's own snapshot takes
 */
export async function containerDetails(
  pids: readonly number[],
  spec: RuntimeSpec | undefined,
  root: string | undefined,
  disk: DiskUsage | undefined,
): Promise<ContainerDetails> {
  const counts = await Promise.all(pids.map(openBy));
  const sum = (of: (count: Opened) => number): bigint => BigInt(counts.reduce((total, count) => total + of(count), 0));
  const { cpu, memory } = spec?.linux?.resources ?? {};
  return {
    descriptors: sum(({ descriptors }) => descriptors),
    sockets: sum(({ sockets }) => sockets),
    threads: sum(({ threads }) => threads),
    limits: (spec?.process?.rlimits ?? []).map(({ type, soft }) => ({
      name: type,
      soft: BigInt.asUintN(64, BigInt(soft)),
    })),
    spec: {
      ...(cpu?.period !== undefined && { cpuPeriod: BigInt(cpu.period) }),
      ...(cpu?.shares !== undefined && { cpuShares: BigInt(cpu.shares) }),
      ...(memory?.reservation !== undefined && { memoryReservation: BigInt.asUintN(64, BigInt(memory.reservation)) }),
    },
    filesystem: root !== undefined && disk ? await filesystemOf(root, disk) : undefined,
  };
}

interface Opened {
  descriptors: number;
  sockets: number;
  threads: number;
}

async function openBy(pid: number): Promise<Opened> {
  try {
    const names = await readdir(`/proc/${pid}/fd`);
    const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')));
    return {
      descriptors: names.length,
      sockets: targets.filter((target) => target.startsWith('socket:')).length,
      threads: (await readdir(`/proc/${pid}/task`)).length,
    };
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ESRCH', 'EACCES')) return { descriptors: 0, sockets: 0, threads: 0 };
    throw error;
  }
}

async function filesystemOf(root: string, { bytes, inodes }: DiskUsage): Promise<ContainerDetails['filesystem']> {
  try {
    const { blocks, bsize, ffree } = await statfs(root, { bigint: true });
    return { usedBytes: bytes, limitBytes: blocks * bsize, inodes, inodesFree: ffree };
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
