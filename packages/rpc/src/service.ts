import type { DescMessage, DescMethod, DescService, MessageInitShape, MessageShape } from '@bufbuild/protobuf';

/** Headers of a call: lower-case names; values that end in `-bin` are not used. Works for gRPC and ttrpc alike. */
export type Metadata = ReadonlyMap<string, readonly string[]>;

/** What a handler is told about the call it answers. */
export interface CallContext {
  readonly transport: 'grpc' | 'ttrpc';
  /** Full name, as `containerd.services.images.v1.Images`. */
  readonly service: string;
  /** As `Get`. */
  readonly method: string;
  readonly metadata: Metadata;
  /** From `containerd-namespace` (ttrpc: `containerd-namespace-ttrpc`), as sent: not validated here. */
  readonly namespace: string | undefined;
  /** From `containerd-lease`. */
  readonly lease: string | undefined;
  /** Aborted when the caller cancels, its deadline passes, or the connection breaks. */
  readonly signal: AbortSignal;
  /** Sends response headers before the first message (gRPC only; ttrpc ignores them). */
  sendHeaders(headers: Record<string, string>): void;
  /**
   * For a handler that uses the memory of its answers again: resolves when none of what it has given is still on its way.
   * Undefined: nothing is. If the call breaks it may never resolve; then the memory must be left alone.
   */
  flushed(): Promise<void> | undefined;
}

type In<M extends DescMethod> = M['input'] extends infer D extends DescMessage ? MessageShape<D> : never;
type Out<M extends DescMethod> = M['output'] extends infer D extends DescMessage ? MessageInitShape<D> : never;

/** The handler of one method. Results may be plain objects: fields left out have their default. Errors: throw StatusError. */
export type Handler<M extends DescMethod> = M['methodKind'] extends 'unary'
  ? (request: In<M>, context: CallContext) => Out<M> | Promise<Out<M>>
  : M['methodKind'] extends 'server_streaming'
    ? (request: In<M>, context: CallContext) => AsyncIterable<Out<M>>
    : M['methodKind'] extends 'client_streaming'
      ? (requests: AsyncIterable<In<M>>, context: CallContext) => Out<M> | Promise<Out<M>>
      : (requests: AsyncIterable<In<M>>, context: CallContext) => AsyncIterable<Out<M>>;

/** A service's handlers by method in camelCase. A method left out answers UNIMPLEMENTED. */
export type Implementation<S extends DescService> = { [K in keyof S['method']]?: Handler<S['method'][K]> };

const borrowing = new WeakSet<object>();

/**
 * Marks a handler of a request stream that has done with a message, and with every `bytes` in it, when it asks for the next:
 * the memory of large messages is then used again.
 */
export function borrowsRequests<H extends object>(handler: H): H {
  borrowing.add(handler);
  return handler;
}

/** Whether `borrowsRequests` was called on a handler. */
export function isBorrowing(handler: object): boolean {
  return borrowing.has(handler);
}

/** Where services are added: a gRPC or ttrpc server before it listens. */
export interface ServiceRegistrar {
  add<S extends DescService>(service: S, implementation: Implementation<S>): void;
}

/** Options of one call. */
export interface CallOptions {
  signal?: AbortSignal;
  /** Milliseconds; the call fails with DeadlineExceeded after that. */
  timeoutMs?: number;
  namespace?: string;
  lease?: string;
  metadata?: Record<string, string>;
}

type ClientMethod<M extends DescMethod> = M extends {
  input: infer I extends DescMessage;
  output: infer O extends DescMessage;
}
  ? M['methodKind'] extends 'unary'
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : M['methodKind'] extends 'server_streaming'
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : M['methodKind'] extends 'client_streaming'
        ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => Promise<MessageShape<O>>
        : (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
  : never;

/** A typed client of a service, by method in camelCase. */
export type Client<S extends DescService> = { [K in keyof S['method']]: ClientMethod<S['method'][K]> };

/** A connection that calls can be made on; `createClient(service, transport)` gives the methods. */
export interface Transport {
  /** What is spoken there; absent: gRPC. */
  readonly system?: 'grpc' | 'ttrpc';
  unary(method: DescMethod, request: Uint8Array, options: CallOptions): Promise<Uint8Array>;
  /** Every streaming mode: requests in, responses out, as bytes. */
  stream(method: DescMethod, requests: AsyncIterable<Uint8Array>, options: CallOptions): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}
