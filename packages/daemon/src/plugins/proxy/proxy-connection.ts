import type { DescService } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import { type CallOptions, type Client, createClient, type GrpcTransport, grpcTransport } from '@gantry/rpc';
import { BackendAway } from '../../core/remote/backend-away.ts';
import type { RequestContext } from '../../core/request-context.ts';

/** Bytes of the largest message: more than any server sends on its own. */
const maxMessageBytes = 64 << 20;

/**
 * The connection of one proxy plugin. It is made at the first call and made again after it broke, so that neither the start of
 * the daemon nor that of the other process waits for the other.
 */
export class ProxyConnection {
  readonly #id: string;
  readonly #address: string;
  readonly #transport: GrpcTransport;

  /** @param address a socket's path, also as `unix://`, or `host:port` */
  constructor(id: string, address: string) {
    this.#id = id;
    this.#address = address;
    this.#transport = grpcTransport(address, { maxMessageBytes, userAgent: 'gantryd' });
  }

  client<S extends DescService>(service: S): Client<S> {
    return createClient(service, this.#transport);
  }

  /** The caller's namespace and its giving up, as the other process is told of them. */
  options(ctx: RequestContext | undefined): CallOptions {
    return { ...(ctx && { namespace: ctx.namespace }), ...(ctx?.signal && { signal: ctx.signal }) };
  }

  /** Waits for an answer. @throws BackendAway if there is nobody, else what was answered */
  async call<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      throw this.explain(error);
    }
  }

  /** The same for a stream of answers. */
  async *stream<T>(answers: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* answers;
    } catch (error) {
      throw this.explain(error);
    }
  }

  explain(error: unknown): unknown {
    if (!hasCode(error, Code.Unavailable) || !error.message.startsWith('connection error')) return error;
    return new BackendAway(
      `proxy plugin ${this.#id} at ${this.#address}: connection error: ${firstCause(error).message}`,
      error,
    );
  }

  close(): Promise<void> {
    return this.#transport.close();
  }
}

/** What began it: that a connection ended tells less than why it could not be made. */
function firstCause(error: Error): Error {
  return error.cause instanceof Error ? firstCause(error.cause) : error;
}
