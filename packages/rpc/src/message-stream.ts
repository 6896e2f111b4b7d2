import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema, EmptySchema } from '@bufbuild/protobuf/wkt';
import { unpackAny } from '@gantry/api';
import { StreamInitSchema } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';

/** A client's named two-way stream of messages, open for as long as both sides keep it. */
export interface MessageStream {
  /** Queues a message; does not wait for the client. Silently dropped once the stream has ended. */
  send(message: Any): void;
  /** The next message; undefined when the client has sent its last. @throws Canceled if the connection broke. */
  receive(): Promise<Any | undefined>;
  /** Ends the stream from this side, after what is queued, and frees its name. */
  close(): void;
  /** Settles when the stream has ended, whoever ended it. */
  readonly closed: Promise<void>;
}

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

/**
 * Answers a call of `containerd.services.streaming.v1.Streaming/Stream`: the first message names the stream, an empty answer says that
 * it is registered.
 */
export async function* answerStream(
  requests: AsyncIterable<Any>,
  signal: AbortSignal,
  register: (name: string, stream: MessageStream) => void,
): AsyncGenerator<Any> {
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done) return;
  const { id } = unpackAny(StreamInitSchema, first.value);
  const stream = new CallStream(incoming, signal);
  register(id, stream);
  yield create(AnySchema, { typeUrl: EmptySchema.typeName });
  yield* stream.messages();
}
