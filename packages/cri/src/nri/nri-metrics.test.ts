import assert from 'node:assert/strict';
import { test } from 'node:test';
import { notFound } from '@gantry/api';
import { MetricsRegistry } from '@gantry/daemon/core/metrics/metrics-registry.ts';
import { nriMetrics } from './nri-metrics.ts';

test('calls of plugins are counted by how they ended', async () => {
  const registry = new MetricsRegistry();
  const observer = nriMetrics(registry);
  const call = { plugin: '10-a', operation: 'CreateContainer', seconds: 0.2, updates: 2, evictions: 0 };
  observer.called(call);
  observer.called({ ...call, updates: 0, error: notFound('x') });
  observer.active(3);
  const text = await registry.render();
  for (const line of [
    'containerd_nri_plugin_invocations_total{plugin="10-a",operation="CreateContainer",status="success",error=""} 1',
    'containerd_nri_plugin_invocations_total{plugin="10-a",operation="CreateContainer",status="error",error="not_found"} 1',
    'containerd_nri_plugin_adjustments_total{plugin="10-a",operation="CreateContainer",type="update"} 2',
    'containerd_nri_plugin_latency_seconds_count{plugin="10-a",operation="CreateContainer"} 2',
    'containerd_nri_active_plugins_total 3',
  ]) {
    assert.ok(text.split('\n').includes(line), `${line} in\n${text}`);
  }
});
