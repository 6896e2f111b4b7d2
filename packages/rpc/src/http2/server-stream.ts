import { ErrorCode, Flag, FrameType, frameHeaderSize, numberFrame, writeFrameHeader } from './frame.ts';
import type { Output } from './output.ts';

/** Who takes a request's body. */
export interface StreamReceiver {
  /** A piece of it; a view of memory that is not used again. */
  body(piece: Buffer): void;
  /** That was all of it. */
  complete(): void;
  /** The peer has taken the stream back, or the connection broke, before the answer was given. Called once at most. */
  gone(): void;
}

/** What a stream needs of its connection. */
export interface StreamHost {
  readonly output: Output;
  /** Bytes of the largest payload that the peer takes. */
  readonly frameSize: number;
  /** Bytes that the peer still takes on all streams together. */
  window: number;
  /** Has `sendSome` called as soon as there is room. */
  ready(stream: ServerStream): void;
  /** Nothing more comes or goes on it. */
  over(stream: ServerStream): void;
  /** Bytes to be put before the next header block. */
  blockPrefix(): Uint8Array | undefined;
}

/** Bytes that a peer may send ahead on one stream. */
export const streamWindow = 2 << 20;
/** Bytes of one stream that go out before it is another's turn. */
const turnSize = 256 << 10;

interface Piece {
  bytes: Uint8Array;
  written: (() => void) | undefined;
}

/** The server's end of a stream: headers, body and trailers out, as fast as the peer gives room; a body in. */
export class ServerStream {
  readonly id: number;
  receiver: StreamReceiver | undefined;
  /** The peer has sent all. */
  remoteEnded = false;
  /** Nothing more can be sent: it was all given, or the stream was reset. */
  localEnded = false;
  /** Bytes that the peer still takes. */
  window: number;
  /** Bytes that the peer may still send. */
  receiveWindow = streamWindow;
  readonly #host: StreamHost;
  #queue: Piece[] = [];
  #trailers: Uint8Array | undefined;
  #uncredited = 0;
  #paused = false;
  #gone = false;

  constructor(id: number, host: StreamHost, window: number) {
    this.id = id;
    this.#host = host;
    this.window = window;
  }

  /** Whether something waits for room at the peer's. */
  get sending(): boolean {
    return this.#queue.length > 0 || this.#trailers !== undefined;
  }

  /** Whether part of that is body, which needs room: trailers do not. */
  get hasBody(): boolean {
    return this.#queue.length > 0;
  }

  get open(): boolean {
    return !this.localEnded && !this.#gone;
  }

  /** Sends a header block; with `end` nothing follows. */
  respond(block: Uint8Array, end = false): void {
    if (!this.open) return;
    this.#host.output.push(this.#headersFrame(block, end));
    if (end) this.#ended();
  }

