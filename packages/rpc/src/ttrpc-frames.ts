// The frames of ttrpc (github.com/containerd/ttrpc, PROTOCOL.md): ten bytes of header, then at most 4 MiB of data.
import type { Duplex } from 'node:stream';

export const headerLength = 10;
/** Bytes of the largest data part a frame may have. */
export const maxFrameData = 4 << 20;

export const FrameType = { Request: 1, Response: 2, Data: 3 } as const;
export const FrameFlag = { RemoteClosed: 1, RemoteOpen: 2, NoData: 4 } as const;

export interface Frame {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly data: Uint8Array;
}

/** A frame as bytes. */
export function encodeFrame(streamId: number, type: number, flags: number, data: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(headerLength + data.byteLength);
  bytes.writeUInt32BE(data.byteLength, 0);
  bytes.writeUInt32BE(streamId, 4);
  bytes[8] = type;
  bytes[9] = flags;
  bytes.set(data, headerLength);
  return bytes;
}

/**
 * Cuts a stream of bytes into frames. Never holds more than one frame; the data of a frame that is too long is thrown away
 * as it comes, and told by `onOversize`.
 */
export class FrameReader {
  readonly #onFrame: (frame: Frame) => void;
  readonly #onOversize: (streamId: number, length: number, type: number) => void;
  #chunks: Buffer[] = [];
  #length = 0;
  #wanted = headerLength;
  #skip = 0;

  constructor(onFrame: (frame: Frame) => void, onOversize: (streamId: number, length: number, type: number) => void) {
    this.#onFrame = onFrame;
    this.#onOversize = onOversize;
  }

  write(chunk: Buffer): void {
    if (this.#skip > 0) {
      const skipped = Math.min(this.#skip, chunk.length);
      this.#skip -= skipped;
      if (skipped === chunk.length) return;
      chunk = chunk.subarray(skipped);
    }
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length < this.#wanted) return;
    let bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#length);
    let at = 0;
    this.#wanted = headerLength;
    while (bytes.length - at >= headerLength) {
      const length = bytes.readUInt32BE(at);
      const streamId = bytes.readUInt32BE(at + 4);
      const type = bytes[at + 8]!;
      if (length > maxFrameData) {
        const here = Math.min(length, bytes.length - at - headerLength);
        this.#skip = length - here;
        at += headerLength + here;
        this.#onOversize(streamId, length, type);
        continue;
      }
      if (bytes.length - at < headerLength + length) {
        this.#wanted = headerLength + length;
        break;
      }
      const start = at + headerLength;
      at = start + length;
      this.#onFrame({ streamId, type, flags: bytes[start - 1]!, data: bytes.subarray(start, at) });
    }
    bytes = bytes.subarray(at);
    this.#chunks = bytes.length > 0 ? [bytes] : [];
    this.#length = bytes.length;
  }
}

/** Writes frames to a connection and tells when to wait. */
export class FrameWriter {
  readonly #socket: Duplex;
  #drained: Promise<void> | undefined;
  #corked = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** Sends a frame. A promise means: the peer is slower, wait before the next. */
  write(streamId: number, type: number, flags: number, data: Uint8Array): Promise<void> | undefined {
    const socket = this.#socket;
    if (socket.destroyed || !socket.writable) return undefined;
    if (!this.#corked) {
      // Answers of one turn go out in one system call.
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    if (socket.write(encodeFrame(streamId, type, flags, data))) return undefined;
    this.#drained ??= new Promise((resolve) => {
      const done = () => {
        socket.removeListener('drain', done);
        socket.removeListener('close', done);
        this.#drained = undefined;
        resolve();
      };
      socket.once('drain', done);
      socket.once('close', done);
    });
    return this.#drained;
  }
}
