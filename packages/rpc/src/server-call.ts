import type { DescMethod } from '@bufbuild/protobuf';
import { type Code, canceled, type StatusError } from '@gantry/api';
import type { CallContext, Metadata } from './service.ts';

/** The four shapes of a method. */
export type MethodKind = DescMethod['methodKind'];

/** A call as interceptors see it. */
export interface InterceptedCall extends CallContext {
  readonly kind: MethodKind;
}

/**
 * Stands around every call of a server, in the order given: the first is outermost. `next()` runs the rest and the handler;
 * it resolves when the handler has given its last message and rejects with what the handler threw. Throw a StatusError
 * before `next()` to refuse a call, or after it to change an error.
 */
export type Interceptor = (call: InterceptedCall, next: () => Promise<void>) => Promise<void>;

/** What is told of each call when it is over. */
export interface CallReport {
  readonly transport: 'grpc' | 'ttrpc';
  readonly service: string;
  readonly method: string;
  readonly kind: MethodKind;
  readonly code: Code;
  readonly durationMs: number;
  /** Messages of the caller that the handler took, and those that it gave. */
  readonly received: number;
  readonly sent: number;
  /** The error that the caller got, with its cause. */
  readonly error: StatusError | undefined;
}

/** Where a server tells of failures that no caller is told of. */
export interface RpcLogger {
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** Options of both servers. */
export interface ServerOptions {
  interceptors?: readonly Interceptor[];
  /** Called when a call has come in, before its handler runs. Must not throw. */
  onBegin?: (call: { readonly service: string; readonly method: string; readonly kind: MethodKind }) => void;
  /** Called once for each call, after its answer went out. Must not throw. */
  onCall?: (report: CallReport) => void;
  logger?: RpcLogger;
}

/** The parts of a call's context that gRPC and ttrpc have in common. Signal and metadata are made when first asked for. */
export abstract class ServerCall implements InterceptedCall {
  abstract readonly transport: 'grpc' | 'ttrpc';
  readonly service: string;
  readonly method: string;
  readonly kind: MethodKind;
  /** Messages so far. */
  received = 0;
  sent = 0;
  #controller: AbortController | undefined;
  #reason: StatusError | undefined;
  #over = false;
  #listener: ((reason: StatusError) => void) | undefined;

  constructor(service: string, method: DescMethod) {
    this.service = service;
    this.method = method.name;
    this.kind = method.methodKind;
  }

  abstract get metadata(): Metadata;
  abstract get namespace(): string | undefined;
  abstract get lease(): string | undefined;
  abstract sendHeaders(headers: Record<string, string>): void;

  /** Transports that copy what they send leave this as it is. */
  flushed(): Promise<void> | undefined {
    return undefined;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#reason) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** Why the call was cancelled, if it was. */
  get cancelReason(): StatusError | undefined {
    return this.#reason;
  }

  /** One listener for the dispatcher, cheaper than the signal. */
  onCancel(listener: ((reason: StatusError) => void) | undefined): void {
    this.#listener = listener;
  }

  /** Tells the handler that nobody waits any more; does nothing after the call is over. */
  cancel(reason: StatusError = canceled('context canceled')): void {
    if (this.#over || this.#reason) return;
    this.#reason = reason;
    this.#controller?.abort(reason);
    this.#listener?.(reason);
  }

  /** Marks the call as answered. */
  finish(): void {
    this.#over = true;
  }
}
