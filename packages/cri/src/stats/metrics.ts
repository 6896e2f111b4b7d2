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
  gauge('container_spec_memory_limit_bytes', 'Limit of memory in bytes, 0 for none.', ({ memory }) => memory.limit),
  gauge(
    'container_spec_memory_swap_limit_bytes',
    'Limit of swap in bytes, 0 for none.',
    ({ swap }) => swap?.limit ?? 0n,
  ),
];

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
  const all: Described[] = [...usageMetrics, faults, ...networkMetrics, started, seen];
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
  ];
}

/** What is told of a pod and its running containers. @param timestamp nanoseconds since 1970 */
export function podMetrics(
  sandbox: PodSandbox,
  usage: CgroupUsage | undefined,
  network: readonly InterfaceUsage[],
  members: readonly { container: CriContainer; usage: CgroupUsage | undefined }[],
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
    containerMetrics: members.map(({ container, usage: own }): ContainerMetrics => {
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
        metrics: [...(own ? metricsOfUsage(own, of, timestamp) : []), ...times(container.status.startedAt, of)],
      });
    }),
  });
}
