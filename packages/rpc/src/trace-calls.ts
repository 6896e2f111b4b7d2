// Spans of calls, named and described as OpenTelemetry's instrumentations of gRPC and ttrpc do.
import type { DescMethod } from '@bufbuild/protobuf';
import { Code, type Span, type SpanAttributes, StatusError, tracing } from '@gantry/api';
import type { InterceptedCall, Interceptor } from './server-call.ts';
import type { CallOptions } from './service.ts';

/** Codes that are the server's fault: only these mark its span as failed. */
const serverFaults = new Set<Code>([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

function attributes(system: string, service: string, method: string): SpanAttributes {
  return { 'rpc.system': system, 'rpc.service': service, 'rpc.method': method };
}

/** Answers every call in a span that continues the caller's trace. For the `interceptors` of a server. */
export const traceServerCalls: Interceptor = async (call: InterceptedCall, next) => {
  const tracer = tracing();
  if (!tracer) return await next();
  const { service, method, namespace } = call;
  const span = tracer.start(`${service}/${method}`, {
    kind: 'server',
    attributes: {
      ...attributes(call.transport, service, method),
      ...(namespace !== undefined && { namespace }),
    },
    caller: call.metadata,
  });
  return await tracer.within(span, async () => {
    try {
      await next();
      span.set('rpc.grpc.status_code', Code.Ok);
    } catch (reason) {
      const { code, message } = StatusError.from(reason);
      span.set('rpc.grpc.status_code', code);
      if (serverFaults.has(code)) span.fail(message);
      throw reason;
    } finally {
      span.end();
    }
  });
};

/** A call that this process makes, in its span; `options` say to the server where the trace goes on. */
export interface TracedCall {
  readonly span: Span;
  readonly options: CallOptions;
}

/** A span for a call that is about to be made, if calls are traced. Whoever gets one ends it by `endCall`. */
export function beginCall(system: string, method: DescMethod, options: CallOptions): TracedCall | undefined {
  const tracer = tracing();
  if (!tracer) return undefined;
  const service = method.parent.typeName;
  const span = tracer.start(`${service}/${method.name}`, {
    kind: 'client',
    attributes: attributes(system, service, method.name),
  });
  return { span, options: { ...options, metadata: { ...options.metadata, ...span.headers() } } };
}

export function endCall({ span }: TracedCall, reason?: unknown): void {
  const error = reason === undefined ? undefined : StatusError.from(reason);
  span.set('rpc.grpc.status_code', error?.code ?? Code.Ok);
  if (error) span.fail(error.message);
  span.end();
}
