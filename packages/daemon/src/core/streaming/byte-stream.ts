import type { Any } from '@bufbuild/protobuf/wkt';
import { packAny, unpackAny } from '@gantry/api';
import { DataSchema, WindowUpdateSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import { beforeAbort } from '../before-abort.ts';
import type { MessageStream } from './stream-manager.ts';

/**
 * Bytes over a message stream, as containerd's transfer service sends them: `Data` one way, and the other way
 * `WindowUpdate` with how many more bytes the receiver will take. The end of the bytes is the end of the stream.
 */

/** containerd sends no more than this in a message. */
const maxMessage = 32 * 1024;
const window = 1024 * 1024;

/** The next message, unless the transfer is given up first: the client may keep its stream open all the same. */
export async function nextMessage(stream: MessageStream, signal: AbortSignal | undefined): Promise<Any | undefined> {
  signal?.throwIfAborted();
  return await beforeAbort(stream.receive(), signal);
}

/** The bytes that the client sends. Ending the iteration early ends the stream. */
export async function* receiveBytes(stream: MessageStream, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  let open = 0;
  try {
    for (;;) {
      if (open <= window / 2) {
        stream.send(packAny(WindowUpdateSchema, { update: window - open }));
        open = window;
      }
      const message = await nextMessage(stream, signal);
      if (message === undefined) return;
      const { data } = unpackAny(DataSchema, message);
      open -= data.length;
      yield data;
    }
  } finally {
    stream.close();
  }
}

/** Sends bytes to the client, waiting for it to take them. */
export class ByteSender {
  readonly #stream: MessageStream;
  readonly #signal: AbortSignal | undefined;
  #open = 0;

  constructor(stream: MessageStream, signal?: AbortSignal) {
    this.#stream = stream;
    this.#signal = signal;
  }

  /** @throws Canceled if the client goes before it has taken all. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      while (this.#open <= 0) {
        const message = await nextMessage(this.#stream, this.#signal);
        if (message === undefined) throw new DOMException('the client closed the stream', 'AbortError');
        this.#open += unpackAny(WindowUpdateSchema, message).update;
      }
      const size = Math.min(this.#open, maxMessage, bytes.length - at);
      this.#stream.send(packAny(DataSchema, { data: bytes.subarray(at, at + size) }));
      this.#open -= size;
      at += size;
    }
  }

  close(): void {
    this.#stream.close();
  }
}
