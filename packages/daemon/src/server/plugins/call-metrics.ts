// `io.containerd.metrics.v1.grpc-prometheus`: counts the calls of every server, under the names Prometheus users know.
import { type Code, Code as Codes } from '@gantry/api';
import type { CallReport, ServerOptions } from '@gantry/rpc';
import type { GarbageCollector } from '../../core/gc/garbage-collector.ts';
import type { Logger } from '../../core/log/logger.ts';
import { Counter, Histogram, MetricsRegistry } from '../../core/metrics/metrics-registry.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, type PluginContext } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { registerProcessMetrics } from './process-metrics.ts';
import { callInterceptors } from './tracing.ts';

/** What the plugin gives: the daemon's metrics, and the hook for its servers. */
export interface CallMetrics {
  readonly registry: MetricsRegistry;
  onBegin(call: Pick<CallReport, 'service' | 'method' | 'kind'>): void;
  onCall(report: CallReport): void;
}

/** The numbers of one method. */
interface MethodCounts {
  readonly labels: { grpc_type: string; grpc_service: string; grpc_method: string };
  readonly started: { value: number };
  readonly received: { value: number };
  readonly sent: { value: number };
  readonly handled: Map<Code, { value: number }>;
}

const codeNames = new Map<Code, string>(
  Object.entries(Codes).map(([name, code]) => [code, name === 'Ok' ? 'OK' : name]),
);

/** The kinds of methods as Prometheus users know them. */
const kindNames = {
  unary: 'unary',
  client_streaming: 'client_stream',
  server_streaming: 'server_stream',
  bidi_streaming: 'bidi_stream',
} as const;

/** Collections of garbage, under containerd's names. */
function registerCollections(registry: MetricsRegistry, collector: GarbageCollector | undefined): void {
  const collections = registry.register(
    new Counter('containerd_gc_collections_total', 'Garbage collections, those that failed and those that did not.'),
  );
  const seconds = registry.register(
    new Histogram('containerd_gc_gc_seconds', 'How long garbage collections took, with what they had to wait for.'),
  );
  collector?.onCollection?.((ok, totalMs) => {
    collections.add({ status: ok ? 'success' : 'fail' });
    if (ok) seconds.observe({}, totalMs / 1000);
  });
}

export const callMetricsPlugin = definePlugin({
  type: PluginTypes.Metrics,
  id: 'grpc-prometheus',
  requires: [PluginTypes.Gc],
  config: schema({ grpc_histogram: field.boolean() }),
  init: (context): unknown => {
    const registry = new MetricsRegistry();
    registerProcessMetrics(registry);
    registerCollections(registry, context.all(PluginTypes.Gc).get('scheduler'));
    const started = registry.register(new Counter('grpc_server_started_total', 'Calls started on the server.'));
    const handled = registry.register(
      new Counter('grpc_server_handled_total', 'Calls completed on the server, whatever their outcome.'),
    );
    const received = registry.register(
      new Counter('grpc_server_msg_received_total', 'Messages of streams and single ones that the server has taken.'),
    );
    const sent = registry.register(
      new Counter('grpc_server_msg_sent_total', 'Messages of streams and single ones that the server has given.'),
    );
    const seconds = context.config.grpc_histogram
      ? registry.register(new Histogram('grpc_server_handling_seconds', 'How long calls took on the server.'))
      : undefined;
    // A look-up by labels costs as much as a small call, so each method's numbers are kept at hand.
    const methods = new Map<string, Map<string, MethodCounts>>();
    const countsOf = (report: Pick<CallReport, 'service' | 'method' | 'kind'>): MethodCounts => {
      let service = methods.get(report.service);
      if (!service) {
        service = new Map();
        methods.set(report.service, service);
      }
      let counts = service.get(report.method);
      if (!counts) {
        const labels = { grpc_type: kindNames[report.kind], grpc_service: report.service, grpc_method: report.method };
        counts = {
          labels,
          started: started.cell(labels),
          received: received.cell(labels),
          sent: sent.cell(labels),
          handled: new Map(),
        };
        service.set(report.method, counts);
      }
      return counts;
    };
    const metrics: CallMetrics = {
      registry,
      onBegin: (call) => {
        countsOf(call).started.value++;
      },
      onCall: (report) => {
        const counts = countsOf(report);
        counts.received.value += report.received;
        counts.sent.value += report.sent;
        let outcome = counts.handled.get(report.code);
        if (!outcome) {
          const code = codeNames.get(report.code) ?? String(report.code);
          outcome = handled.cell({ ...counts.labels, grpc_code: code });
          counts.handled.set(report.code, outcome);
        }
        outcome.value++;
        seconds?.observe(counts.labels, report.durationMs / 1000);
      },
    };
    return metrics;
  },
});

/** The metrics plugin, or undefined if it is disabled. */
export function callMetrics(context: PluginContext<unknown>): CallMetrics | undefined {
  return context.all(PluginTypes.Metrics).get('grpc-prometheus') as CallMetrics | undefined;
}

/** What the servers of a daemon have in common: where calls are counted and failures are told of. */
export function serverOptions(context: PluginContext<unknown>, transport: 'grpc' | 'ttrpc'): ServerOptions {
  // As with containerd, what shims call is not counted.
  const metrics = transport === 'grpc' ? callMetrics(context) : undefined;
  return {
    logger: context.log,
    ...(metrics && { onBegin: metrics.onBegin }),
    interceptors: callInterceptors(context, transport),
    onCall: (report) => observe(report, metrics, context.log),
  };
}

function observe(report: CallReport, metrics: CallMetrics | undefined, log: Logger): void {
  metrics?.onCall(report);
  log.trace('call', {
    service: report.service,
    method: report.method,
    code: codeNames.get(report.code),
    duration_ms: report.durationMs,
    error: report.error,
  });
}
