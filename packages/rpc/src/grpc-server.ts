import type { Socket } from 'node:net';
import net from 'node:net';
import tls from 'node:tls';
import type { DescService } from '@bufbuild/protobuf';
import { Code, canceled, deadlineExceeded, type StatusError, unavailable } from '@gantry/api';
import {
  Metadata as GrpcMetadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import { type BoundMethod, Dispatcher, type Responder } from './dispatcher.ts';
import { toGrpcStatus } from './grpc-status.ts';
import { leaseHeader, namespaceHeader } from './headers.ts';
import { MessageQueue } from './message-queue.ts';
import { ServerCall, type ServerOptions } from './server-call.ts';
import type { Implementation, Metadata, ServiceRegistrar } from './service.ts';
import { listening, listenUnix, type SocketPermissions, type UnixAddress } from './unix-listener.ts';

export interface GrpcServerOptions extends ServerOptions {
  /** Bytes of the largest message taken. Default 16 MiB. */
  maxReceiveBytes?: number;
  /** Bytes of the largest message sent. Default 16 MiB. */
  maxSendBytes?: number;
}

/** TLS of a TCP listener; PEM. */
export interface TlsOptions {
  key: string | Buffer;
  cert: string | Buffer;
  /** The authority that signs clients' certificates. */
  clientCa?: string | Buffer;
  /** Refuse clients without a certificate of `clientCa`. */
  requireClientCert?: boolean;
  /** Refuse clients whose certificate has another common name. */
  commonName?: string;
}

const defaultLimit = 16 << 20;
/** Bytes of one stream that may wait in memory before its handler is held up. */
const highWater = 1 << 20;

type AnyCall =
  | ServerUnaryCall<Buffer, Buffer>
  | ServerReadableStream<Buffer, Buffer>
  | ServerWritableStream<Buffer, Buffer>
  | ServerDuplexStream<Buffer, Buffer>;

/**
 * A gRPC server. It owns its sockets and hands accepted connections to grpc-js, so that owner and mode of a unix socket are
 * right from its first moment and a bound socket can be taken over from a service manager.
 */
export class GrpcServer implements ServiceRegistrar {
  readonly #dispatcher: Dispatcher;
  readonly #server: Server;
  readonly #injector: ReturnType<Server['createConnectionInjector']>;
  readonly #listeners = new Set<net.Server>();
  readonly #sockets = new Set<Socket>();
  readonly #calls = new Set<GrpcCall>();
  readonly #options: GrpcServerOptions;
  #idle: (() => void) | undefined;
  #closing = false;

  constructor(options: GrpcServerOptions = {}) {
    this.#options = options;
    this.#dispatcher = new Dispatcher(options);
    this.#server = new Server({
      'grpc.max_receive_message_length': options.maxReceiveBytes ?? defaultLimit,
      'grpc.max_send_message_length': options.maxSendBytes ?? defaultLimit,
      'grpc.enable_channelz': 0,
    });
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
  }

  /** Adds a service. May be called while the server listens. */
  add<S extends DescService>(service: S, implementation: Implementation<S>): void {
    this.#dispatcher.add(service, implementation);
    for (const bound of this.#dispatcher.services.get(service.typeName)!.values()) {
      const path = `/${service.typeName}/${bound.desc.name}`;
      this.#server.unregister(path);
      this.#server.register(
        path,
        this.#handler(bound),
        asBuffer,
        (bytes: Buffer) => bytes,
        grpcKinds[bound.desc.methodKind],
      );
    }
  }

  /** Full names of the services that were added. */
  get services(): string[] {
    return [...this.#dispatcher.services.keys()];
  }

  /** The calls that run now, as `service/method`. */
  get activeCalls(): string[] {
    return [...this.#calls].map((call) => `${call.service}/${call.method}`);
  }

  /** Listens on a unix socket. See `listenUnix` for what may fail. */
  async listenUnix(address: UnixAddress, permissions?: SocketPermissions): Promise<void> {
    const server = net.createServer((socket) => this.serveConnection(socket));
    await listenUnix(server, address, permissions);
    this.#keep(server);
  }

  /**
   * Listens on TCP, `host:port` (`[::1]:port`), port 0 for any.
   * @returns the port
   */
  async listenTcp(address: string, options?: TlsOptions): Promise<number> {
    const colon = address.lastIndexOf(':');
    const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    const port = Number(address.slice(colon + 1));
    const server = options ? this.#tlsServer(options) : net.createServer((socket) => this.serveConnection(socket));
    await listening(server, () => server.listen({ port, ...(host ? { host } : {}) }));
    this.#keep(server);
    return (server.address() as net.AddressInfo).port;
  }

  /** Serves one connection that somebody else accepted. */
  serveConnection(socket: Socket): void {
    if (this.#closing) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.on('error', () => {}); // A peer that resets is told by 'close'; its calls are cancelled there.
    socket.setNoDelay?.(true);
    this.#injector.injectConnection(socket);
  }

  /** Stops listening, lets calls in flight run for at most `graceMs`, then breaks them. */
  async close(graceMs = 0): Promise<void> {
    this.#closing = true;
    const closed = [...this.#listeners].map((server) => new Promise<void>((done) => server.close(() => done())));
    if (this.#calls.size > 0 && graceMs > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs);
        this.#idle = () => {
          clearTimeout(timer);
          // The last answer is on its way through http2: one turn lets it reach the socket.
          setImmediate(resolve);
        };
      });
    }
    for (const call of this.#calls) call.cancel(unavailable('server is shutting down'));
    this.#server.forceShutdown();
    for (const socket of this.#sockets) socket.destroySoon();
    await Promise.all(closed);
  }

  #keep(server: net.Server): void {
    this.#listeners.add(server);
    server.on('error', (error) => this.#options.logger?.error('listener failed', { error }));
  }

  #tlsServer(options: TlsOptions): net.Server {
    const server = tls.createServer(
      {
        key: options.key,
        cert: options.cert,
        ...(options.clientCa === undefined ? {} : { ca: options.clientCa }),
        requestCert: options.requireClientCert === true || options.commonName !== undefined,
        rejectUnauthorized: options.requireClientCert === true || options.commonName !== undefined,
        ALPNProtocols: ['h2'],
        minVersion: 'TLSv1.2',
      },
      (socket) => {
        if (options.commonName !== undefined && socket.getPeerCertificate().subject?.CN !== options.commonName) {
          this.#options.logger?.warn('client certificate has another common name', { peer: socket.remoteAddress });
          socket.destroy();
          return;
        }
        this.serveConnection(socket);
      },
    );
    server.on('tlsClientError', (error, socket) =>
      this.#options.logger?.warn('TLS handshake failed', { error, peer: socket.remoteAddress }),
    );
    return server;
  }

  #handler(bound: BoundMethod): UntypedHandleCall {
    const clientStreams = bound.desc.methodKind === 'client_streaming' || bound.desc.methodKind === 'bidi_streaming';
    const serverStreams = bound.desc.methodKind === 'server_streaming' || bound.desc.methodKind === 'bidi_streaming';
    return ((grpc: AnyCall, callback?: sendUnaryData<Buffer>) => {
      const call = new GrpcCall(bound, grpc);
      this.#calls.add(call);
      const done = () => {
        this.#calls.delete(call);
        if (this.#calls.size === 0) this.#idle?.();
      };
      const input = clientStreams
        ? readMessages(call, grpc as ServerReadableStream<Buffer, Buffer>)
        : (grpc as ServerUnaryCall<Buffer, Buffer>).request;
      (grpc as ServerUnaryCall<Buffer, Buffer>).on('cancelled', () =>
        call.cancel(
          Date.now() >= Number(grpc.getDeadline())
            ? deadlineExceeded('context deadline exceeded')
            : canceled('context canceled'),
        ),
      );
      const responder = serverStreams
        ? new StreamResponder(call, grpc as ServerWritableStream<Buffer, Buffer>, done)
        : new UnaryResponder(callback!, done);
      this.#dispatcher.run(call, bound, input, responder);
    }) as UntypedHandleCall;
  }
}

const grpcKinds = {
  unary: 'unary',
  server_streaming: 'serverStream',
  client_streaming: 'clientStream',
  bidi_streaming: 'bidi',
} as const;

class GrpcCall extends ServerCall {
  readonly transport = 'grpc';
  readonly #grpc: AnyCall;
  #metadata: Metadata | undefined;

  constructor(bound: BoundMethod, grpc: AnyCall) {
    super(bound.service, bound.desc);
    this.#grpc = grpc;
  }

  get metadata(): Metadata {
    if (!this.#metadata) {
      const map = new Map<string, readonly string[]>();
      for (const [name, values] of Object.entries(this.#grpc.metadata.toJSON()))
        if (!name.endsWith('-bin')) map.set(name, values.map(String));
      this.#metadata = map;
    }
    return this.#metadata;
  }

  get namespace(): string | undefined {
    return this.#grpc.metadata.get(namespaceHeader)[0] as string | undefined;
  }

  get lease(): string | undefined {
    return this.#grpc.metadata.get(leaseHeader)[0] as string | undefined;
  }

  sendHeaders(headers: Record<string, string>): void {
    const metadata = new GrpcMetadata();
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    (this.#grpc as ServerUnaryCall<Buffer, Buffer>).sendMetadata(metadata);
  }
}

class UnaryResponder implements Responder {
  readonly #callback: sendUnaryData<Buffer>;
  readonly #done: () => void;
  #message: Buffer | undefined;

  constructor(callback: sendUnaryData<Buffer>, done: () => void) {
    this.#callback = callback;
    this.#done = done;
  }

  send(message: Uint8Array): undefined {
    this.#message = asBuffer(message);
  }

  end(error: StatusError | undefined): void {
    if (error) this.#callback(toGrpcStatus(error), null);
    else this.#callback(null, this.#message!);
    this.#done();
  }
}

class StreamResponder implements Responder {
  readonly #call: GrpcCall;
  readonly #stream: ServerWritableStream<Buffer, Buffer>;
  readonly #done: () => void;
  #waiting = 0;
  #resume: (() => void) | undefined;

  constructor(call: GrpcCall, stream: ServerWritableStream<Buffer, Buffer>, done: () => void) {
    this.#call = call;
    this.#stream = stream;
    this.#done = done;
    stream.on('close', () => this.#wake());
  }

  send(message: Uint8Array): Promise<void> | undefined {
    if (this.#stream.destroyed || this.#call.cancelReason) return undefined;
    const size = message.byteLength + 5;
    this.#waiting += size;
    const room = this.#stream.write(asBuffer(message), () => {
      this.#waiting -= size;
      if (this.#waiting < highWater) this.#wake();
    });
    if (room && this.#waiting < highWater) return undefined;
    return new Promise((resolve) => {
      this.#resume = resolve;
    });
  }

  end(error: StatusError | undefined): void {
    // grpc-js takes an error event as the order to end with that status.
    if (error && error.code !== Code.Ok) this.#stream.emit('error', toGrpcStatus(error));
    else this.#stream.end();
    this.#done();
  }

  #wake(): void {
    this.#resume?.();
    this.#resume = undefined;
  }
}

/** The messages of a request stream as a queue that holds back the peer while the handler is slower. */
function readMessages(call: GrpcCall, stream: ServerReadableStream<Buffer, Buffer>): MessageQueue<Uint8Array> {
  const queue = new MessageQueue<Uint8Array>();
  let paused = false;
  stream.on('data', (message: Buffer) => {
    queue.push(message);
    if (queue.size >= 4 && !paused) {
      paused = true;
      stream.pause();
    }
  });
  queue.onTake = () => {
    if (paused && queue.size === 0) {
      paused = false;
      stream.resume();
    }
  };
  stream.on('end', () => queue.end());
  stream.on('cancelled', () => queue.fail(call.cancelReason ?? canceled('context canceled')));
  // Messages nobody will read still have to flow, or the stream would never come to its end.
  queue.onReturn = () => stream.resume();
  return queue;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
