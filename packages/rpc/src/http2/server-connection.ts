// A connection of HTTP/2 from the server's end (RFC 9113). Node's own has an object of a stream, and several writes, for each request, which
// is most of what a small call costs.
import type { Duplex } from 'node:stream';
import {
  ConnectionFailure,
  defaultFrameSize,
  defaultWindow,
  ErrorCode,
  Flag,
  FrameType,
  largestFrameSize,
  largestWindow,
  numberFrame,
  preface,
  Setting,
  settingsFrame,
  smallFrame,
} from './frame.ts';
import { type FrameHandler, FrameParser } from './frame-parser.ts';
import { type Header, HpackDecoder } from './hpack-decoder.ts';
import { noTable } from './hpack-encoding.ts';
import { Output } from './output.ts';
import { areOrdinary, type RequestHeaders, requestHeaders } from './request-headers.ts';
import { ResetBudget } from './reset-budget.ts';
import { ServerStream, type StreamHost, streamWindow } from './server-stream.ts';

/** Bytes that a client may send ahead on all streams together. */
const connectionWindow = 8 << 20;
/** Bytes of a header block, and frames that it may come in. */
const blockLimit = 64 << 10;
const blockFrames = 64;
/** Bytes that may wait for a peer that reads nothing; data stop long before, what is answered to it at once does not. */
const patience = 64 << 20;

/** How long a peer may take to read the last that it is sent. */
const lingerMs = 5000;

export interface ConnectionEvents {
  /** A request has begun; the stream's `receiver` is to be set before this returns. */
  stream(stream: ServerStream, headers: RequestHeaders): void;
  /** The connection is no more; all its streams are gone. */
  closed(): void;
  /** It was ended because the peer broke the rules, or failed. */
  failed(error: Error): void;
}

interface HeaderBlock {
  streamId: number;
  endStream: boolean;
  /** It names itself as what it depends on. */
  wrong: boolean;
  parts: Buffer[];
  length: number;
}

export class ServerConnection implements FrameHandler, StreamHost {
  readonly output: Output;
  frameSize = defaultFrameSize;
  window = defaultWindow;
  readonly #socket: Duplex;
  readonly #events: ConnectionEvents;
  readonly #parser: FrameParser = new FrameParser(this);
  readonly #headers = new HpackDecoder();
  readonly #resets = new ResetBudget();
  readonly #streams = new Map<number, ServerStream>();
  /** Streams that have something to send, in the order of their turns. */
  readonly #ready = new Set<ServerStream>();
  #prefaceRead = 0;
  #settled = false;
  #lastStream = 0;
  #streamWindow = defaultWindow;
  #receiveWindow = connectionWindow;
  #uncredited = 0;
  #block: HeaderBlock | undefined;
  #tableForgotten = false;
  #leaving = false;
  #over = false;
  #closed = false;

