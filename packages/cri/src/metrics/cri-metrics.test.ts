import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { MetricsRegistry } from '@gantry/daemon/core/metrics/metrics-registry.ts';
import { CriMetrics } from './cri-metrics.ts';

const facts = path.resolve(import.meta.dirname, '../../../../../shared/facts/metrics-names.txt');

const counts = () => ({ inputEntries: 1n, inputBytes: 2n, outputEntries: 3n, outputBytes: 4n, splitEntries: 2n });

test('what succeeds is timed, what fails is counted, and a pull under way is seen', async () => {
  const registry = new MetricsRegistry();
  const metrics = new CriMetrics(() => 7, counts, registry);
  await metrics.timeOf('container_start', 'runc', async () => 1);
  const failing = async (): Promise<never> => {
    throw new Error('no');
  };
  await assert.rejects(metrics.timeOf('container_start', 'runc', failing));
  await metrics.time('container_list', async () => 1);
  await assert.rejects(metrics.network('set_up_pod', failing));
  await metrics.pull(async () => {
    assert.match(await registry.render(), /^containerd_cri_sandboxed_in_progress_image_pulls_total 1$/m);
    return { size: 1 << 20 };
  });
  await assert.rejects(metrics.pull(failing));
  const text = await registry.render();
  for (const line of [
    'containerd_cri_container_start_seconds_count{runtime="runc"} 1',
    'containerd_cri_container_list_seconds_count 1',
    'containerd_cri_network_plugin_operations_total_total{operation_type="set_up_pod"} 1',
    'containerd_cri_network_plugin_operations_errors_total_total{operation_type="set_up_pod"} 1',
    'containerd_cri_sandboxed_image_pulls_total{status="success"} 1',
    'containerd_cri_sandboxed_image_pulls_total{status="failure"} 1',
    'containerd_cri_sandboxed_in_progress_image_pulls_total 0',
    'containerd_cri_container_events_dropped_total 7',
    'containerd_cri_output_entries_total 3',
  ])
    assert.ok(text.split('\n').includes(line), `${line} in ${text}`);
});

test('names and types are containerd’s', { skip: existsSync(facts) ? false : 'no recorded names here' }, async () => {
  const registry = new MetricsRegistry();
  new CriMetrics(() => 0, counts, registry);
  const text = await registry.render();
  const wanted = readFileSync(facts, 'utf8')
    .split('\n')
    .filter((line) => /containerd_cri_/.test(line));
  assert.ok(wanted.length >= 12);
  for (const line of wanted) assert.ok(text.includes(line), line);
});
