import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import type { DescMethod } from '@bufbuild/protobuf';
import { canceled, deadlineExceeded, internal, StatusError, unavailable } from '@gantry/api';
import { abortError } from './abort-error.ts';
import { type ClientCallEvents, GrpcClientCall, grpcTimeout } from './grpc-client-call.ts';
import { checkSendSize, frame, writeFrame } from './grpc-frames.ts';
import { leaseHeader, namespaceHeader, ttrpcNamespaceHeader } from './headers.ts';
import { MessageQueue } from './message-queue.ts';
import type { CallOptions, Transport } from './service.ts';
import { socketPath } from './unix-listener.ts';

/** TLS of a client; PEM. */
export interface TlsCredentials {
  /** Authorities that sign the server's certificate. Default: those Node trusts. */
  ca?: string | Buffer;
  /** The client's own certificate and key. */
  cert?: string | Buffer;
  key?: string | Buffer;
  /** The name the server's certificate must have. Default: the host. */
  serverName?: string;
}

export interface GrpcTransportOptions {
  /** Namespace of calls that name none. */
  namespace?: string;
  /** Speak TLS, for TCP. Default: plain. */
  credentials?: TlsCredentials;
  /** Bytes of the largest message taken or sent. Default 16 MiB. */
  maxMessageBytes?: number;
  /** Milliseconds between keep-alive pings; 0, the default, sends none. */
  keepAliveMs?: number;
  /** Sent as the first part of the user agent. */
  userAgent?: string;
  /** Called each time a connection that was made breaks, before its calls are told. */
  onDisconnect?: () => void;
}

/** A gRPC connection, made at the first call and made again when it breaks. It keeps the process alive while a call is on. */
export interface GrpcTransport extends Transport {
  /** Waits until the server answers. @throws StatusError DeadlineExceeded */
  ready(timeoutMs: number): Promise<void>;
}

/** A transport to `/run/x.sock`, `unix:///run/x.sock` or `host:port`. */
export function grpcTransport(address: string, options: GrpcTransportOptions = {}): GrpcTransport {
  return new ClientTransport(address, options);
}

/** Bytes that the server may send ahead on one stream, and on all streams. */
const streamWindow = 4 << 20;
const connectionWindow = 16 << 20;
/** Milliseconds until a ping that was not answered means that the connection is gone, and between tries to connect. */
const pingTimeout = 20_000;
const retryMs = 50;

/** Bytes of one stream's answers that may wait for their reader before the server is held up. */
const highWater = 1 << 20;

class ClientTransport implements GrpcTransport {
  readonly #address: string;
  readonly #options: GrpcTransportOptions;
  readonly #limit: number;
  readonly #userAgent: string;
  #session: ClientHttp2Session | undefined;
  #calls = 0;
  #closed = false;

  constructor(address: string, options: GrpcTransportOptions) {
    this.#address = address;
    this.#options = options;
    this.#limit = options.maxMessageBytes ?? 16 << 20;
    this.#userAgent = `${options.userAgent ? `${options.userAgent} ` : ''}grpc-gantry/1`;
  }

