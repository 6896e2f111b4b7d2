import { create } from '@bufbuild/protobuf';
import {
  type ContainerMetrics,
  ContainerMetricsSchema,
  type Metric,
  type MetricDescriptor,
  MetricDescriptorSchema,
  MetricSchema,
  MetricType,
  type PodSandboxMetrics,
  PodSandboxMetricsSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import type { CgroupUsage } from './cgroup-usage.ts';
import type { ContainerDetails } from './container-details.ts';
import type { DiskIo } from './disk-io.ts';
import type { InterfaceUsage } from './network-usage.ts';

/** Metrics under the names that cAdvisor gave them. Descriptors are of those that are told, and no others. */

interface Described {
  name: string;
  help: string;
  type: MetricType;
  /** Labels after those that every metric has. */
  more?: string[];
}

interface UsageMetric extends Described {
  value(usage: CgroupUsage): bigint;
}

const commonLabels = ['pod', 'namespace', 'container', 'id', 'image'];
const { COUNTER, GAUGE } = MetricType;
/** Values are whole numbers on the wire: seconds lose their fractions. */
const seconds = (nanos: bigint): bigint => nanos / 1_000_000_000n;

const usageMetrics: readonly UsageMetric[] = [
  counter('container_cpu_user_seconds_total', 'Processor time used in user mode, seconds.', ({ cpu }) =>
    seconds(cpu.user),
  ),
  counter('container_cpu_system_seconds_total', 'Processor time used in the kernel, seconds.', ({ cpu }) =>
    seconds(cpu.system),
  ),
  counter('container_cpu_usage_seconds_total', 'Processor time used, seconds.', ({ cpu }) => seconds(cpu.total)),
  counter('container_cpu_cfs_periods_total', 'Enforcement periods that have gone by.', ({ cpu }) => cpu.periods),
  counter(
    'container_cpu_cfs_throttled_periods_total',
    'Periods in which it was throttled.',
    ({ cpu }) => cpu.throttledPeriods,
  ),
  counter('container_cpu_cfs_throttled_seconds_total', 'Time for which it was throttled, seconds.', ({ cpu }) =>
    seconds(cpu.throttled),
  ),
  gauge('container_memory_cache', 'Bytes of page cache.', ({ memory }) => memory.cache),
  gauge('container_memory_rss', 'Bytes of memory that no file is behind.', ({ memory }) => memory.rss),
  gauge('container_memory_kernel_usage', 'Bytes of kernel memory.', ({ memory }) => memory.kernel),
  gauge('container_memory_mapped_file', 'Bytes of mapped files.', ({ memory }) => memory.mappedFile),
  gauge('container_memory_swap', 'Bytes of swap.', ({ swap }) => swap?.usage ?? 0n),
  counter('container_memory_failcnt', 'How often its limit was met.', ({ memory }) => memory.failures),
  gauge('container_memory_usage_bytes', 'Bytes of memory in use, page cache among them.', ({ memory }) => memory.usage),
  gauge('container_memory_max_usage_bytes', 'The most bytes that were in use.', ({ memory }) => memory.maxUsage),
  gauge(
    'container_memory_working_set_bytes',
    'Bytes in use without inactive files.',
    ({ memory }) => memory.workingSet,
  ),
  gauge('container_memory_total_active_file_bytes', 'Bytes of active files.', ({ memory }) => memory.activeFile),
  gauge('container_memory_total_inactive_file_bytes', 'Bytes of inactive files.', ({ memory }) => memory.inactiveFile),
  counter('container_oom_events_total', 'Processes killed for lack of memory.', ({ oomKills }) => oomKills),
  gauge('container_processes', 'Processes, and threads where the kernel counts them.', ({ processes }) => processes),
  gauge('container_threads_max', 'Most processes and threads it may have, 0 for any.', (usage) => usage.processLimit),
  gauge('container_spec_memory_limit_bytes', 'Limit of memory in bytes, 0 for none.', ({ memory }) => memory.limit),
  gauge(
    'container_spec_memory_swap_limit_bytes',
    'Limit of swap in bytes, 0 for none.',
    ({ swap }) => swap?.limit ?? 0n,
  ),
];

const diskMetrics: readonly (Described & { value(io: DiskIo): bigint })[] = [
  { ...diskCounter('container_fs_reads_bytes_total', 'Bytes read.'), value: ({ readBytes }) => readBytes },
  { ...diskCounter('container_fs_reads_total', 'Reads.'), value: ({ reads }) => reads },
  { ...diskCounter('container_fs_writes_bytes_total', 'Bytes written.'), value: ({ writeBytes }) => writeBytes },
  { ...diskCounter('container_fs_writes_total', 'Writes.'), value: ({ writes }) => writes },
];
const deviceUsage: Described = {
  name: 'container_blkio_device_usage_total',
  help: 'Bytes that went to and from a block device.',
  type: COUNTER,
  more: ['device', 'major', 'minor', 'operation'],
};

function diskCounter(name: string, help: string): Described {
  return { name, help, type: COUNTER, more: ['device'] };
}

/** Of the file system that a container writes to, whose device is `/` as containerd has it. */
const filesystemMetrics = {
  usedBytes: diskGauge('container_fs_usage_bytes', 'Bytes that its own layer takes.'),
  limitBytes: diskGauge('container_fs_limit_bytes', 'Bytes that the file system has.'),
  inodes: diskGauge('container_fs_inodes_total', 'Inodes that its own layer takes.'),
  inodesFree: diskGauge('container_fs_inodes_free', 'Inodes that the file system has left.'),
} as const;

function diskGauge(name: string, help: string): Described {
  return { name, help, type: GAUGE, more: ['device'] };
}

const openMetrics = {
  descriptors: { name: 'container_file_descriptors', help: 'Open file descriptors.', type: GAUGE },
  sockets: { name: 'container_sockets', help: 'Open sockets.', type: GAUGE },
  threads: { name: 'container_threads', help: 'Threads that run.', type: GAUGE },
} as const;
const softLimit: Described = {
  name: 'container_ulimits_soft',
  help: 'Soft limits of its first process.',
  type: GAUGE,
  more: ['ulimit'],
};
const specMetrics = {
  cpuPeriod: { name: 'container_spec_cpu_period', help: 'Period of its processor limit, microseconds.', type: GAUGE },
  cpuShares: { name: 'container_spec_cpu_shares', help: 'Its share of processors.', type: GAUGE },
  memoryReservation: {
    name: 'container_spec_memory_reservation_limit_bytes',
    help: 'Memory that is kept for it, bytes.',
    type: GAUGE,
  },
} as const;

function counter(name: string, help: string, value: UsageMetric['value']): UsageMetric {
  return { name, help, type: COUNTER, value };
}

function gauge(name: string, help: string, value: UsageMetric['value']): UsageMetric {
  return { name, help, type: GAUGE, value };
}

const faults: Described = {
  name: 'container_memory_failures_total',
  help: 'Page faults.',
  type: COUNTER,
  more: ['failure_type', 'scope'],
};
const started: Described = {
  name: 'container_start_time_seconds',
  help: 'When it was started, seconds since 1970.',
  type: GAUGE,
};
const seen: Described = {
  name: 'container_last_seen',
  help: 'When it was looked at, seconds since 1970.',
  type: GAUGE,
};

const directions = { rx: 'receive', tx: 'transmit' } as const;
const networkFields = { bytes: 'bytes', packets: 'packets', dropped: 'packets_dropped', errors: 'errors' } as const;

const networkMetrics = Object.entries(directions).flatMap(([way, word]) =>
  Object.entries(networkFields).map(([field, text]) => ({
    name: `container_network_${word}_${text}_total`,
    help: `${text.replace('_', ' ')} (${word}).`,
    type: COUNTER,
    more: ['interface'],
    value: (usage: InterfaceUsage) => usage[way as keyof typeof directions][field as keyof typeof networkFields],
  })),
);

export function metricDescriptors(): MetricDescriptor[] {
  const all: Described[] = [
    ...[...usageMetrics, faults, ...networkMetrics, ...diskMetrics, deviceUsage],
    ...Object.values(filesystemMetrics),
    ...[...Object.values(openMetrics), softLimit, ...Object.values(specMetrics)],
    ...[started, seen],
  ];
  return all.map(({ name, help, more = [] }) =>
    create(MetricDescriptorSchema, { name, help, labelKeys: [...commonLabels, ...more] }),
  );
}

function metric({ name, type }: Described, labels: readonly string[], value: bigint, timestamp: bigint): Metric {
  return create(MetricSchema, { name, metricType: type, labelValues: [...labels], value: { value }, timestamp });
}

function metricsOfUsage(usage: CgroupUsage, labels: readonly string[], timestamp: bigint): Metric[] {
  return [
    ...usageMetrics.map((described) => metric(described, labels, described.value(usage), timestamp)),
    metric(faults, [...labels, 'pgfault', 'container'], usage.memory.pageFaults, timestamp),
    metric(faults, [...labels, 'pgmajfault', 'container'], usage.memory.majorPageFaults, timestamp),
    ...usage.disks.flatMap((io) => metricsOfDisk(io, labels, timestamp)),
  ];
}

function metricsOfDisk(io: DiskIo, labels: readonly string[], timestamp: bigint): Metric[] {
  const numbers = [io.device, String(io.major), String(io.minor)];
  return [
    ...diskMetrics.map((described) => metric(described, [...labels, io.device], described.value(io), timestamp)),
    metric(deviceUsage, [...labels, ...numbers, 'Read'], io.readBytes, timestamp),
    metric(deviceUsage, [...labels, ...numbers, 'Write'], io.writeBytes, timestamp),
  ];
}

function metricsOfDetails(details: ContainerDetails, labels: readonly string[], timestamp: bigint): Metric[] {
  const { filesystem, limits, spec } = details;
  const entries = <K extends string>(table: Record<K, Described>) => Object.entries(table) as [K, Described][];
  return [
    ...entries(openMetrics).map(([key, described]) => metric(described, labels, details[key], timestamp)),
    ...limits.map(({ name, soft }) => metric(softLimit, [...labels, name], soft, timestamp)),
    ...entries(specMetrics).flatMap(([key, described]) => {
      const value = spec[key];
      return value === undefined ? [] : [metric(described, labels, value, timestamp)];
    }),
    ...(filesystem
      ? entries(filesystemMetrics).map(([key, described]) =>
          metric(described, [...labels, '/'], filesystem[key], timestamp),
        )
      : []),
  ];
}

/** What is told of a pod and its running containers. @param timestamp nanoseconds since 1970 */
export function podMetrics(
  sandbox: PodSandbox,
  usage: CgroupUsage | undefined,
  network: readonly InterfaceUsage[],
  members: readonly {
    container: CriContainer;
    usage: CgroupUsage | undefined;
    details?: ContainerDetails | undefined;
  }[],
  timestamp: bigint,
): PodSandboxMetrics {
  const { id, metadata, status } = sandbox;
  const { name = '', namespace = '' } = metadata.config.metadata ?? {};
  const labels = [name, namespace, 'POD', id, ''];
  const times = (start: bigint, of: readonly string[]) => [
    metric(started, of, seconds(start), timestamp),
    metric(seen, of, seconds(timestamp), timestamp),
  ];
  return create(PodSandboxMetricsSchema, {
    podSandboxId: id,
    metrics: [
      ...(usage ? metricsOfUsage(usage, labels, timestamp) : []),
      ...network.flatMap((one) =>
        networkMetrics.map((described) => metric(described, [...labels, one.name], described.value(one), timestamp)),
      ),
      ...times(status.createdAt, labels),
    ],
    containerMetrics: members.map(({ container, usage: own, details }): ContainerMetrics => {
      const { config } = container.metadata;
      const of = [
        name,
        namespace,
        config.metadata?.name ?? '',
        container.id,
        config.image?.userSpecifiedImage || (config.image?.image ?? ''),
      ];
      return create(ContainerMetricsSchema, {
        containerId: container.id,
        metrics: [
          ...(own ? metricsOfUsage(own, of, timestamp) : []),
          ...(details ? metricsOfDetails(details, of, timestamp) : []),
          ...times(container.status.startedAt, of),
        ],
      });
    }),
  });
}
