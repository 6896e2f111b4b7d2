// The OpenTelemetry SDK behind the interface of `@gantry/api`: spans in batches to an OTLP endpoint, W3C headers in and out.
import { AsyncLocalStorage } from 'node:async_hooks';
import { type Span, type SpanKind, type SpanOptions, setTracing, type Tracing } from '@gantry/api';
import {
  type Context,
  SpanKind as Kind,
  type Span as OtelSpan,
  ROOT_CONTEXT,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import {
  CompositePropagator,
  setGlobalErrorHandler,
  W3CBaggagePropagator,
  W3CTraceContextPropagator,
} from '@opentelemetry/core';
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, type SpanExporter, type SpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { samplerOf } from './sampler.ts';
import type { TracingSettings } from './settings.ts';

export type { SpanProcessor } from '@opentelemetry/sdk-trace';

type Environment = Readonly<Record<string, string | undefined>>;

export interface OpenTelemetryOptions {
  /** `service.name` where OTEL_SERVICE_NAME says nothing. */
  readonly serviceName: string;
  readonly serviceVersion: string;
  readonly processors: readonly SpanProcessor[];
  readonly environment: Environment;
  /** Told of what could not be sent, and of settings that are wrong. */
  readonly warn: (message: string) => void;
}

const kinds: Record<SpanKind, Kind> = { internal: Kind.INTERNAL, server: Kind.SERVER, client: Kind.CLIENT };

/** Sends spans in batches over the protocol of the settings. OTEL_EXPORTER_OTLP_* and OTEL_BSP_* say how. */
export async function otlpProcessor(settings: TracingSettings, environment: Environment): Promise<SpanProcessor> {
  const exporter: SpanExporter =
    settings.protocol === 'grpc'
      ? new (await import('@opentelemetry/exporter-trace-otlp-grpc')).OTLPTraceExporter()
      : new (await import('@opentelemetry/exporter-trace-otlp-proto')).OTLPTraceExporter();
  const numbers = Object.entries({
    scheduledDelayMillis: environment['OTEL_BSP_SCHEDULE_DELAY'],
    exportTimeoutMillis: environment['OTEL_BSP_EXPORT_TIMEOUT'],
    maxQueueSize: environment['OTEL_BSP_MAX_QUEUE_SIZE'],
    maxExportBatchSize: environment['OTEL_BSP_MAX_EXPORT_BATCH_SIZE'],
  }).flatMap(([name, text]) => (Number(text) > 0 ? [[name, Number(text)] as const] : []));
  return new BatchSpanProcessor({ exporter, ...Object.fromEntries(numbers) });
}

/**
 * Switches tracing on for this process.
 * @returns what sends the last spans and switches it off
 */
export function startOpenTelemetry(options: OpenTelemetryOptions): () => Promise<void> {
  const { environment, warn } = options;
  setGlobalErrorHandler((error) => warn(error instanceof Error ? error.message : String(error)));
  const resource = defaultResource()
    .merge(resourceFromAttributes({ 'service.name': options.serviceName, 'service.version': options.serviceVersion }))
    .merge(detectResources({ detectors: [envDetector] }))
    .merge(resourceFromAttributes({ 'process.pid': process.pid }));
  const provider = new TracerProvider({
    resource,
    sampler: samplerOf(environment, warn),
    spanProcessors: [...options.processors],
  });
  setTracing(new OpenTelemetry(provider.getTracer('gantry', options.serviceVersion)));
  return async () => {
    setTracing(undefined);
    await provider.shutdown().catch((error: unknown) => warn(error instanceof Error ? error.message : String(error)));
  };
}

const propagator = new CompositePropagator({
  propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()],
});

class OpenTelemetry implements Tracing {
  readonly #tracer: Tracer;
  readonly #spans = new AsyncLocalStorage<TracedSpan>();

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  start(name: string, { kind = 'internal', attributes = {}, caller, root = false }: SpanOptions): Span {
    let parent: Context = (root ? undefined : this.#spans.getStore()?.context) ?? ROOT_CONTEXT;
    if (caller) {
      parent = propagator.extract(ROOT_CONTEXT, caller, {
        get: (carrier: typeof caller, key) => [...(carrier.get(key) ?? [])],
        keys: (carrier: typeof caller) => [...carrier.keys()],
      });
    }
    const span = this.#tracer.startSpan(name, { kind: kinds[kind], attributes: { ...attributes } }, parent);
    return new TracedSpan(span, trace.setSpan(parent, span));
  }

  within<T>(span: Span, fn: () => T): T {
    return span instanceof TracedSpan ? this.#spans.run(span, fn) : fn();
  }

  current(): Span | undefined {
    return this.#spans.getStore();
  }

  ids() {
    return this.#spans.getStore()?.ids();
  }
}

class TracedSpan implements Span {
  readonly context: Context;
  readonly #span: OtelSpan;

  constructor(span: OtelSpan, context: Context) {
    this.#span = span;
    this.context = context;
  }

  set(name: string, value: string | number | boolean): void {
    this.#span.setAttribute(name, value);
  }

  event(name: string, attributes: Readonly<Record<string, string | number | boolean>> = {}): void {
    this.#span.addEvent(name, { ...attributes });
  }

  fail(message: string): void {
    this.#span.setStatus({ code: SpanStatusCode.ERROR, message });
  }

  end(): void {
    this.#span.end();
  }

  ids() {
    const { traceId, spanId } = this.#span.spanContext();
    return { traceId, spanId };
  }

  headers(): Record<string, string> {
    const headers: Record<string, string> = {};
    propagator.inject(this.context, headers, {
      set: (carrier: Record<string, string>, key, value) => {
        carrier[key] = value;
      },
    });
    return headers;
  }
}
