import { create } from '@bufbuild/protobuf';
import { WireType } from '@bufbuild/protobuf/wire';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { packAny, unpackAny } from '@gantry/api';
import { DataSchema, WindowUpdateSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import { beforeAbort } from './before-abort.ts';
import type { MessageStream } from './message-stream.ts';

/**
 * Bytes over a message stream, as containerd's transfer service sends them: `Data` one way, and the other way
 * `WindowUpdate` with how many more bytes the receiver will take. The end of the bytes is the end of the stream.
 */

/** containerd sends no more than this in a message. */
const maxMessage = 32 * 1024;
const window = 1024 * 1024;
/** Memory for messages is taken in slabs of so much: many small pieces would have V8 collect garbage all the time. */
const slabSize = 1024 * 1024;

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
  #slab = Buffer.alloc(0);
  #used = 0;

  constructor(stream: MessageStream, signal?: AbortSignal) {
    this.#stream = stream;
    this.#signal = signal;
  }

  /** The bytes are copied. @throws Canceled if the client goes before it has taken all. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      while (this.#open <= 0) {
        const message = await nextMessage(this.#stream, this.#signal);
        if (message === undefined) throw new DOMException('the client closed the stream', 'AbortError');
        this.#open += unpackAny(WindowUpdateSchema, message).update;
      }
      const size = Math.min(this.#open, maxMessage, bytes.length - at);
      this.#stream.send(create(AnySchema, { typeUrl: DataSchema.typeName, value: this.#encode(bytes, at, size) }));
      this.#open -= size;
      at += size;
    }
  }

  close(): void {
    this.#stream.close();
  }

  /** A `Data` message with its one field, `data`. */
  #encode(bytes: Uint8Array, at: number, size: number): Uint8Array {
    const most = size + 6;
    if (this.#slab.length - this.#used < most) {
      this.#slab = Buffer.allocUnsafeSlow(Math.max(slabSize, most));
      this.#used = 0;
    }
    const start = this.#used;
    let end = start;
    this.#slab[end++] = (DataSchema.field.data.number << 3) | WireType.LengthDelimited;
    let rest = size;
    for (; rest > 0x7f; rest >>>= 7) this.#slab[end++] = (rest & 0x7f) | 0x80;
    this.#slab[end++] = rest;
    this.#slab.set(bytes.subarray(at, at + size), end);
    end += size;
    this.#used = end;
    return this.#slab.subarray(start, end);
  }
}
