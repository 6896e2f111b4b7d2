import type { Any } from '@bufbuild/protobuf/wkt';
import { isAny, unpackAny } from '@gantry/api';
import { MetricsSchema as MetricsV1Schema } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { MetricsSchema as MetricsV2Schema } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { FixedMetric, type Metric } from '../../core/metrics/metrics-registry.ts';
import type { CgroupMetric } from './cgroup-metric.ts';
import { cgroupMetricsV1 } from './cgroup-metrics-v1.ts';
import { cgroupMetricsV2 } from './cgroup-metrics-v2.ts';

/** What one task's shim says of its cgroup. */
export interface TaskSample {
  id: string;
  namespace: string;
  /** The runtime's name, as the container's record has it. */
  runtime: string;
  /** `io.containerd.cgroups.v1.Metrics` or `.v2.Metrics`; others are left out. */
  stats: Any;
  /** OOM events seen since the task was started; version 1 does not count them itself. */
  ooms: number;
}

/** The metrics of all tasks, under containerd's names. */
export function taskMetrics(samples: Iterable<TaskSample>): Metric[] {
  const found = new Map<string, FixedMetric>();
  const metric = (name: string, help: string): FixedMetric => {
    let one = found.get(name);
    if (!one) {
      one = new FixedMetric(name, help);
      found.set(name, one);
    }
    return one;
  };
  for (const { id, namespace, runtime, stats, ooms } of samples) {
    const add = <Stats>(table: readonly CgroupMetric<Stats>[], decoded: Stats): void => {
      for (const { name, help, values } of table) {
        for (const { value, labels } of values(decoded)) {
          metric(name, help).add({ container_id: id, ...labels, namespace, runtime }, value);
        }
      }
    };
    if (isAny(stats, MetricsV1Schema)) {
      add(cgroupMetricsV1, unpackAny(MetricsV1Schema, stats));
      metric('container_memory_oom_total', 'Times that the memory limit was hit and a process was killed.').add(
        { container_id: id, namespace, runtime },
        ooms,
      );
    } else if (isAny(stats, MetricsV2Schema)) {
      add(cgroupMetricsV2, unpackAny(MetricsV2Schema, stats));
    }
  }
  return [...found.values()];
}
