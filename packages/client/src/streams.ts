// Streams of the Streaming service: made by a client under a name that another request mentions. Bytes on them are paced by the
// receiver, which tells in window updates how many more it takes.
import type { Any } from '@bufbuild/protobuf/wkt';
import { internal, isAny, packAny, unpackAny } from '@gantry/api';
import { StreamInitSchema, Streaming } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';
import { DataSchema, WindowUpdateSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import { type CallOptions, createClient, MessageQueue, type Transport } from '@gantry/rpc';

/** Bytes a receiver is ready to hold. */
const window = 2 << 20;
/** Bytes of the largest message a sender makes. */
const pieceSize = 32 << 10;

/** A named two-way stream of messages. */
export class NamedStream implements AsyncDisposable {
  readonly id: string;
  readonly #out: MessageQueue<Any>;
  readonly #in: AsyncIterator<Any>;
  readonly #abort: AbortController;

  private constructor(id: string, out: MessageQueue<Any>, incoming: AsyncIterator<Any>, abort: AbortController) {
    this.id = id;
    this.#out = out;
    this.#in = incoming;
    this.#abort = abort;
  }

  /** Opens a stream; when this resolves the daemon knows it by its id. @throws StatusError Unimplemented before containerd 1.7 */
  static async open(transport: Transport, id: string, options: CallOptions = {}): Promise<NamedStream> {
    const abort = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
    const out = new MessageQueue<Any>();
    out.push(packAny(StreamInitSchema, { id }));
    const incoming = createClient(Streaming, transport)
      .stream(out, { ...options, signal })
      [Symbol.asyncIterator]();
    const { done } = await incoming.next();
    if (done) throw internal(`the server closed stream ${id} at once`);
    return new NamedStream(id, out, incoming, abort);
  }

  send(message: Any): void {
    this.#out.push(message);
  }

  /** The next message, or undefined at the end. */
  async receive(): Promise<Any | undefined> {
    const { done, value } = await this.#in.next();
    return done ? undefined : value;
  }

  /** No more messages from here. */
  end(): void {
    this.#out.end();
  }

  /** Ends both directions. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#out.end();
    this.#abort.abort();
    await this.#in.return?.();
  }
}

let counter = 0;

/** An id no other stream has. */
export function streamId(prefix: string): string {
  return `${prefix}-${process.pid}-${process.hrtime.bigint().toString(36)}-${(counter++).toString(36)}`;
}

/** Sends bytes as the receiver takes them, then ends the stream. Stops early, without an error, if the receiver leaves. */
export async function sendBytes(stream: NamedStream, source: AsyncIterable<Uint8Array>): Promise<void> {
  let room = 0;
  let gone = false;
  let failure: unknown;
  let wake = () => {};
  const updates = (async () => {
    for (let message = await stream.receive(); message; message = await stream.receive()) {
      if (isAny(message, WindowUpdateSchema)) room += unpackAny(WindowUpdateSchema, message).update;
      wake();
    }
  })().catch((reason) => {
    failure = reason;
  });
  void updates.then(() => {
    gone = true;
    wake();
  });
  for await (const bytes of source) {
    for (let at = 0; at < bytes.byteLength; ) {
      while (room <= 0 && !gone)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      if (gone) {
        if (failure) throw failure;
        return;
      }
      const size = Math.min(room, pieceSize, bytes.byteLength - at);
      stream.send(packAny(DataSchema, { data: bytes.subarray(at, at + size) }));
      room -= size;
      at += size;
    }
  }
  stream.end();
}

/** Milliseconds without a byte after which a stream whose transfer is over counts as ended. */
const quiet = 500;

/** The bytes of a transfer, from its stream; its failure, if that is what ended them. It is given up when the reader stops. */
export async function* receiveMoved(
  stream: NamedStream,
  abort: AbortController,
  moving: Promise<unknown>,
): AsyncGenerator<Uint8Array> {
  let failure: unknown;
  const moved = moving.catch((reason) => {
    failure = reason;
    abort.abort();
  });
  try {
    yield* receiveBytes(stream, moved);
    await moved;
  } catch (reason) {
    throw failure ?? reason;
  } finally {
    abort.abort();
  }
  if (failure) throw failure;
}

/**
 * The bytes that come on a stream, which is told to go on as they are taken. `sent`, if given, resolves when the sender has sent
 * all: some daemons (containerd 2.3) do not end the stream then, so that silence after it has to do.
 */
export async function* receiveBytes(stream: NamedStream, sent?: Promise<unknown>): AsyncGenerator<Uint8Array> {
  let over = false;
  let stop: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;
  const listen = () => {
    timer = setTimeout(() => stop?.(), quiet);
  };
  const ended = () => {
    over = true;
    if (stop) listen();
  };
  sent?.then(ended, ended);
  let open = 0;
  try {
    for (;;) {
      if (open <= window / 2) {
        stream.send(packAny(WindowUpdateSchema, { update: window - open }));
        open = window;
      }
      const silence = new Promise<undefined>((resolve) => {
        stop = () => resolve(undefined);
      });
      if (over) listen();
      const message = await Promise.race([stream.receive(), silence]);
      stop = undefined;
      clearTimeout(timer);
      if (!message) return;
      const { data } = unpackAny(DataSchema, message);
      open -= data.byteLength;
      if (data.byteLength > 0) yield data;
    }
  } finally {
    clearTimeout(timer);
  }
}
