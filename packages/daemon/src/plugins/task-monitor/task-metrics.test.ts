import assert from 'node:assert/strict';
import { test } from 'node:test';
import { packAny } from '@gantry/api';
import { MetricsSchema as MetricsV1Schema } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { MetricsSchema as MetricsV2Schema } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import type { Metric } from '../../core/metrics/metrics-registry.ts';
import { taskMetrics } from './task-metrics.ts';

const common = { id: 'web', namespace: 'ns', runtime: 'io.containerd.runc.v2' };

function flat(metrics: Metric[]): Record<string, unknown> {
  return Object.fromEntries(metrics.map((metric) => [metric.name, [...metric.samples()]]));
}

test('cgroup v1: numbers, lists and what is not counted', () => {
  const stats = packAny(MetricsV1Schema, {
    pids: { current: 2n, limit: 0n },
    cpu: { usage: { total: 30n, perCpu: [10n, 20n] } },
    memory: { pgMajFault: 7n, hierarchicalSwapLimit: 9n, usage: { usage: 5n, failcnt: 1n } },
    blkio: { ioServicedRecursive: [{ op: 'Read', device: '/dev/vda', major: 254n, minor: 0n, value: 3n }] },
    hugetlb: [{ usage: 1n, max: 2n, failcnt: 3n, pagesize: '2MB' }],
  });
  const found = flat(taskMetrics([{ ...common, stats, ooms: 4 }]));
  const labels = { container_id: 'web', namespace: 'ns', runtime: 'io.containerd.runc.v2' };
  assert.deepEqual(found['container_pids_current'], [{ labels, value: 2 }]);
  assert.deepEqual(found['container_per_cpu_nanoseconds'], [
    { labels: { ...labels, cpu: '0' }, value: 10 },
    { labels: { ...labels, cpu: '1' }, value: 20 },
  ]);
  assert.deepEqual(found['container_memory_pgmajfault_bytes'], [{ labels, value: 7 }]);
  assert.deepEqual(found['container_memory_hierarchical_memsw_limit_bytes'], [{ labels, value: 9 }]);
  assert.deepEqual(found['container_memory_usage_failcnt_total'], [{ labels, value: 1 }]);
  assert.equal('container_memory_swap_usage_bytes' in found, false);
  assert.deepEqual(found['container_blkio_io_serviced_recursive_total'], [
    { labels: { ...labels, op: 'Read', device: '/dev/vda', major: '254', minor: '0' }, value: 3 },
  ]);
  assert.deepEqual(found['container_hugetlb_max_bytes'], [{ labels: { ...labels, page: '2MB' }, value: 2 }]);
  assert.deepEqual(found['container_memory_oom_total'], [{ labels, value: 4 }]);
});

test('cgroup v2: several tasks under one name', () => {
  const stats = packAny(MetricsV2Schema, {
    cpu: { usageUsec: 11n },
    memory: { usage: 1n, workingsetRefault: 2n },
    memoryEvents: { oom: 3n },
    io: { usage: [{ major: 8n, minor: 0n, rbytes: 4n }] },
  });
  const found = flat(
    taskMetrics([
      { ...common, stats, ooms: 0 },
      { ...common, id: 'db', stats, ooms: 0 },
    ]),
  );
  assert.equal((found['container_cpu_usage_usec_microseconds'] as unknown[]).length, 2);
  for (const [name, value] of Object.entries({
    memory_usage_bytes: 1,
    memory_workingset_refault_bytes: 2,
    memory_oom_total: 3,
    io_rbytes_bytes: 4,
  })) {
    assert.equal((found[`container_${name}`] as { value: number }[])[1]?.value, value, name);
  }
  assert.equal('container_pids_current' in found, false);
});
