import type { Duplex } from 'node:stream';
import { HeaderCodec, type Headers } from './header-codec.ts';
import { SpdyStream } from './spdy-stream.ts';

/** Types of control frames. */
const Frame = { synStream: 1, synReply: 2, rstStream: 3, settings: 4, ping: 6, goAway: 7, headers: 8, windowUpdate: 9 };
const version = 3;
const finFlag = 1;
const resetStatus = { protocolError: 1, invalidStream: 2, refusedStream: 3, cancel: 5 };
const largestControlFrame = 64 << 10;
/** Data is sent in frames of at most this much, so that streams take turns. */
const dataPiece = 256 << 10;
/** A client that opens more does not mean well. */
const mostStreams = 4096;

export interface SpdyListener {
  /** A stream of the client's: true takes it, which is when the client is told so. */
  stream(stream: SpdyStream): boolean;
}

/**
 * The server's side of SPDY/3.1 as Kubernetes' clients speak it: streams begin with the client, and there is no flow control by windows
 * (their library has none); a stream that is not read holds up the connection. Ends when the socket does.
 */
export class SpdyConnection {
  readonly #socket: Duplex;
  readonly #listener: SpdyListener;
  readonly #codec = new HeaderCodec();
  readonly #streams = new Map<number, SpdyStream>();
  readonly #stalled = new Set<SpdyStream>();
  readonly #gone = new AbortController();
  #received: Buffer[] = [];
  #size = 0;
  #parsing = false;
  #ending = false;
  #lastStream = 0;

  /** @param socket after the upgrade; `head` is what came with it already */
  constructor(socket: Duplex, head: Buffer, listener: SpdyListener) {
    this.#socket = socket;
    this.#listener = listener;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', () => undefined);
    socket.on('end', () => this.destroy());
    socket.on('close', () => this.destroy());
    if (head.length > 0) this.#receive(head);
  }

