import type { MethodKind, ServerCall } from './server-call.ts';

/** A call that a server of this process has begun and not ended. */
export interface CallInFlight {
  readonly transport: 'grpc' | 'ttrpc';
  readonly service: string;
  readonly method: string;
  readonly kind: MethodKind;
  readonly namespace: string | undefined;
  /** For how long, in milliseconds. */
  readonly ageMs: number;
  /** Nobody waits any more, and the handler has not come to its end yet. */
  readonly cancelled: boolean;
}

/** When each call began that was not answered at once. Of all servers of the process. */
const began = new Map<ServerCall, number>();

export function callBegins(call: ServerCall): void {
  began.set(call, performance.now());
}

export function callEnds(call: ServerCall): void {
  began.delete(call);
}

/** What servers of this process are busy with, or wait for; the oldest first. */
export function callsInFlight(): CallInFlight[] {
  const now = performance.now();
  return [...began].map(([call, start]) => ({
    transport: call.transport,
    service: call.service,
    method: call.method,
    kind: call.kind,
    namespace: call.namespace,
    ageMs: now - start,
    cancelled: call.cancelReason !== undefined,
  }));
}

/** One line for people. */
export function formatCall(call: CallInFlight): string {
  const { transport, service, method, namespace, ageMs, cancelled } = call;
  const where = namespace === undefined ? '' : ` in ${JSON.stringify(namespace)}`;
  return `${service}/${method}${where} (${transport}) for ${(ageMs / 1000).toFixed(1)} s${cancelled ? ', cancelled' : ''}`;
}
