import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema, EmptySchema } from '@bufbuild/protobuf/wkt';
import { unpackAny } from '@gantry/api';
import { StreamInitSchema, Streaming } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { MessageStream } from '../core/streaming/stream-manager.ts';
import { requestContext } from './request-context.ts';

/** Joins the two directions of a `Stream` call into one MessageStream that other requests can pick up. */
class CallStream implements MessageStream {
  readonly closed: Promise<void>;
  readonly #incoming: AsyncIterator<Any>;
  readonly #outgoing: Any[] = [];
  #ended = false;
  #wake: () => void = () => undefined;
  #resolveClosed: () => void = () => undefined;

  constructor(incoming: AsyncIterator<Any>, signal: AbortSignal) {
    this.#incoming = incoming;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    signal.addEventListener('abort', () => this.close(), { once: true });
  }

  send(message: Any): void {
    if (this.#ended) return;
    this.#outgoing.push(message);
    this.#wake();
  }

  async receive(): Promise<Any | undefined> {
    const next = await this.#incoming.next();
    return next.done ? undefined : next.value;
  }

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#resolveClosed();
    this.#wake();
  }

  /** What the call answers: everything sent, until the stream is closed and the queue is empty. */
  async *messages(): AsyncGenerator<Any> {
    try {
      for (;;) {
        for (let message = this.#outgoing.shift(); message; message = this.#outgoing.shift()) yield message;
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      this.close();
    }
  }
}

/** `containerd.services.streaming.v1.Streaming`: the first message names the stream, an empty answer says it is registered. */
export const streamingService = definePlugin({
  type: PluginTypes.Grpc,
  id: 'streaming',
  requires: [PluginTypes.Streaming],
  init(context) {
    const manager = context.get(PluginTypes.Streaming, 'manager');
    return {
      register(grpc) {
        grpc.add(Streaming, {
          async *stream(requests, call) {
            const incoming = requests[Symbol.asyncIterator]();
            const first = await incoming.next();
            if (first.done) return;
            const { id } = unpackAny(StreamInitSchema, first.value);
            const stream = new CallStream(incoming, call.signal);
            manager.register(requestContext(call), id, stream);
            yield create(AnySchema, { typeUrl: EmptySchema.typeName });
            yield* stream.messages();
          },
        });
      },
    };
  },
});
