import { type DescMessage, type DescMethod, type DescService, fromBinary } from '@bufbuild/protobuf';
import { Code, internal, StatusError, unimplemented } from '@gantry/api';
import { callBegins, callEnds } from './calls-in-flight.ts';
import { encodeMessage } from './message-encoding.ts';
import type { MessageQueue } from './message-queue.ts';
import type { Interceptor, ServerCall, ServerOptions } from './server-call.ts';
import { type CallContext, type Implementation, isBorrowing, type ServiceRegistrar } from './service.ts';

/** A method with the handler that answers it, or none. */
export interface BoundMethod {
  readonly service: string;
  readonly desc: DescMethod;
  readonly handler: ((request: unknown, context: CallContext) => unknown) | undefined;
  /** The handler keeps nothing of a request once it has asked for the next. */
  readonly borrows: boolean;
}

/** Where the answers of one call go. */
export interface Responder {
  /** Hands one message on, in one piece or two. A promise means: wait for it before the next one. */
  send(head: Uint8Array, tail?: Uint8Array): Promise<void> | undefined;
  /** The call is over. Called once. */
  end(error: StatusError | undefined): void;
}

/** The services of a server: finds handlers, runs them inside the interceptors, turns whatever they throw into a status. */
export class Dispatcher implements ServiceRegistrar {
  readonly services = new Map<string, Map<string, BoundMethod>>();
  readonly #options: ServerOptions;
  readonly #interceptors: readonly Interceptor[];

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#interceptors = options.interceptors ?? [];
  }

  /** Adds a service, or replaces it. */
  add<S extends DescService>(service: S, implementation: Implementation<S>): void {
    const handlers = implementation as Record<string, BoundMethod['handler']>;
    const methods = new Map<string, BoundMethod>();
    for (const desc of service.methods) {
      const handler = handlers[desc.localName];
      methods.set(desc.name, {
        service: service.typeName,
        desc,
        handler: handler?.bind(implementation),
        borrows: handler !== undefined && isBorrowing(handler),
      });
    }
    this.services.set(service.typeName, methods);
  }

  /** The method of a service. @throws StatusError Unimplemented */
  find(service: string, method: string): BoundMethod {
    const methods = this.services.get(service);
    if (!methods) throw unimplemented(`unknown service ${service}`);
    const bound = methods.get(method);
    if (!bound) throw unimplemented(`unknown method ${method} for service ${service}`);
    return bound;
  }

  /**
   * Runs one call. `input` is the only request message, or the queue of them if the method reads a stream.
   * Never throws: errors go to `responder.end`.
   */
  run(call: ServerCall, bound: BoundMethod, input: Uint8Array | MessageQueue<Uint8Array>, responder: Responder): void {
    const started = this.#options.onCall ? performance.now() : 0;
    this.#options.onBegin?.(call);
    const streams = call.kind === 'server_streaming' || call.kind === 'bidi_streaming';
    if (this.#interceptors.length > 0 || streams) {
      const body = () =>
        streams ? this.#answerMany(call, bound, input, responder) : this.#answerOnce(call, bound, input, responder);
      callBegins(call);
      this.#around(call, body, 0).then(
        () => this.#end(call, responder, started),
        (reason) => this.#end(call, responder, started, reason),
      );
      return;
    }
    // One message out and nothing around it: the way most calls go, kept free of promises of our own.
    let result: unknown;
    try {
      result = this.#invoke(call, bound, input);
      if (!isPromise(result)) {
        send(call, responder, bound, result);
        this.#end(call, responder, started);
        return;
      }
    } catch (reason) {
      this.#end(call, responder, started, reason);
      return;
    }
    callBegins(call);
    result.then(
      (value) => {
        try {
          send(call, responder, bound, value);
        } catch (reason) {
          this.#end(call, responder, started, reason);
          return;
        }
        this.#end(call, responder, started);
      },
      (reason) => this.#end(call, responder, started, reason),
    );
  }

  #around(call: ServerCall, body: () => Promise<void>, index: number): Promise<void> {
    const interceptor = this.#interceptors[index];
    if (!interceptor) return body();
    try {
      return interceptor(call, () => this.#around(call, body, index + 1));
    } catch (reason) {
      return Promise.reject(reason);
    }
  }

  #invoke(call: ServerCall, bound: BoundMethod, input: Uint8Array | MessageQueue<Uint8Array>): unknown {
    if (!bound.handler) throw unimplemented(`unknown method ${bound.desc.name} for service ${bound.service}`);
    if (input instanceof Uint8Array) call.received++;
    const request =
      input instanceof Uint8Array ? decode(bound.desc.input, input) : decodeAll(call, bound.desc.input, input);
    return bound.handler(request, call);
  }

  async #answerOnce(
    call: ServerCall,
    bound: BoundMethod,
    input: Uint8Array | MessageQueue<Uint8Array>,
    responder: Responder,
  ): Promise<void> {
    send(call, responder, bound, await this.#invoke(call, bound, input));
  }

  async #answerMany(
    call: ServerCall,
    bound: BoundMethod,
    input: Uint8Array | MessageQueue<Uint8Array>,
    responder: Responder,
  ): Promise<void> {
    const messages = this.#invoke(call, bound, input) as AsyncIterable<unknown>;
    const iterator = messages[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await untilCancelled(call, iterator.next());
        if (done) return;
        const full = send(call, responder, bound, value);
        if (full) await untilCancelled(call, full);
      }
    } catch (reason) {
      // A handler that sits in an await cannot end before that settles, so its clean-up is not waited for.
      void Promise.resolve(iterator.return?.()).catch((late) => {
        if (late !== reason && late !== call.cancelReason)
          this.#options.logger?.warn('stream handler failed after the call was over', {
            service: call.service,
            method: call.method,
            error: late,
          });
      });
      throw reason;
    } finally {
      call.onCancel(undefined);
    }
  }

  #end(call: ServerCall, responder: Responder, started: number, reason?: unknown): void {
    const error = reason === undefined ? undefined : this.#status(call, reason);
    callEnds(call);
    responder.end(error);
    call.finish();
    this.#options.onCall?.({
      transport: call.transport,
      service: call.service,
      method: call.method,
      kind: call.kind,
      code: error?.code ?? Code.Ok,
      durationMs: performance.now() - started,
      received: call.received,
      sent: call.sent,
      error,
    });
  }

  #status(call: ServerCall, reason: unknown): StatusError {
    if (reason instanceof StatusError) return reason;
    const error = StatusError.from(reason);
    if (error.code === Code.Unknown)
      this.#options.logger?.error('handler failed', { service: call.service, method: call.method, error: reason });
    return error;
  }
}

/** The promise, or the call's cancellation if that comes first. */
function untilCancelled<T>(call: ServerCall, promise: Promise<T>): Promise<T> {
  if (call.cancelReason) {
    promise.catch(() => {});
    return Promise.reject(call.cancelReason);
  }
  return new Promise((resolve, reject) => {
    call.onCancel(reject);
    promise.then(resolve, reject);
  });
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof (value as { then?: unknown } | undefined)?.then === 'function';
}

function send(call: ServerCall, responder: Responder, bound: BoundMethod, value: unknown): Promise<void> | undefined {
  call.sent++;
  return encodeMessage(bound.desc.output, value, (head, tail) => responder.send(head, tail));
}

function decode(schema: DescMessage, bytes: Uint8Array): unknown {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw internal(`failed to unmarshal the received message: ${(cause as Error).message}`, cause);
  }
}

function decodeAll(call: ServerCall, schema: DescMessage, queue: MessageQueue<Uint8Array>): AsyncIterable<unknown> {
  const iterator: AsyncIterableIterator<unknown> = {
    next: async () => {
      const result = await queue.next();
      if (result.done) return { done: true, value: undefined };
      call.received++;
      return { done: false, value: decode(schema, result.value) };
    },
    return: () => queue.return(),
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}
