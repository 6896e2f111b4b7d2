import { create } from '@bufbuild/protobuf';
import { Code, hasCode, now } from '@gantry/api';
import {
  type ContainerStats,
  ContainerStatsSchema,
  type FilesystemUsage,
  FilesystemUsageSchema,
  type MetricDescriptor,
  type PodSandboxMetrics,
  type PodSandboxStats,
  PodSandboxStatsSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { expandSlice, loadCgroup } from '@gantry/cgroups';
import type { ContainerStore } from '@gantry/daemon/core/containers/container-store.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { TaskRuntime } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { parseJson, type RuntimeSpec } from '@gantry/oci';
import { criContext } from '../cri.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';
import { type CgroupUsage, usageOf } from './cgroup-usage.ts';
import { type ContainerDetails, containerDetails } from './container-details.ts';
import { CpuRates } from './cpu-rates.ts';
import type { SnapshotDisk } from './disk-usage.ts';
import { metricDescriptors, podMetrics } from './metrics.ts';
import { type InterfaceUsage, networkUsage } from './network-usage.ts';
import type { StatsCollector } from './stats-collector.ts';
import { wireCpu, wireIo, wireMemory, wireSwap } from './wire-usage.ts';

export interface CgroupStatsOptions {
  tasks: TaskRuntime;
  containers: ContainerStore;
  disk: SnapshotDisk;
  /** How often rates are sampled without anybody asking; absent: never. */
  collectMs?: number | undefined;
  retentionMs?: number | undefined;
  /** Containers and pods to sample. */
  running(): { containers: CriContainer[]; sandboxes: PodSandbox[] };
  /** Where a snapshotter keeps its files. */
  snapshotterRoot(name: string): string;
  /** Those that runtimes have for themselves. */
  snapshotters(): readonly string[];
  log: Logger;
}

/** Asks shims and the kernel at each call; nothing is collected in between but rates. */
export class CgroupStats implements StatsCollector {
  readonly #options: CgroupStatsOptions;
  readonly #rates: CpuRates;
  readonly #timer: NodeJS.Timeout | undefined;
  #collecting = false;

  constructor(options: CgroupStatsOptions) {
    this.#options = options;
    this.#rates = new CpuRates(options.retentionMs);
    const { collectMs, running } = options;
    if (collectMs) this.#timer = setInterval(() => void this.#collect(running()), collectMs).unref();
  }

  /** Samples of all that runs, so that whoever asks next hears of the last moments. A round that takes too long has no second beside it. */
  async #collect({ containers, sandboxes }: ReturnType<CgroupStatsOptions['running']>): Promise<void> {
    if (this.#collecting) return;
    this.#collecting = true;
    const note = (thing: object, usage: CgroupUsage | undefined): void => {
      if (usage) this.#rates.next(thing, nanosOf(now()), usage.cpu.total);
    };
    try {
      for (const container of containers) note(container, await this.#usage(container.id));
      for (const sandbox of sandboxes) note(sandbox, await this.#podUsage(sandbox));
    } catch (error) {
      this.#options.log.warn('no samples of processor time', { error });
    } finally {
      this.#collecting = false;
    }
  }

  /** undefined for what does not run. */
  async #usage(id: string): Promise<CgroupUsage | undefined> {
    try {
      return usageOf(await this.#options.tasks.get(criContext(), id).stats());
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) this.#options.log.warn('no metrics', { error, id });
      return undefined;
    }
  }

  async containerStats(container: CriContainer): Promise<ContainerStats | undefined> {
    const { id, metadata } = container;
    const usage = container.status.pid > 0 ? await this.#usage(id) : undefined;
    const timestamp = nanosOf(now());
    const { config } = metadata;
    const swap = usage && wireSwap(usage, timestamp);
    const io = usage && wireIo(usage, timestamp);
    const writableLayer = await this.#writableLayer(id);
    return create(ContainerStatsSchema, {
      attributes: {
        id,
        ...(config.metadata && { metadata: config.metadata }),
        labels: config.labels,
        annotations: config.annotations,
      },
      ...(usage && {
        cpu: wireCpu(usage, timestamp, this.#rates.next(container, timestamp, usage.cpu.total)),
        memory: wireMemory(usage, timestamp),
      }),
      ...(swap && { swap }),
      ...(io && { io }),
      ...(writableLayer && { writableLayer }),
    });
  }

  async #writableLayer(id: string): Promise<FilesystemUsage | undefined> {
    const { containers, disk, snapshotterRoot } = this.#options;
    try {
      const { snapshotter, snapshotKey } = await containers.get(criContext(), id);
      const { timestamp, bytes, inodes } = await disk.of(snapshotter, snapshotKey);
      return filesystem(snapshotterRoot(snapshotter), timestamp, bytes, inodes);
    } catch (error) {
      if (hasCode(error, Code.NotFound)) return undefined;
      throw error;
    }
  }

  async podStats(sandbox: PodSandbox, members: readonly CriContainer[]): Promise<PodSandboxStats | undefined> {
    const { id, metadata, status } = sandbox;
    if (status.state !== 'ready') return undefined;
    const { config } = metadata;
    const usage = await this.#podUsage(sandbox);
    const timestamp = nanosOf(now());
    const interfaces = metadata.netnsPath === '' ? [] : (await networkUsage(status.pid)).map(wireInterface);
    const running = members.filter((member) => member.status.pid > 0);
    const stats = await Promise.all(running.map((member) => this.containerStats(member)));
    const main = interfaces.find(({ name }) => name === 'eth0');
    const io = usage && wireIo(usage, timestamp);
    return create(PodSandboxStatsSchema, {
      attributes: {
        id,
        ...(config.metadata && { metadata: config.metadata }),
        labels: config.labels,
        annotations: config.annotations,
      },
      linux: {
        ...(usage && {
          cpu: wireCpu(usage, timestamp, this.#rates.next(sandbox, timestamp, usage.cpu.total) ?? 0n),
          memory: wireMemory(usage, timestamp),
          process: { timestamp, processCount: { value: usage.processes } },
        }),
        ...(io && { io }),
        // The kubelet takes for granted that a network has a default interface.
        ...(main && { network: { timestamp, interfaces, defaultInterface: main } }),
        containers: stats.filter((one) => one !== undefined),
      },
    });
  }

  /** The pod's own cgroup tells of all in it; without one only its first process is told of. */
  async #podUsage({ id, metadata }: PodSandbox): Promise<CgroupUsage | undefined> {
    const parent = metadata.config.linux?.cgroupParent ?? '';
    if (parent === '') return await this.#usage(id);
    try {
      // Under systemd the parent is the name of a slice, which spells out its directory.
      const path = parent.endsWith('.slice') && !parent.includes('/') ? `/${expandSlice(parent)}` : parent;
      return usageOf(await (await loadCgroup(path)).stats());
    } catch (error) {
      if (hasCode(error, Code.NotFound) || hasCode(error, Code.InvalidArgument)) return await this.#usage(id);
      throw error;
    }
  }

  async imageFilesystems(): Promise<FilesystemUsage[]> {
    const { disk, snapshotterRoot, snapshotters, log } = this.#options;
    const found: FilesystemUsage[] = [];
    // The kubelet looks at the first; of others only those that have something.
    for (const name of new Set([disk.snapshotter, ...snapshotters()])) {
      const first = name === disk.snapshotter;
      try {
        const { timestamp, bytes, inodes } = await disk.all(name);
        if (first || inodes > 0n || bytes > 0n) found.push(filesystem(snapshotterRoot(name), timestamp, bytes, inodes));
      } catch (error) {
        if (first) throw error;
        log.warn('disk usage of a snapshotter is not known', { error, snapshotter: name });
      }
    }
    return found;
  }

  metricDescriptors(): MetricDescriptor[] {
    return metricDescriptors();
  }

  async podMetrics(sandbox: PodSandbox, members: readonly CriContainer[]): Promise<PodSandboxMetrics | undefined> {
    if (sandbox.status.state !== 'ready') return undefined;
    const running = members.filter((member) => member.status.pid > 0);
    const usages = await Promise.all(
      running.map(async (container) => ({
        container,
        usage: await this.#usage(container.id),
        details: await this.#details(container.id),
      })),
    );
    const network = sandbox.metadata.netnsPath === '' ? [] : await networkUsage(sandbox.status.pid);
    return podMetrics(sandbox, await this.#podUsage(sandbox), network, usages, nanosOf(now()));
  }

  /** undefined for what has gone meanwhile. */
  async #details(id: string): Promise<ContainerDetails | undefined> {
    const { tasks, containers, disk, snapshotterRoot, log } = this.#options;
    try {
      const { snapshotter, snapshotKey, spec } = await containers.get(criContext(), id);
      const pids = await tasks.get(criContext(), id).pids();
      return await containerDetails(
        pids.map(({ pid }) => pid),
        spec && parseJson<RuntimeSpec>(spec.value),
        snapshotterRoot(snapshotter),
        await disk.of(snapshotter, snapshotKey),
      );
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) log.warn('no metrics', { error, id });
      return undefined;
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
  }
}

function filesystem(mountpoint: string, timestamp: bigint, bytes: bigint, inodes: bigint): FilesystemUsage {
  return create(FilesystemUsageSchema, {
    timestamp,
    fsId: { mountpoint },
    usedBytes: { value: bytes },
    inodesUsed: { value: inodes },
  });
}

function wireInterface({ name, rx, tx }: InterfaceUsage) {
  return {
    name,
    rxBytes: { value: rx.bytes },
    rxErrors: { value: rx.errors },
    txBytes: { value: tx.bytes },
    txErrors: { value: tx.errors },
  };
}