  /** Aborted when the connection has ended. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  /** Says goodbye and ends the socket after all that is to be sent. */
  close(): void {
    if (this.#ending) return;
    this.#ending = true;
    const body = Buffer.alloc(8);
    body.writeUInt32BE(this.#lastStream);
    this.#control(Frame.goAway, body);
    this.#socket.end();
  }

  destroy(): void {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort();
    this.#codec.close();
    for (const stream of this.#streams.values()) stream.destroy();
    this.#streams.clear();
    this.#socket.destroy();
  }

  /** For streams only: a piece of data, or the end of it. */
  send(id: number, data: Buffer, fin: boolean, sent: (error?: Error | null) => void): void {
    if (this.#ending || this.#gone.signal.aborted) {
      sent(new Error('the connection has ended'));
      return;
    }
    let at = 0;
    do {
      const piece = data.subarray(at, at + dataPiece);
      at += piece.length;
      const last = at >= data.length;
      const head = Buffer.alloc(8);
      head.writeUInt32BE(id);
      head.writeUInt32BE(((fin && last ? finFlag : 0) << 24) | piece.length, 4);
      this.#socket.write(head);
      if (!last) this.#socket.write(piece);
      else this.#socket.write(piece, sent);
    } while (at < data.length);
  }

  /** For streams only. */
  reset(id: number): void {
    if (!this.#streams.delete(id)) return;
    this.#sendReset(id, resetStatus.cancel);
  }

  /** For streams only: whether one has as much as it can hold. */
  stall(stream: SpdyStream, stalled: boolean): void {
    if (stalled) {
      this.#stalled.add(stream);
      this.#socket.pause();
    } else if (this.#stalled.delete(stream) && this.#stalled.size === 0) this.#socket.resume();
  }

  /** For streams only: both sides of it have ended. */
  forget(stream: SpdyStream): void {
    this.#streams.delete(stream.id);
    this.stall(stream, false);
  }

  #receive(chunk: Buffer): void {
    this.#received.push(chunk);
    this.#size += chunk.length;
    if (!this.#parsing) void this.#parse();
  }

  /** Takes frames one by one; those with headers have to be waited for. */
  async #parse(): Promise<void> {
    this.#parsing = true;
    try {
      for (;;) {
        const head = this.#peek(8);
        if (!head || this.#gone.signal.aborted) return;
        const length = head.readUInt32BE(4) & 0xffffff;
        const control = (head[0]! & 0x80) !== 0;
        if (control && length > largestControlFrame) throw new Error('a SPDY control frame is too large');
        if (this.#size < 8 + length) return;
        this.#take(8);
        const body = this.#take(length);
        if (!control) this.#data(head.readUInt32BE(0), head[4]!, body);
        else {
          if ((head.readUInt16BE(0) & 0x7fff) !== version) throw new Error('not SPDY/3');
          await this.#handle(head.readUInt16BE(2), head[4]!, body);
        }
      }
    } catch {
      // Nothing that this client says can be understood any more.
      this.destroy();
    } finally {
      this.#parsing = false;
    }
  }

  #data(id: number, flags: number, body: Buffer): void {
    const stream = this.#streams.get(id);
    if (!stream) this.#sendReset(id, resetStatus.invalidStream);
    if (body.length > 0) stream?.received(body);
    if (flags & finFlag) stream?.received(null);
  }

  async #handle(type: number, flags: number, body: Buffer): Promise<void> {
    switch (type) {
      case Frame.synStream:
        return this.#open(flags, body);
      case Frame.rstStream:
        this.#streams.get(body.readUInt32BE(0))?.wasReset();
        this.#streams.delete(body.readUInt32BE(0));
        return;
      case Frame.ping:
        // Its own pings come back to the client; we send none.
        if (body.readUInt32BE(0) % 2 === 1) this.#control(Frame.ping, body.subarray(0, 4));
        return;
      case Frame.synReply:
      case Frame.headers:
        // Their headers say nothing here, but those after them are compressed with them.
        await this.#codec.decode(body.subarray(4));
        return;
      default:
        return;
    }
  }

  async #open(flags: number, body: Buffer): Promise<void> {
    const id = body.readUInt32BE(0) & 0x7fffffff;
    const headers = await this.#codec.decode(body.subarray(10));
    if (id % 2 === 0 || id <= this.#lastStream) throw new Error('a SPDY stream has a number that it may not have');
    this.#lastStream = id;
    const stream = new SpdyStream(this, id, headers);
    if (this.#ending || this.#streams.size >= mostStreams || !this.#listener.stream(stream)) {
      this.#sendReset(id, resetStatus.refusedStream);
      return;
    }
    this.#streams.set(id, stream);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(id);
    const noHeaders: Headers = new Map();
    // Before any data: clients take a stream for open only from here on.
    this.#control(Frame.synReply, Buffer.concat([head, await this.#codec.encode(noHeaders)]));
    stream.replied();
    if (flags & finFlag) stream.received(null);
  }

  #sendReset(id: number, status: number): void {
    const body = Buffer.alloc(8);
    body.writeUInt32BE(id);
    body.writeUInt32BE(status, 4);
    this.#control(Frame.rstStream, body);
  }

  #control(type: number, body: Buffer): void {
    if (this.#gone.signal.aborted) return;
    const head = Buffer.alloc(8);
    head.writeUInt16BE(0x8000 | version);
    head.writeUInt16BE(type, 2);
    head.writeUInt32BE(body.length, 4);
    this.#socket.write(Buffer.concat([head, body]));
  }

  #peek(length: number): Buffer | undefined {
    if (this.#size < length) return undefined;
    if (this.#received[0]!.length < length) this.#received = [Buffer.concat(this.#received)];
    return this.#received[0]!.subarray(0, length);
  }

  #take(length: number): Buffer {
    if (length === 0) return Buffer.alloc(0);
    const bytes = this.#peek(length)!;
    const rest = this.#received[0]!.subarray(length);
    if (rest.length > 0) this.#received[0] = rest;
    else this.#received.shift();
    this.#size -= length;
    return bytes;
  }
}
