import { Code, StatusError } from '@gantry/api';
import { Counter, Gauge, Histogram, type MetricsRegistry } from '@gantry/daemon/core/metrics/metrics-registry.ts';
import type { NriObserver } from '@gantry/nri/runtime/nri-observer.ts';

const codeNames = new Map(
  Object.entries(Code).map(([name, code]) => [code, name.replaceAll(/(?<=[a-z])(?=[A-Z])/g, '_').toLowerCase()]),
);

/** Numbers about plugins under containerd's names. */
export function nriMetrics(registry: MetricsRegistry): NriObserver {
  let active = 0;
  const invocations = registry.register(
    new Counter('containerd_nri_plugin_invocations_total', 'Calls to NRI plugins, by how they ended.'),
  );
  const adjustments = registry.register(
    new Counter('containerd_nri_plugin_adjustments_total', 'Changes of other containers that NRI plugins asked for.'),
  );
  const latency = registry.register(
    new Histogram('containerd_nri_plugin_latency_seconds', 'How long NRI plugins took to answer.'),
  );
  registry.register(new Gauge('containerd_nri_active_plugins_total', 'NRI plugins that take part.', () => active));
  return {
    called: ({ plugin, operation, seconds, error, updates, evictions }) => {
      latency.observe({ plugin, operation }, seconds);
      const kind = error === undefined ? '' : (codeNames.get(StatusError.from(error).code) ?? 'other');
      invocations.add({ plugin, operation, status: error === undefined ? 'success' : 'error', error: kind });
      if (updates > 0) adjustments.add({ plugin, operation, type: 'update' }, updates);
      if (evictions > 0) adjustments.add({ plugin, operation, type: 'evict' }, evictions);
    },
    active: (plugins) => {
      active = plugins;
    },
  };
}