  unary(method: DescMethod, request: Uint8Array, options: CallOptions): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const attempt = (again: boolean) => {
        let answer: Uint8Array | undefined;
        const call = this.#call(method, options, {
          message: (bytes) => {
            if (answer) call?.cancel(internal('more than one message of a method that gives one'));
            answer = bytes;
          },
          end: (error, refused) => {
            if (refused && again) attempt(false);
            else if (error) reject(error);
            else if (answer) resolve(answer);
            else reject(internal('no message of a method that gives one'));
          },
        });
        call?.stream.end(frame(request));
      };
      try {
        checkSendSize(request.length, this.#limit);
        attempt(true);
      } catch (reason) {
        reject(StatusError.from(reason));
      }
    });
  }

  stream(method: DescMethod, requests: AsyncIterable<Uint8Array>, options: CallOptions): AsyncIterable<Uint8Array> {
    const answers = new MessageQueue<Uint8Array>();
    let over = false;
    let wake: (() => void) | undefined;
    let queued = 0;
    let paused = false;
    const call = this.#call(method, options, {
      message: (bytes) => {
        queued += bytes.length + 1;
        answers.push(bytes);
        if (queued < highWater || paused) return;
        paused = true;
        call?.stream.pause();
      },
      end: (error) => {
        over = true;
        wake?.();
        if (error) answers.fail(error);
        else answers.end();
      },
    });
    if (!call) return answers;
    const { stream } = call;
    answers.onTake = (bytes) => {
      queued -= bytes.length + 1;
      if (!paused || queued >= highWater) return;
      paused = false;
      stream.resume();
    };
    answers.onReturn = () => call.cancel(canceled('context canceled'));
    stream.on('drain', () => wake?.());
    stream.on('close', () => wake?.());
    const send = async () => {
      const iterator = requests[Symbol.asyncIterator]();
      while (!over) {
        const { done, value } = await iterator.next();
        if (done) {
          stream.end();
          return;
        }
        if (over || stream.destroyed || stream.writableEnded) break;
        checkSendSize(value.length, this.#limit);
        if (!writeFrame(stream, value, undefined))
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
      await iterator.return?.();
    };
    // What broke is the caller's own stream of requests: that is its error, not the server's.
    send().catch((reason) => call.cancel(StatusError.from(reason)));
    return answers;
  }

  async ready(timeoutMs: number): Promise<void> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      if (this.#closed) throw unavailable('the connection was closed by its owner');
      const session = this.#connect();
      this.#hold();
      try {
        const left = Math.max(0, until - performance.now());
        const error = await settled(session, left);
        if (!error) return;
        if (performance.now() + retryMs >= until) throw deadlineExceeded(`no answer from ${this.#address}`, error);
      } finally {
        this.#release();
      }
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#session?.destroy();
    this.#session = undefined;
    return Promise.resolve();
  }

  /** Starts a call; what fails at once is told to `events` too, then there is no call. */
  #call(method: DescMethod, options: CallOptions, events: ClientCallEvents): GrpcClientCall | undefined {
    if (options.signal?.aborted) {
      events.end(abortError(options.signal), false);
      return undefined;
    }
    if (this.#closed) {
      events.end(unavailable('the connection was closed by its owner'), false);
      return undefined;
    }
    const headers = this.#headers(method, options);
    let session = this.#connect();
    let stream: ClientHttp2Stream;
    try {
      stream = session.request(headers);
    } catch (reason) {
      // A session that has just been told to go away takes no more streams, though nobody has told us yet.
      if (!(reason as NodeJS.ErrnoException).code?.startsWith('ERR_HTTP2_')) throw reason;
      this.#session = undefined;
      session = this.#connect();
      stream = session.request(headers);
    }
    this.#hold();
    return new GrpcClientCall(session, stream, this.#limit, options, {
      message: events.message,
      end: (error, refused) => {
        this.#release();
        events.end(error, refused);
      },
    });
  }

  #hold(): void {
    if (++this.#calls === 1) this.#session?.ref();
  }

  #release(): void {
    if (--this.#calls === 0 && this.#session && !this.#session.destroyed) this.#session.unref();
  }

  #connect(): ClientHttp2Session {
    if (this.#session && !this.#session.closed && !this.#session.destroyed) return this.#session;
    const session = http2.connect('http://localhost', {
      createConnection: () => this.#dial(),
      settings: { enablePush: false, initialWindowSize: streamWindow },
      maxSessionMemory: 4096,
    });
    this.#session = session;
    const forget = () => {
      if (this.#session === session) this.#session = undefined;
    };
    session.on('error', forget); // Its calls are told by their streams.
    session.on('goaway', forget);
    session.once('connect', () => {
      // It may have been closed while it was being made.
      if (!session.destroyed) session.setLocalWindowSize(connectionWindow);
      session.once('close', () => !this.#closed && this.#options.onDisconnect?.());
    });
    const pings = this.#options.keepAliveMs ? this.#ping(session, this.#options.keepAliveMs) : undefined;
    session.on('close', () => {
      clearInterval(pings);
      forget();
    });
    if (this.#calls === 0) session.unref();
    return session;
  }

  #ping(session: ClientHttp2Session, every: number): NodeJS.Timeout {
    return setInterval(() => {
      if (session.connecting || session.closed || this.#calls === 0) return;
      const timer = setTimeout(() => session.destroy(unavailable('keepalive ping not answered')), pingTimeout);
      session.ping(() => clearTimeout(timer));
    }, every).unref();
  }

  #dial(): net.Socket {
    const address = this.#address;
    const secure = this.#options.credentials;
    if (/^([/@]|unix:)/.test(address)) return net.connect({ path: socketPath(address) });
    const bare = address.replace(/^tcp:\/\//, '');
    const colon = bare.lastIndexOf(':');
    const host = bare.slice(0, colon).replace(/^\[|\]$/g, '');
    const port = Number(bare.slice(colon + 1));
    if (!secure) return net.connect({ host, port, noDelay: true });
    const { serverName = net.isIP(host) ? '' : host, ...pem } = secure;
    return tls.connect({ ...pem, host, port, servername: serverName, ALPNProtocols: ['h2'], minVersion: 'TLSv1.2' });
  }

  #headers(method: DescMethod, options: CallOptions): Record<string, string> {
    const headers: Record<string, string> = {
      ':method': 'POST',
      ':path': `/${method.parent.typeName}/${method.name}`,
      te: 'trailers',
      'content-type': 'application/grpc',
      'user-agent': this.#userAgent,
    };
    if (options.timeoutMs !== undefined) headers['grpc-timeout'] = grpcTimeout(options.timeoutMs);
    const namespace = options.namespace ?? this.#options.namespace;
    if (namespace !== undefined) {
      headers[namespaceHeader] = namespace;
      headers[ttrpcNamespaceHeader] = namespace;
    }
    if (options.lease !== undefined) headers[leaseHeader] = options.lease;
    if (options.metadata)
      for (const [name, value] of Object.entries(options.metadata)) headers[name.toLowerCase()] = value;
    return headers;
  }
}

/** Undefined when the server has answered a ping, or why it has not. */
function settled(session: ClientHttp2Session, timeoutMs: number): Promise<Error | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => session.destroy(deadlineExceeded('no answer')), timeoutMs);
    const done = (error?: Error) => {
      clearTimeout(timer);
      resolve(error);
    };
    session.once('error', done);
    session.once('close', () => done(unavailable('the connection was closed')));
    const ask = () => {
      if (!session.destroyed) session.ping((error) => done(error ?? undefined));
    };
    if (session.connecting) session.once('connect', ask);
    else ask();
  });
}
