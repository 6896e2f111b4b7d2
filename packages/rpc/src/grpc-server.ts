import net, { type Socket } from 'node:net';
import tls from 'node:tls';
import type { DescService } from '@bufbuild/protobuf';
import { StatusError, unavailable } from '@gantry/api';
import { Dispatcher } from './dispatcher.ts';
import { type CallHost, GrpcCall, refuse, wrongEncoding } from './grpc-call.ts';
import { encodeHeaders } from './http2/hpack-encoding.ts';
import type { RequestHeaders } from './http2/request-headers.ts';
import { ServerConnection } from './http2/server-connection.ts';
import type { ServerStream } from './http2/server-stream.ts';
import type { ServerOptions } from './server-call.ts';
import type { Implementation, ServiceRegistrar } from './service.ts';
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
/** How long a connection gets to send out the last answers when the server closes. */
const farewellMs = 200;

/**
 * A gRPC server. It owns its sockets, so that owner and mode of a unix socket are right from its first moment
 * and a bound socket can be taken over from a service manager. Messages are not compressed, as containerd's are not.
 */
export class GrpcServer implements ServiceRegistrar {
  readonly #dispatcher: Dispatcher;
  readonly #listeners = new Set<net.Server>();
  readonly #connections = new Set<ServerConnection>();
  readonly #calls = new Set<GrpcCall>();
  /** Told when a connection that is asked to end has ended. */
  readonly #farewells = new WeakMap<ServerConnection, () => void>();
  readonly #options: GrpcServerOptions;
  readonly #host: CallHost;
  #idle: (() => void) | undefined;
  #closing = false;

  constructor(options: GrpcServerOptions = {}) {
    this.#options = options;
    this.#dispatcher = new Dispatcher(options);
    this.#host = {
      dispatcher: this.#dispatcher,
      maxReceiveBytes: options.maxReceiveBytes ?? defaultLimit,
      maxSendBytes: options.maxSendBytes ?? defaultLimit,
      finished: (call) => {
        this.#calls.delete(call);
        if (this.#calls.size === 0) this.#idle?.();
      },
    };
  }

  /** Adds a service. May be called while the server listens. */
  add<S extends DescService>(service: S, implementation: Implementation<S>): void {
    this.#dispatcher.add(service, implementation);
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
    socket.setNoDelay?.(true);
    const connection: ServerConnection = new ServerConnection(socket, {
      stream: (stream, headers) => this.#answer(stream, headers),
      closed: () => {
        this.#connections.delete(connection);
        this.#farewells.get(connection)?.();
      },
      failed: (error: NodeJS.ErrnoException) => {
        // A client that ends without waiting is nothing to tell of.
        if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE')
          this.#options.logger?.warn('connection failed', { error });
      },
    });
    this.#connections.add(connection);
  }

  /** Stops listening and taking calls, lets those in flight run for at most `graceMs`, then breaks them. */
  async close(graceMs = 0): Promise<void> {
    this.#closing = true;
    const closed = [...this.#listeners].map((server) => new Promise<void>((done) => server.close(() => done())));
    for (const connection of this.#connections) connection.goAway();
    if (this.#calls.size > 0 && graceMs > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs);
        this.#idle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    for (const call of this.#calls) call.break(unavailable('server is shutting down'));
    await Promise.all([...this.#connections].map((connection) => this.#farewell(connection)));
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

  /** Lets a connection send what it has, for a moment, and ends it. */
  #farewell(connection: ServerConnection): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => connection.destroy(), farewellMs);
      this.#farewells.set(connection, () => {
        clearTimeout(timer);
        resolve();
      });
      connection.close();
    });
  }

  #answer(stream: ServerStream, headers: RequestHeaders): void {
    const post = headers.method === 'POST';
    if (!post || !headers.get('content-type')?.startsWith('application/grpc')) {
      stream.respond(encodeHeaders({ ':status': post ? 415 : 405 }), true);
      return;
    }
    try {
      const wrong = wrongEncoding(headers);
      if (wrong) throw wrong;
      const [, service = '', method = ''] = headers.path.split('/');
      const call = new GrpcCall(this.#host, this.#dispatcher.find(service, method), stream, headers);
      this.#calls.add(call);
      call.start();
    } catch (reason) {
      refuse(stream, StatusError.from(reason));
    }
  }
}
