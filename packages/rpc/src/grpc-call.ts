// One call on the server's side of gRPC: a stream of HTTP/2 read as messages, and answered with messages and a status.
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { canceled, deadlineExceeded, internal, StatusError, unimplemented } from '@gantry/api';
import { BufferPool } from './buffer-pool.ts';
import type { BoundMethod, Dispatcher, Responder } from './dispatcher.ts';
import { checkSendSize, FrameReader, frame, writeFrame } from './grpc-frames.ts';
import { statusTrailers } from './grpc-status.ts';
import { leaseHeader, namespaceHeader } from './headers.ts';
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
const withTrailers = { waitForTrailers: true, sendDate: false } as unknown as { waitForTrailers: true };

/** What a call needs of its server. */
export interface CallHost {
  readonly dispatcher: Dispatcher;
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
  /** Nothing is left to be done for the call. */
  finished(call: GrpcCall): void;
}

/** A call from its headers to its trailers; also where the dispatcher puts its answers. */
export class GrpcCall extends ServerCall implements Responder {
  readonly transport = 'grpc';
  readonly #host: CallHost;
  readonly #bound: BoundMethod;
  readonly #stream: ServerHttp2Stream;
  readonly #headers: IncomingHttpHeaders;
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

  constructor(host: CallHost, bound: BoundMethod, stream: ServerHttp2Stream, headers: IncomingHttpHeaders) {
    super(bound.service, bound.desc);
    this.#host = host;
    this.#bound = bound;
    this.#stream = stream;
    this.#headers = headers;
  }

  /** Reads the request; the handler runs as soon as it can. */
  start(): void {
    const stream = this.#stream;
    const gone = () => this.#gone();
    stream.on('aborted', gone);
    stream.on('close', gone);
    const timeout = this.#headers['grpc-timeout'];
    if (typeof timeout === 'string' && !this.#startClock(timeout)) return;
    if (this.kind === 'client_streaming' || this.kind === 'bidi_streaming') this.#readMany();
    else this.#readOne();
  }

  get metadata(): Metadata {
    if (!this.#metadata) {
      const map = new Map<string, readonly string[]>();
      for (const [name, value] of Object.entries(this.#headers)) {
        if (value === undefined || name.startsWith(':') || name.endsWith('-bin') || transportHeaders.has(name))
          continue;
        map.set(name, typeof value === 'string' ? [value] : value);
      }
      this.#metadata = map;
    }
    return this.#metadata;
  }

  get namespace(): string | undefined {
    return this.#headers[namespaceHeader] as string | undefined;
  }

  get lease(): string | undefined {
    return this.#headers[leaseHeader] as string | undefined;
  }

  sendHeaders(headers: Record<string, string>): void {
    if (this.#headersSent || this.#statusSent || this.#stream.destroyed) return;
    this.#respond({ ...answerHeaders, ...headers });
  }

  send(head: Uint8Array, tail?: Uint8Array): Promise<void> | undefined {
    const length = head.length + (tail?.length ?? 0);
    checkSendSize(length, this.#host.maxSendBytes);
    if (this.kind === 'unary' || this.kind === 'client_streaming') {
      this.#answer = { head, tail };
      return undefined;
    }
    if (this.#statusSent || this.#stream.destroyed || this.cancelReason) return undefined;
    if (!this.#headersSent) this.#respond(answerHeaders);
    this.#waiting += length;
    writeFrame(this.#stream, head, tail, () => {
      this.#waiting -= length;
      if (this.#waiting < highWater) this.#wake();
      if (this.#waiting === 0) this.#flushed?.();
    });
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

  #respond(headers: Record<string, string | number>): void {
    this.#headersSent = true;
    this.#stream.respond(headers, withTrailers);
  }

  #sendStatus(error: StatusError | undefined): void {
    clearTimeout(this.#deadline);
    if (this.#statusSent) return;
    this.#statusSent = true;
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    const answer = this.#answer;
    const trailers = statusTrailers(error);
    if (!this.#headersSent && (error || !answer)) {
      stream.respond({ ...answerHeaders, ...trailers }, { endStream: true });
      this.#letGo();
      return;
    }
    if (!this.#headersSent) this.#respond(answerHeaders);
    stream.once('wantTrailers', () => {
      stream.sendTrailers(trailers);
      this.#letGo();
    });
    if (!error && answer) stream.end(frame(answer.head, answer.tail));
    else stream.end();
  }

  /** A caller that has its status may still be sending: it is told that nobody reads on. */
  #letGo(): void {
    const stream = this.#stream;
    if (stream.readableEnded) return;
    stream.resume();
    // A turn later, when the trailers are on their way: a reset overtakes what still waits.
    setImmediate(() => {
      if (!stream.readableEnded && !stream.destroyed) stream.close(constants.NGHTTP2_NO_ERROR);
    });
  }

  /** The stream is over, or broke. */
  #gone(): void {
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

  #readOne(): void {
    const reader = new FrameReader(this.#host.maxReceiveBytes, (message) => {
      if (this.#request) throw internal('grpc: more than one message for a method that takes one');
      this.#request = message;
    });
    this.#pipe(reader, () => {
      if (this.#request) this.#run(this.#request);
      else this.break(internal('grpc: no message for a method that takes one'));
    });
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
    const reader = new FrameReader(this.#host.maxReceiveBytes, take, borrows ? pooled : undefined);
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
    this.#pipe(reader, () => queue.end());
    this.#run(queue);
  }

  #pipe(reader: FrameReader, end: () => void): void {
    const stream = this.#stream;
    stream.on('data', (chunk: Buffer) => {
      if (this.#statusSent) return;
      try {
        reader.push(chunk);
      } catch (reason) {
        this.break(StatusError.from(reason));
      }
    });
    stream.on('end', () => {
      if (this.#statusSent) return;
      if (stream.aborted) this.#gone();
      else if (reader.partial) this.break(internal('unexpected EOF'));
      else end();
    });
  }
}

function pooled(length: number): Buffer {
  if (length < pooledFrom || length > pool.size) return Buffer.allocUnsafe(length);
  return pool.take().subarray(0, length);
}

/** Answers a stream that is no call of ours: a status and nothing else. */
export function refuse(stream: ServerHttp2Stream, error: StatusError): void {
  stream.respond({ ...answerHeaders, ...statusTrailers(error) }, { endStream: true });
  stream.resume();
}

/** Why a request cannot be taken, if it cannot. */
export function wrongEncoding(headers: IncomingHttpHeaders): StatusError | undefined {
  const encoding = headers['grpc-encoding'];
  if (encoding === undefined || encoding === 'identity') return undefined;
  return unimplemented(`grpc: Decompressor is not installed for grpc-encoding "${String(encoding)}"`);
}

const units: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

function milliseconds(timeout: string): number | undefined {
  const unit = units[timeout.at(-1) ?? ''];
  const digits = timeout.slice(0, -1);
  return unit === undefined || !/^\d{1,8}$/.test(digits) ? undefined : Math.ceil(Number(digits) * unit);
}
