// One call on the server's side of gRPC: a stream of HTTP/2 read as messages, and answered with messages and a status.
import { canceled, deadlineExceeded, internal, StatusError, unimplemented } from '@gantry/api';
import { BufferPool } from './buffer-pool.ts';
import type { BoundMethod, Dispatcher, Responder } from './dispatcher.ts';
import { checkSendSize, FrameReader, frame, framePrefix, isOneMessage, prefixSize } from './grpc-frames.ts';
import { statusTrailers } from './grpc-status.ts';
import { leaseHeader, namespaceHeader } from './headers.ts';
import { encodeHeaders } from './http2/hpack-encoding.ts';
import type { RequestHeaders } from './http2/request-headers.ts';
import type { ServerStream, StreamReceiver } from './http2/server-stream.ts';
import { MessageQueue } from './message-queue.ts';
import { ServerCall } from './server-call.ts';
import type { Metadata } from './service.ts';

/** Bytes of one stream that may wait in memory, each way, before the faster side is held up. */
const highWater = 1 << 20;

/** Memory for large messages of handlers that are done with one when they ask for the next. */
const pool = new BufferPool((1 << 20) + (4 << 10), 4);
const pooledFrom = 64 << 10;

/** Headers that are the transport's own affair. */
const transportHeaders = new Set(['te', 'content-type', 'grpc-timeout', 'grpc-encoding', 'grpc-accept-encoding']);

const answerHeaders = { ':status': 200, 'content-type': 'application/grpc' } as const;
// Of nearly every call.
const answerBlock = encodeHeaders(answerHeaders);
const successBlock = encodeHeaders(statusTrailers(undefined));
/** Up to here one copy is cheaper than another piece. */
const copyLimit = 4 << 10;

/** What a call needs of its server. */
export interface CallHost {
  readonly dispatcher: Dispatcher;
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
  /** Nothing is left to be done for the call. */
  finished(call: GrpcCall): void;
}

/** A call from its headers to its trailers; also where the dispatcher puts its answers. */
export class GrpcCall extends ServerCall implements Responder, StreamReceiver {
  readonly transport = 'grpc';
  readonly #host: CallHost;
  readonly #bound: BoundMethod;
  readonly #stream: ServerStream;
  readonly #headers: RequestHeaders;
  #reader: FrameReader | undefined;
  /** The only message of a method that takes one. */
  #request: Uint8Array | undefined;
  /** The messages of a method that takes a stream. */
  #requests: MessageQueue<Uint8Array> | undefined;
  #metadata: Metadata | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #running = false;
  /** The only answer of a method that gives one, until its status is known. */
  #answer: { head: Uint8Array; tail: Uint8Array | undefined } | undefined;
  #headersSent = false;
  #statusSent = false;
  #waiting = 0;
  #resume: (() => void) | undefined;
  #flushed: (() => void) | undefined;

  constructor(host: CallHost, bound: BoundMethod, stream: ServerStream, headers: RequestHeaders) {
    super(bound.service, bound.desc);
    this.#host = host;
    this.#bound = bound;
    this.#stream = stream;
    this.#headers = headers;
  }

