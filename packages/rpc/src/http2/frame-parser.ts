import { ConnectionFailure, defaultFrameSize, ErrorCode, Flag, FrameType, frameHeaderSize } from './frame.ts';

/** Whom a parser tells what has come. Payloads are views of what was pushed: whoever keeps them keeps that. */
export interface FrameHandler {
  /** A whole frame; of DATA only those that are padded. */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void;
  /** A piece of a DATA frame, `last` with its last one. */
  data(flags: number, streamId: number, piece: Buffer, last: boolean): void;
}

/** Takes what arrives, in whatever pieces, apart into frames. The payload of DATA is handed on as it comes, without a copy. */
export class FrameParser {
  readonly #handler: FrameHandler;
  /** The beginning of a header that is not whole yet. */
  readonly #head = Buffer.alloc(frameHeaderSize);
  #headFilled = 0;
  /** A payload that is not whole yet. */
  #payload: Buffer | undefined;
  #payloadFilled = 0;
  /** Bytes of a DATA frame that are to come. */
  #dataLeft = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** @throws ConnectionFailure for a frame that is too large, and whatever the handler throws */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#dataLeft > 0) at = this.#passData(chunk, at);
      else if (this.#payload) at = this.#fillPayload(this.#payload, chunk, at);
      else if (this.#headFilled > 0 || chunk.length - at < frameHeaderSize) {
        const count = Math.min(frameHeaderSize - this.#headFilled, chunk.length - at);
        chunk.copy(this.#head, this.#headFilled, at, at + count);
        this.#headFilled += count;
        at += count;
        if (this.#headFilled < frameHeaderSize) return;
        this.#headFilled = 0;
        at = this.#begin(this.#head, 0, chunk, at);
      } else at = this.#begin(chunk, at, chunk, at + frameHeaderSize);
    }
  }

  /** Reads a header; its payload begins at `at` of the chunk. Answers where to go on. */
  #begin(head: Buffer, from: number, chunk: Buffer, at: number): number {
    const length = (head[from]! << 16) | (head[from + 1]! << 8) | head[from + 2]!;
    if (length > defaultFrameSize) throw new ConnectionFailure(ErrorCode.frameSize, 'frame too large');
    const type = head[from + 3]!;
    this.#type = type;
    this.#flags = head[from + 4]!;
    this.#streamId = head.readUInt32BE(from + 5) & 0x7fffffff;
    if (type === FrameType.data && (this.#flags & Flag.padded) === 0 && length > 0) {
      this.#dataLeft = length;
      return at;
    }
    if (chunk.length - at >= length) {
      this.#handler.frame(type, this.#flags, this.#streamId, chunk.subarray(at, at + length));
      return at + length;
    }
    this.#payload = Buffer.allocUnsafe(length);
    this.#payloadFilled = 0;
    return at;
  }

  #passData(chunk: Buffer, at: number): number {
    const count = Math.min(this.#dataLeft, chunk.length - at);
    this.#dataLeft -= count;
    this.#handler.data(this.#flags, this.#streamId, chunk.subarray(at, at + count), this.#dataLeft === 0);
    return at + count;
  }

  #fillPayload(payload: Buffer, chunk: Buffer, at: number): number {
    const count = Math.min(payload.length - this.#payloadFilled, chunk.length - at);
    chunk.copy(payload, this.#payloadFilled, at, at + count);
    this.#payloadFilled += count;
    if (this.#payloadFilled === payload.length) {
      this.#payload = undefined;
      this.#handler.frame(this.#type, this.#flags, this.#streamId, payload);
    }
    return at + count;
  }
}