  constructor(socket: Duplex, events: ConnectionEvents) {
    this.#socket = socket;
    this.#events = events;
    this.output = new Output(socket);
    this.output.push(settingsFrame([[Setting.initialWindowSize, streamWindow]]));
    this.output.push(numberFrame(FrameType.windowUpdate, 0, connectionWindow - defaultWindow));
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('drain', () => this.#pump());
    socket.on('error', (error) => {
      if (!this.#over) this.#events.failed(error);
    });
    socket.on('close', () => this.#lost());
  }

  get destroyed(): boolean {
    return this.#closed;
  }

  /** Tells the peer to make its further calls elsewhere. */
  goAway(): void {
    if (this.#leaving || this.#over) return;
    this.#leaving = true;
    this.#farewell(ErrorCode.none, '');
  }

  /** Ends the connection when all streams have come to their end, and what they sent is out. */
  close(): void {
    this.goAway();
    this.#endIfDone();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  // -- what streams need

  ready(stream: ServerStream): void {
    this.#ready.add(stream);
    // At once: what fits goes out with the rest of this turn.
    this.#pump();
  }

  over(stream: ServerStream): void {
    this.#ready.delete(stream);
    if (!this.#streams.delete(stream.id)) return;
    if (this.#leaving) this.#endIfDone();
  }

  blockPrefix(): Uint8Array | undefined {
    if (!this.#tableForgotten) return undefined;
    this.#tableForgotten = false;
    return noTable;
  }

  // -- what comes in

  #take(chunk: Buffer): void {
    if (this.#over) return;
    try {
      let at = 0;
      if (this.#prefaceRead < preface.length) {
        at = Math.min(preface.length - this.#prefaceRead, chunk.length);
        if (preface.compare(chunk, 0, at, this.#prefaceRead, this.#prefaceRead + at) !== 0)
          throw new ConnectionFailure(ErrorCode.protocol, 'not HTTP/2');
        this.#prefaceRead += at;
      }
      this.#parser.push(at === 0 ? chunk : chunk.subarray(at));
      if (this.output.waiting > patience)
        throw new ConnectionFailure(ErrorCode.enhanceYourCalm, 'answers are not read');
    } catch (error) {
      this.#fail(error as Error);
    }
    this.output.flush();
  }

  frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (this.#over) return;
    if (this.#block && (type !== FrameType.continuation || streamId !== this.#block.streamId))
      throw broken('headers are cut off');
    if (!this.#settled && type !== FrameType.settings) throw broken('no settings at the beginning');
    switch (type) {
      case FrameType.data:
        this.#paddedData(flags, streamId, payload);
        break;
      case FrameType.headers:
        this.#headersFrame(flags, streamId, payload);
        break;
      case FrameType.priority:
        if (streamId === 0) throw broken('priority of no stream');
        if (payload.length !== 5) this.#streamError(streamId, ErrorCode.frameSize);
        else if ((payload.readUInt32BE() & 0x7fffffff) === streamId) this.#streamError(streamId, ErrorCode.protocol);
        break;
      case FrameType.resetStream:
        this.#resetFrame(streamId, payload);
        break;
      case FrameType.settings:
        this.#settings(flags, streamId, payload);
        break;
      case FrameType.pushPromise:
        throw broken('clients do not push');
      case FrameType.ping:
        if (streamId !== 0) throw broken('ping on a stream');
        if (payload.length !== 8) throw new ConnectionFailure(ErrorCode.frameSize, 'ping of another size');
        if ((flags & Flag.ack) === 0) this.output.push(smallFrame(FrameType.ping, Flag.ack, 0, payload));
        break;
      case FrameType.goAway:
        if (streamId !== 0) throw broken('goaway on a stream');
        break;
      case FrameType.windowUpdate:
        this.#windowUpdate(streamId, payload);
        break;
      case FrameType.continuation:
        if (!this.#block) throw broken('headers go on that did not begin');
        this.#addToBlock(this.#block, flags, payload);
        break;
    }
  }

  data(flags: number, streamId: number, piece: Buffer, last: boolean): void {
    if (this.#over) return;
    if (this.#block) throw broken('headers are cut off');
    if (!this.#settled) throw broken('no settings at the beginning');
    this.#data(streamId, piece, piece.length, last && (flags & Flag.endStream) !== 0);
  }

  #paddedData(flags: number, streamId: number, payload: Buffer): void {
    const body = flags & Flag.padded ? unpadded(payload, 0) : payload;
    this.#data(streamId, body, payload.length, (flags & Flag.endStream) !== 0);
  }

  /** @param length bytes as the windows count them */
  #data(streamId: number, piece: Buffer, length: number, end: boolean): void {
    this.#receiveWindow -= length;
    if (this.#receiveWindow < 0) throw new ConnectionFailure(ErrorCode.flowControl, 'more data than allowed');
    this.#uncredited += length;
    if (this.#uncredited >= connectionWindow / 2) {
      this.output.push(numberFrame(FrameType.windowUpdate, 0, this.#uncredited));
      this.#receiveWindow += this.#uncredited;
      this.#uncredited = 0;
    }
    const stream = this.#streams.get(streamId);
    if (!stream) {
      this.#requireKnown(streamId);
      return; // It was reset a moment ago.
    }
    if (stream.remoteEnded) {
      stream.reset(ErrorCode.streamClosed);
      return;
    }
    if (!stream.take(length)) {
      stream.reset(ErrorCode.flowControl);
      return;
    }
    if (piece.length > 0) stream.receiver?.body(piece);
    if (end) this.#remoteEnd(stream);
    else stream.credited();
  }

  #remoteEnd(stream: ServerStream): void {
    if (!stream.open) return;
    stream.remoteEnded = true;
    stream.receiver?.complete();
  }

  #headersFrame(flags: number, streamId: number, payload: Buffer): void {
    if (streamId % 2 === 0) throw broken('stream of no client');
    const from = flags & Flag.priority ? 5 : 0;
    if (payload.length < from) throw new ConnectionFailure(ErrorCode.frameSize, 'headers too short');
    const rest = flags & Flag.padded ? unpadded(payload, from) : payload.subarray(from);
    const dependency = from > 0 ? payload.readUInt32BE(flags & Flag.padded ? 1 : 0) & 0x7fffffff : 0;
    const block: HeaderBlock = {
      streamId,
      endStream: (flags & Flag.endStream) !== 0,
      wrong: dependency === streamId,
      parts: [],
      length: 0,
    };
    this.#addToBlock(block, flags, rest);
  }

  #addToBlock(block: HeaderBlock, flags: number, part: Buffer): void {
    block.parts.push(part);
    block.length += part.length;
    if (block.length > blockLimit || block.parts.length > blockFrames)
      throw new ConnectionFailure(ErrorCode.enhanceYourCalm, 'too many headers');
    if ((flags & Flag.endHeaders) === 0) {
      this.#block = block;
      return;
    }
    this.#block = undefined;
    const headers = this.#headers.decode(block.parts.length === 1 ? part : Buffer.concat(block.parts));
    const stream = this.#streams.get(block.streamId);
    if (stream) this.#trailers(stream, block, headers);
    else this.#open(block, headers);
  }

  #trailers(stream: ServerStream, block: HeaderBlock, headers: readonly Header[]): void {
    if (stream.remoteEnded) stream.reset(ErrorCode.streamClosed);
    else if (!block.endStream || !areOrdinary(headers)) stream.reset(ErrorCode.protocol);
    else this.#remoteEnd(stream);
  }

  #open({ streamId, endStream, wrong }: HeaderBlock, headers: readonly Header[]): void {
    if (streamId <= this.#lastStream) {
      // It may be the trailers of one that was reset a moment ago.
      this.#streamError(streamId, ErrorCode.streamClosed);
      return;
    }
    this.#lastStream = streamId;
    const request = wrong ? undefined : requestHeaders(headers);
    if (!request || this.#leaving) {
      this.#streamError(streamId, request ? ErrorCode.refusedStream : ErrorCode.protocol);
      return;
    }
    const stream = new ServerStream(streamId, this, this.#streamWindow);
    this.#streams.set(streamId, stream);
    this.#events.stream(stream, request);
    if (endStream) this.#remoteEnd(stream);
  }

  #resetFrame(streamId: number, payload: Buffer): void {
    if (payload.length !== 4) throw new ConnectionFailure(ErrorCode.frameSize, 'reset of another size');
    this.#requireKnown(streamId);
    this.#resets.spend();
    this.#streams.get(streamId)?.lose();
  }

  #settings(flags: number, streamId: number, payload: Buffer): void {
    if (streamId !== 0) throw broken('settings on a stream');
    if (payload.length % 6 !== 0 || (flags & Flag.ack && payload.length > 0))
      throw new ConnectionFailure(ErrorCode.frameSize, 'settings of another size');
    if (flags & Flag.ack) {
      if (!this.#settled) throw broken('no settings at the beginning');
      return;
    }
    this.#settled = true;
    for (let at = 0; at < payload.length; at += 6)
      this.#setting(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
    this.output.push(smallFrame(FrameType.settings, Flag.ack, 0, new Uint8Array(0)));
    this.#pump();
  }

  #setting(id: number, value: number): void {
    switch (id) {
      case Setting.headerTableSize:
        if (value < 4096) this.#tableForgotten = true;
        break;
      case Setting.enablePush:
        if (value > 1) throw broken('push is on or off');
        break;
      case Setting.initialWindowSize: {
        if (value > largestWindow) throw new ConnectionFailure(ErrorCode.flowControl, 'window too large');
        const more = value - this.#streamWindow;
        this.#streamWindow = value;
        for (const stream of this.#streams.values()) {
          stream.window += more;
          if (stream.window > largestWindow) throw new ConnectionFailure(ErrorCode.flowControl, 'window too large');
          if (stream.sending) this.#ready.add(stream);
        }
        break;
      }
      case Setting.maxFrameSize:
        if (value < defaultFrameSize || value > largestFrameSize) throw broken('size of frames that must not be');
        this.frameSize = Math.min(value, 1 << 20);
        break;
    }
  }

  #windowUpdate(streamId: number, payload: Buffer): void {
    if (payload.length !== 4) throw new ConnectionFailure(ErrorCode.frameSize, 'window update of another size');
    const more = payload.readUInt32BE() & 0x7fffffff;
    if (streamId === 0) {
      if (more === 0) throw broken('window is not changed');
      this.window += more;
      if (this.window > largestWindow) throw new ConnectionFailure(ErrorCode.flowControl, 'window too large');
    } else {
      this.#requireKnown(streamId);
      const stream = this.#streams.get(streamId);
      if (!stream) return;
      stream.window += more;
      if (more === 0) stream.reset(ErrorCode.protocol);
      else if (stream.window > largestWindow) stream.reset(ErrorCode.flowControl);
      else if (stream.sending) this.#ready.add(stream);
    }
    this.#pump();
  }

  /** @throws ConnectionFailure for a stream that was never opened */
  #requireKnown(streamId: number): void {
    if (streamId === 0 || streamId % 2 === 0 || streamId > this.#lastStream) throw broken('stream was not opened');
  }

  #streamError(streamId: number, code: number): void {
    const stream = this.#streams.get(streamId);
    if (stream) stream.reset(code);
    else this.output.push(numberFrame(FrameType.resetStream, streamId, code));
  }

  // -- what goes out

  /** Sends what waits, as far as there is room, a turn for each. */
  #pump(): void {
    for (const stream of this.#ready) {
      if (stream.hasBody && (this.output.full || this.window <= 0)) continue;
      this.#ready.delete(stream);
      if (stream.sendSome()) this.#ready.add(stream);
    }
  }

  #farewell(code: number, reason: string): void {
    const payload = Buffer.alloc(8 + reason.length);
    payload.writeUInt32BE(this.#lastStream, 0);
    payload.writeUInt32BE(code, 4);
    payload.write(reason, 8, 'latin1');
    this.output.push(smallFrame(FrameType.goAway, 0, 0, payload));
  }

  #fail(error: Error): void {
    if (this.#over) return;
    const { code, message } =
      error instanceof ConnectionFailure ? error : { code: ErrorCode.internal, message: 'internal error' };
    this.#farewell(code, message);
    this.#finish();
    this.#events.failed(error);
  }

  #endIfDone(): void {
    if (this.#streams.size === 0 && !this.#over) this.#finish();
  }

  /** Sends what was given out, and no more; a peer that does not read it, or does not leave, is not waited for long. */
  #finish(): void {
    this.#over = true;
    this.output.flush();
    const socket = this.#socket;
    const patient = setTimeout(() => socket.destroy(), lingerMs).unref();
    socket.once('close', () => clearTimeout(patient));
    socket.end(() => socket.destroy());
    this.#loseAll();
  }

  #lost(): void {
    if (this.#closed) return;
    this.#over = true;
    this.#closed = true;
    this.#loseAll();
    this.#events.closed();
  }

  #loseAll(): void {
    for (const stream of [...this.#streams.values()]) stream.lose();
    this.#ready.clear();
  }
}

function broken(what: string): ConnectionFailure {
  return new ConnectionFailure(ErrorCode.protocol, what);
}

/** A payload without its padding, and without `skip` bytes that stand before its contents. */
function unpadded(payload: Buffer, skip: number): Buffer {
  const padding = payload[0];
  if (padding === undefined || payload.length < 1 + skip + padding) throw broken('more padding than payload');
  return payload.subarray(1 + skip, payload.length - padding);
}