  /** Reads the request; the handler runs as soon as it can. */
  start(): void {
    this.#stream.receiver = this;
    const timeout = this.#headers.get('grpc-timeout');
    if (timeout !== undefined && !this.#startClock(timeout)) return;
    if (this.kind === 'client_streaming' || this.kind === 'bidi_streaming') this.#readMany();
  }

  get metadata(): Metadata {
    if (!this.#metadata) {
      const map = new Map<string, string[]>();
      for (const [name, value] of this.#headers.entries) {
        if (name.endsWith('-bin') || transportHeaders.has(name)) continue;
        const values = map.get(name);
        if (values) values.push(value);
        else map.set(name, [value]);
      }
      this.#metadata = map;
    }
    return this.#metadata;
  }

  get namespace(): string | undefined {
    return this.#headers.get(namespaceHeader);
  }

  get lease(): string | undefined {
    return this.#headers.get(leaseHeader);
  }

  sendHeaders(headers: Record<string, string>): void {
    if (this.#headersSent || this.#statusSent) return;
    this.#respond(encodeHeaders({ ...answerHeaders, ...headers }));
  }

  send(head: Uint8Array, tail?: Uint8Array): Promise<void> | undefined {
    const length = head.length + (tail?.length ?? 0);
    checkSendSize(length, this.#host.maxSendBytes);
    if (this.kind === 'unary' || this.kind === 'client_streaming') {
      this.#answer = { head, tail };
      return undefined;
    }
    const stream = this.#stream;
    if (this.#statusSent || !stream.open || this.cancelReason) return undefined;
    if (!this.#headersSent) this.#respond(answerBlock);
    this.#waiting += length;
    const written = () => {
      this.#waiting -= length;
      if (this.#waiting < highWater) this.#wake();
      if (this.#waiting === 0) this.#flushed?.();
    };
    if (length <= copyLimit) stream.write(frame(head, tail), written);
    else {
      // A large one goes out from where it is.
      const prefix = framePrefix(length);
      stream.write(tail ? Buffer.concat([prefix, head]) : prefix);
      stream.write(tail ?? head, written);
    }
    if (this.#waiting < highWater) return undefined;
    return new Promise((resolve) => {
      this.#resume = resolve;
    });
  }

  override flushed(): Promise<void> | undefined {
    if (this.#waiting === 0) return undefined;
    return new Promise((resolve) => {
      this.#flushed = resolve;
    });
  }

  end(error: StatusError | undefined): void {
    this.#sendStatus(error);
    this.#host.finished(this);
  }

  /** Cancels the handler and gives the caller its status without waiting for it. */
  break(reason: StatusError): void {
    this.cancel(reason);
    this.#requests?.fail(reason);
    this.#sendStatus(reason);
    if (!this.#running) this.#host.finished(this);
  }

  body(piece: Buffer): void {
    if (this.#statusSent) return;
    try {
      if (this.#reader) this.#reader.push(piece);
      else if (isOneMessage(piece) && this.#request === undefined) this.#request = piece.subarray(prefixSize);
      else this.#readInPieces(piece);
    } catch (reason) {
      this.break(StatusError.from(reason));
    }
  }

  complete(): void {
    if (this.#statusSent) return;
    if (this.#reader?.partial) this.break(internal('unexpected EOF'));
    else if (this.#requests) this.#requests.end();
    else if (this.#request) this.#run(this.#request);
    else this.break(internal('grpc: no message for a method that takes one'));
  }

  #respond(block: Uint8Array): void {
    this.#headersSent = true;
    this.#stream.respond(block);
  }

  #sendStatus(error: StatusError | undefined): void {
    clearTimeout(this.#deadline);
    if (this.#statusSent) return;
    this.#statusSent = true;
    const stream = this.#stream;
    const answer = this.#answer;
    if (!error && answer && !this.#headersSent) {
      const { head, tail } = answer;
      const prefix = framePrefix(head.length + (tail?.length ?? 0));
      stream.answer(answerBlock, tail ? [prefix, head, tail] : [prefix, head], successBlock);
      return;
    }
    const trailers = statusTrailers(error);
    if (!this.#headersSent) {
      stream.respond(encodeHeaders({ ...answerHeaders, ...trailers }), true);
      return;
    }
    if (!error && answer) stream.write(frame(answer.head, answer.tail));
    stream.end(error ? encodeHeaders(trailers) : successBlock);
  }

  /** The stream is over, or broke. */
  gone(): void {
    this.#wake();
    clearTimeout(this.#deadline);
    if (this.#statusSent) return;
    this.#statusSent = true;
    const reason = this.cancelReason ?? canceled('context canceled');
    this.cancel(reason);
    this.#requests?.fail(reason);
    if (!this.#running) this.#host.finished(this);
  }

  #wake(): void {
    this.#resume?.();
    this.#resume = undefined;
  }

  /** False if the caller's time-out is not one. */
  #startClock(timeout: string): boolean {
    const ms = milliseconds(timeout);
    if (ms === undefined) {
      this.break(internal(`malformed grpc-timeout: ${timeout}`));
      return false;
    }
    // What is too long for a timer, 24 days, is no deadline.
    if (ms < 2 ** 31) this.#deadline = setTimeout(() => this.break(deadlineExceeded('context deadline exceeded')), ms);
    return true;
  }

  #run(input: Uint8Array | MessageQueue<Uint8Array>): void {
    this.#running = true;
    this.#host.dispatcher.run(this, this.#bound, input, this);
  }

  /** For the only message of a method that takes one, when it is not one piece. */
  #readInPieces(piece: Buffer): void {
    this.#reader = new FrameReader(this.#host.maxReceiveBytes, (message) => {
      if (this.#request) throw internal('grpc: more than one message for a method that takes one');
      this.#request = message;
    });
    this.#reader.push(piece);
  }

  /** The queue holds back the peer while the handler is slower. */
  #readMany(): void {
    const stream = this.#stream;
    const queue = new MessageQueue<Uint8Array>();
    this.#requests = queue;
    let queued = 0;
    let paused = false;
    const take = (message: Uint8Array) => {
      queued += message.length + 1;
      queue.push(message);
      if (queued >= highWater && !paused) {
        paused = true;
        stream.pause();
      }
    };
    const { borrows } = this.#bound;
    this.#reader = new FrameReader(this.#host.maxReceiveBytes, take, borrows ? pooled : undefined);
    let last: Uint8Array | undefined;
    queue.onTake = (message) => {
      if (borrows) {
        if (last) pool.give(last);
        last = message;
      }
      queued -= message.length + 1;
      if (paused && queued < highWater) {
        paused = false;
        stream.resume();
      }
    };
    // Messages nobody will read still have to flow, or the stream would never come to its end.
    queue.onReturn = () => {
      queued = Number.NEGATIVE_INFINITY;
      stream.resume();
    };
    this.#run(queue);
  }
}

function pooled(length: number): Buffer {
  if (length < pooledFrom || length > pool.size) return Buffer.allocUnsafe(length);
  return pool.take().subarray(0, length);
}

/** Answers a stream that is no call of ours: a status and nothing else. */
export function refuse(stream: ServerStream, error: StatusError): void {
  stream.respond(encodeHeaders({ ...answerHeaders, ...statusTrailers(error) }), true);
}

/** Why a request cannot be taken, if it cannot. */
export function wrongEncoding(headers: RequestHeaders): StatusError | undefined {
  const encoding = headers.get('grpc-encoding');
  if (encoding === undefined || encoding === 'identity') return undefined;
  return unimplemented(`grpc: Decompressor is not installed for grpc-encoding "${encoding}"`);
}

const units: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

function milliseconds(timeout: string): number | undefined {
  const unit = units[timeout.at(-1) ?? ''];
  const digits = timeout.slice(0, -1);
  return unit === undefined || !/^\d{1,8}$/.test(digits) ? undefined : Math.ceil(Number(digits) * unit);
}