  /** Sends bytes of the body. They must not be changed until `written` was called, which it is not if the stream breaks. */
  write(bytes: Uint8Array, written?: () => void): void {
    if (!this.open || this.#trailers) return;
    this.#queue.push({ bytes, written });
    this.#host.ready(this);
  }

  /** Sends trailers after all of the body. */
  end(trailers: Uint8Array): void {
    if (!this.open || this.#trailers) return;
    this.#trailers = trailers;
    this.#host.ready(this);
  }

  /** Sends all of an answer: in one piece, if that may be. */
  answer(headers: Uint8Array, body: readonly Uint8Array[], trailers: Uint8Array): void {
    if (!this.open) return;
    let length = 0;
    for (const part of body) length += part.length;
    const { output, frameSize } = this.#host;
    const prefix = this.#host.blockPrefix();
    if (length > Math.min(frameSize, this.window, this.#host.window) || output.full || this.sending || prefix) {
      this.respond(prefix ? Buffer.concat([prefix, headers]) : headers);
      for (const part of body) this.write(part);
      this.end(trailers);
      return;
    }
    const bytes = Buffer.allocUnsafe(3 * frameHeaderSize + headers.length + length + trailers.length);
    writeFrameHeader(bytes, 0, headers.length, FrameType.headers, Flag.endHeaders, this.id);
    bytes.set(headers, frameHeaderSize);
    let at = frameHeaderSize + headers.length;
    writeFrameHeader(bytes, at, length, FrameType.data, 0, this.id);
    at += frameHeaderSize;
    for (const part of body) {
      bytes.set(part, at);
      at += part.length;
    }
    writeFrameHeader(bytes, at, trailers.length, FrameType.headers, Flag.endHeaders | Flag.endStream, this.id);
    bytes.set(trailers, at + frameHeaderSize);
    this.window -= length;
    this.#host.window -= length;
    output.push(bytes);
    this.#ended();
  }

  /** Sends some of what waits. False: no more now, for want of room on this stream or because nothing is left. */
  sendSome(): boolean {
    const host = this.#host;
    let turn = Math.min(turnSize, host.window);
    while (this.#queue.length > 0) {
      const piece = this.#queue[0]!;
      const size = Math.min(piece.bytes.length, host.frameSize, this.window, turn);
      if (size <= 0 && piece.bytes.length > 0) return this.window > 0;
      const last = size === piece.bytes.length;
      const head = Buffer.allocUnsafe(frameHeaderSize);
      writeFrameHeader(head, 0, size, FrameType.data, 0, this.id);
      host.output.push(head);
      host.output.push(last ? piece.bytes : piece.bytes.subarray(0, size), last ? piece.written : undefined);
      this.window -= size;
      host.window -= size;
      turn -= size;
      if (last) this.#queue.shift();
      else piece.bytes = piece.bytes.subarray(size);
    }
    if (this.#trailers && this.open) {
      host.output.push(this.#headersFrame(this.#trailers, true));
      this.#trailers = undefined;
      this.#ended();
    }
    return false;
  }

  /** Ends the stream at once, both ways. What waits is dropped. */
  reset(code: number): void {
    if (this.#gone || (this.localEnded && this.remoteEnded)) return;
    this.#host.output.push(numberFrame(FrameType.resetStream, this.id, code));
    this.lose();
  }

  /** The peer is given no more room; what is on its way still comes. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#credit();
  }

  /** The peer sends (or has sent) so many bytes more. False if it may not. */
  take(length: number): boolean {
    this.receiveWindow -= length;
    this.#uncredited += length;
    return this.receiveWindow >= 0;
  }

  /** Gives the peer room for what it has sent, unless paused. */
  credited(): void {
    if (!this.#paused) this.#credit();
  }

  /** The stream is no more. */
  lose(): void {
    if (this.#gone) return;
    this.#gone = true;
    const answered = this.localEnded;
    this.localEnded = true;
    this.#queue = [];
    this.#trailers = undefined;
    this.#host.over(this);
    if (!answered) this.receiver?.gone();
  }

  #credit(): void {
    if (this.#uncredited < streamWindow / 2 || this.remoteEnded || this.#gone) return;
    this.#host.output.push(numberFrame(FrameType.windowUpdate, this.id, this.#uncredited));
    this.receiveWindow += this.#uncredited;
    this.#uncredited = 0;
  }

  /** A caller that has its answer may still be sending: it is told that nobody reads on. */
  #ended(): void {
    this.localEnded = true;
    if (!this.remoteEnded) {
      this.#gone = true;
      this.#host.output.push(numberFrame(FrameType.resetStream, this.id, ErrorCode.none));
    }
    this.#host.over(this);
  }

  #headersFrame(block: Uint8Array, end: boolean): Buffer {
    const prefix = this.#host.blockPrefix();
    const whole = prefix ? Buffer.concat([prefix, block]) : block;
    // Header blocks of ours that are longer than a frame are those of errors with very long messages.
    const size = this.#host.frameSize;
    const count = Math.max(1, Math.ceil(whole.length / size));
    const bytes = Buffer.allocUnsafe(count * frameHeaderSize + whole.length);
    let at = 0;
    for (let index = 0; index < count; index++) {
      const part = whole.subarray(index * size, (index + 1) * size);
      const flags = (index === count - 1 ? Flag.endHeaders : 0) | (index === 0 && end ? Flag.endStream : 0);
      writeFrameHeader(
        bytes,
        at,
        part.length,
        index === 0 ? FrameType.headers : FrameType.continuation,
        flags,
        this.id,
      );
      bytes.set(part, at + frameHeaderSize);
      at += frameHeaderSize + part.length;
    }
    return bytes;
  }
}
