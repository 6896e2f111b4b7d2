// Messages on an HTTP/2 stream: one byte of flags, four of length, the message (gRPC over HTTP/2, Length-Prefixed-Message).
import type { Writable } from 'node:stream';
import { internal, resourceExhausted, unimplemented } from '@gantry/api';

export const prefixSize = 5;
/** Up to here one copy is cheaper than another write. */
const copyLimit = 32 << 10;

/** Puts messages together from whatever pieces arrive. A message that came in one piece is not copied. */
export class FrameReader {
  readonly #limit: number;
  readonly #onMessage: (message: Uint8Array) => void;
  readonly #allocate: (length: number) => Buffer;
  readonly #prefix = new Uint8Array(prefixSize);
  #prefixFilled = 0;
  #message: Buffer | undefined;
  #filled = 0;

  /**
   * @param limit bytes of the largest message taken
   * @param allocate where the pieces of a message are put together
   */
  constructor(
    limit: number,
    onMessage: (message: Uint8Array) => void,
    allocate: (length: number) => Buffer = Buffer.allocUnsafe,
  ) {
    this.#allocate = allocate;
    this.#limit = limit;
    this.#onMessage = onMessage;
  }

  /** Whether a message has begun and not come to its end. */
  get partial(): boolean {
    return this.#prefixFilled > 0 || this.#message !== undefined;
  }

  /** @throws StatusError ResourceExhausted for a message over the limit, Unimplemented for a compressed one */
  push(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#message) {
        const count = Math.min(this.#message.length - this.#filled, chunk.length - at);
        this.#message.set(chunk.subarray(at, at + count), this.#filled);
        this.#filled += count;
        at += count;
        if (this.#filled < this.#message.length) return;
        const message = this.#message;
        this.#message = undefined;
        this.#onMessage(message);
        continue;
      }
      const count = Math.min(prefixSize - this.#prefixFilled, chunk.length - at);
      this.#prefix.set(chunk.subarray(at, at + count), this.#prefixFilled);
      this.#prefixFilled += count;
      at += count;
      if (this.#prefixFilled < prefixSize) return;
      this.#prefixFilled = 0;
      const length = this.#checkedLength();
      if (chunk.length - at >= length) {
        this.#onMessage(chunk.subarray(at, at + length));
        at += length;
      } else {
        this.#message = this.#allocate(length);
        this.#filled = 0;
      }
    }
  }

  #checkedLength(): number {
    const [flags, a, b, c, d] = this.#prefix as unknown as [number, number, number, number, number];
    if (flags === 1) throw unimplemented('grpc: compressed messages are not taken');
    if (flags !== 0) throw internal(`grpc: received unexpected payload format ${flags}`);
    const length = ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
    if (length > this.#limit) throw tooLarge('received message larger than max', length, this.#limit);
    return length;
  }
}

/** Whether the bytes are one whole message, uncompressed. The size of a piece of the wire bounds it. */
export function isOneMessage(piece: Buffer): boolean {
  return piece.length >= prefixSize && piece[0] === 0 && piece.readUInt32BE(1) === piece.length - prefixSize;
}

/** What stands before a message of so many bytes. */
export function framePrefix(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(prefixSize);
  bytes[0] = 0;
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

/** The bytes of one message with its prefix. `tail` continues `head`. */
export function frame(head: Uint8Array, tail?: Uint8Array): Buffer {
  const length = head.length + (tail?.length ?? 0);
  const bytes = Buffer.allocUnsafe(prefixSize + length);
  bytes[0] = 0;
  bytes.writeUInt32BE(length, 1);
  bytes.set(head, prefixSize);
  if (tail) bytes.set(tail, prefixSize + head.length);
  return bytes;
}

/** Writes one message; a large one goes out from where it is, so it must not be changed before `written`. Answers as `write` does. */
export function writeFrame(
  stream: Writable,
  head: Uint8Array,
  tail: Uint8Array | undefined,
  written?: () => void,
): boolean {
  const length = head.length + (tail?.length ?? 0);
  if (length <= copyLimit) return stream.write(frame(head, tail), written);
  stream.cork();
  stream.write(framePrefix(length));
  if (tail) stream.write(head);
  const room = stream.write(tail ?? head, written);
  stream.uncork();
  return room;
}

/** @throws StatusError ResourceExhausted if a message of so many bytes is over the limit */
export function checkSendSize(length: number, limit: number): void {
  if (length > limit) throw tooLarge('trying to send message larger than max', length, limit);
}

function tooLarge(what: string, length: number, limit: number) {
  return resourceExhausted(`grpc: ${what} (${length} vs. ${limit})`);
}
