// OpenTelemetry, under containerd's names: where spans go, what makes them, and which calls are in them. The SDK is loaded only when
// the environment asks for traces (docs/tracing.md).
import { traceServerCalls } from '@gantry/rpc';
import { tracingSettings } from '@gantry/tracing';
import { type Field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, type PluginContext, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { version } from '../../core/version/version.ts';

/** A key that containerd has deprecated and reads no more: the variables are what counts. Using it is warned of. */
function unread(type: 'string' | 'boolean' | 'number'): Field<unknown> {
  return {
    kind: 'any',
    default: undefined,
    check: (value) => (value === undefined || typeof value === type || type === 'number' ? undefined : `a ${type}`),
  };
}

function settings(): { protocol: 'http/protobuf' | 'grpc' } {
  const found = tracingSettings(process.env);
  if ('off' in found) throw new PluginSkip(found.off);
  return found;
}

export const otlpPlugin = definePlugin({
  type: PluginTypes.TracingProcessor,
  id: 'otlp',
  requires: [PluginTypes.Warning],
  config: schema({ endpoint: unread('string'), protocol: unread('string'), insecure: unread('boolean') }),
  init: async () => {
    const wanted = settings();
    const { otlpProcessor } = await import('@gantry/tracing/open-telemetry.ts');
    return await otlpProcessor(wanted, process.env);
  },
});

export const tracingPlugin = definePlugin({
  type: PluginTypes.Internal,
  id: 'tracing',
  requires: [PluginTypes.TracingProcessor, PluginTypes.Warning],
  config: schema({ service_name: unread('string'), sampling_ratio: unread('number') }),
  init: async (context): Promise<unknown> => {
    settings();
    const processors = [...context.all(PluginTypes.TracingProcessor).values()];
    if (processors.length === 0) throw new PluginSkip('no tracing processor');
    const { startOpenTelemetry } = await import('@gantry/tracing/open-telemetry.ts');
    const stop = startOpenTelemetry({
      // The name that containerd gives itself, and by which its dashboards look for it.
      serviceName: 'containerd',
      serviceVersion: version.version,
      processors,
      environment: process.env,
      warn: (message) => context.log.warn('traces', { error: message }),
    });
    context.onClose(stop);
    return {};
  },
});

/** Whether calls are put in spans. Asked when a server is made, so that calls go the short way where they are not. */
export function tracingOf(context: PluginContext<unknown>): boolean {
  return context.all(PluginTypes.Internal).has('tracing');
}

/** What a plugin of calls' spans gives to the servers. */
interface CallTraces {
  readonly interceptors: readonly (typeof traceServerCalls)[];
}

function callTraces(context: PluginContext<unknown>): CallTraces {
  return { interceptors: tracingOf(context) ? [traceServerCalls] : [] };
}

export const otelTtrpcPlugin = definePlugin({
  type: PluginTypes.Ttrpc,
  id: 'otelttrpc',
  requires: ['io.containerd.internal.v1.tracing'],
  // It has no services: the server finds its interceptors.
  init: (context) => callTraces(context) as object,
});

export const otelGrpcPlugin = definePlugin({
  type: PluginTypes.Metrics,
  id: 'grpc-otel',
  requires: ['io.containerd.internal.v1.tracing'],
  init: (context): unknown => callTraces(context),
});

/** The interceptors of a server's calls: none if the plugin is disabled, or nothing is traced. */
export function callInterceptors(
  context: PluginContext<unknown>,
  transport: 'grpc' | 'ttrpc',
): readonly (typeof traceServerCalls)[] {
  const plugin =
    transport === 'grpc'
      ? context.all(PluginTypes.Metrics).get('grpc-otel')
      : context.all(PluginTypes.Ttrpc).get('otelttrpc');
  return (plugin as Partial<CallTraces> | undefined)?.interceptors ?? [];
}
