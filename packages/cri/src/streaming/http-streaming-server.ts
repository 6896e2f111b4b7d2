import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import type { Duplex } from 'node:stream';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { WebSocketServer } from 'ws';
import type { ServerConfig } from '../config/server-config.ts';
import {
  type Forward,
  portForwardProtocol,
  spdyPortForward,
  tunnelProtocol,
  webSocketPortForward,
  webSocketPortForwardProtocols,
} from './port-forward.ts';
import type { RemoteCommand, WantedStreams } from './remote-command.ts';
import { RequestTokens } from './request-tokens.ts';
import { commandProtocols, spdyCommand } from './spdy-command.ts';
import type { AttachUrlRequest, ExecUrlRequest, StreamingRuntime, StreamingServer } from './streaming-server.ts';
import { type TlsKeys, tlsKeys } from './tls-keys.ts';
import { webSocketCommand, webSocketCommandProtocols } from './web-socket-command.ts';

type Asked =
  | ({ kind: 'exec' } & ExecUrlRequest)
  | ({ kind: 'attach' } & AttachUrlRequest)
  | { kind: 'portforward'; sandboxId: string; ports: readonly number[] };

/** A client that upgrades its connection. */
interface Visitor {
  request: http.IncomingMessage;
  socket: Duplex;
  head: Buffer;
}

/**
 * The server behind the URLs of Exec, Attach and PortForward: HTTP upgraded to SPDY/3.1 or to WebSocket. Who has a URL has its
 * token, which is good for one connection.
 */
export class HttpStreamingServer implements StreamingServer {
  readonly #config: ServerConfig;
  readonly #runtime: () => StreamingRuntime;
  readonly #log: Logger;
  readonly #asked = new RequestTokens<Asked>();
  readonly #sockets = new Set<Duplex>();
  #server: http.Server | https.Server | undefined;
  #base = '';
  #webSockets: WebSocketServer | undefined;
  /** The protocols of those that are being upgraded. */
  readonly #agreed = new WeakMap<http.IncomingMessage, string>();

  constructor(config: ServerConfig, runtime: () => StreamingRuntime, log: Logger) {
    this.#config = config;
    this.#runtime = runtime;
    this.#log = log;
  }

  execUrl(request: ExecUrlRequest): string {
    return this.#url({ kind: 'exec', ...request });
  }

  attachUrl(request: AttachUrlRequest): string {
    return this.#url({ kind: 'attach', ...request });
  }

  portForwardUrl(request: { sandboxId: string; ports: readonly number[] }): string {
    return this.#url({ kind: 'portforward', ...request });
  }

  #url(asked: Asked): string {
    return `${this.#base}/${asked.kind}/${this.#asked.add(asked)}`;
  }

  async start(): Promise<void> {
    const keys = await tlsKeys(this.#config);
    const server = keys ? https.createServer(keys satisfies TlsKeys) : http.createServer();
    this.#server = server;
    server.on('request', (request, response) => this.#plain(request, response));
    server.on('upgrade', (request, socket, head) => {
      socket.on('error', () => undefined);
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      this.#upgrade({ request, socket, head }).catch((error) => {
        this.#log.warn('CRI streaming: a client was not served', { error, url: request.url });
        socket.destroy();
      });
    });
    const host = this.#config.stream_server_address || ownAddress();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port: Number(this.#config.stream_server_port || 0) }, () => {
        server.off('error', reject);
        resolve();
      });
    });
    const { address, port } = server.address() as net.AddressInfo;
    this.#base = `${keys ? 'https' : 'http'}://${net.isIPv6(address) ? `[${address}]` : address}:${port}`;
  }

  async close(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** What is asked without an upgrade. */
  #plain(request: http.IncomingMessage, response: http.ServerResponse): void {
    const known = this.#take(request.url) !== undefined;
    response.writeHead(known ? 400 : 404, { 'content-type': 'text/plain; charset=utf-8' });
    response.end(known ? 'unable to upgrade: missing upgrade headers in request\n' : '404 page not found\n');
  }

  #take(url = ''): Asked | undefined {
    const [, kind, token] = /^\/(exec|attach|portforward)\/([\w-]+)(?:\?|$)/.exec(url) ?? [];
    const asked = token === undefined ? undefined : this.#asked.take(token);
    return asked?.kind === kind ? asked : undefined;
  }

  async #upgrade(visitor: Visitor): Promise<void> {
    const { request, socket } = visitor;
    const asked = this.#take(request.url);
    if (!asked) return refuse(socket, 404, '404 page not found\n');
    if (request.method !== 'GET' && request.method !== 'POST') return refuse(socket, 405, 'Method Not Allowed\n');
    const to = request.headers.upgrade?.toLowerCase();
    if (to === 'websocket') return this.#webSocket(visitor, asked);
    if (to === 'spdy/3.1') return this.#spdy(visitor, asked);
    refuse(socket, 400, `unable to upgrade: unknown protocol ${JSON.stringify(request.headers.upgrade)}\n`);
  }

  async #spdy({ request, socket, head }: Visitor, asked: Asked): Promise<void> {
    const known = asked.kind === 'portforward' ? [portForwardProtocol] : commandProtocols;
    const wanted = protocolsOf(request.headers['x-stream-protocol-version']);
    // The first clients named none.
    const protocol = wanted.length === 0 ? known.at(-1)! : wanted.find((name) => known.includes(name));
    if (protocol === undefined) {
      return refuse(
        socket,
        403,
        `unable to upgrade: unable to negotiate protocol: client supports [${wanted.join(' ')}], server accepts [${known.join(' ')}]\n`,
        known.map((name) => `X-Accepted-Stream-Protocol-Versions: ${name}\r\n`).join(''),
      );
    }
    this.#limitIdleness(socket);
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n' +
        `${wanted.length === 0 ? '' : `X-Stream-Protocol-Version: ${protocol}\r\n`}\r\n`,
    );
    if (asked.kind !== 'portforward') return this.#command(asked, await spdyCommand(socket, head, protocol, asked));
    spdyPortForward(socket, head, asked.sandboxId, (port, stream) =>
      this.#runtime().portForward(asked.sandboxId, port, stream),
    );
  }

  async #webSocket({ request, socket, head }: Visitor, asked: Asked): Promise<void> {
    const known =
      asked.kind === 'portforward' ? [tunnelProtocol, ...webSocketPortForwardProtocols] : webSocketCommandProtocols;
    const wanted = protocolsOf(request.headers['sec-websocket-protocol']);
    const protocol = wanted.find((name) => known.includes(name)) ?? '';
    if (wanted.length > 0 && protocol === '') return refuse(socket, 403, 'unable to negotiate protocol\n');
    const { createWebSocketStream } = await import('ws');
    const server = await this.#webSocketServer();
    // Agreed on here: the library refuses names with a slash, as the tunnel's is.
    delete request.headers['sec-websocket-protocol'];
    if (protocol !== '') this.#agreed.set(request, protocol);
    server.handleUpgrade(request, socket, head, (client) => {
      // Only now: the library takes away what was set before.
      this.#limitIdleness(socket);
      if (asked.kind !== 'portforward') {
        void this.#command(asked, webSocketCommand(client, protocol, asked));
        return;
      }
      const forward: Forward = (port, stream) => this.#runtime().portForward(asked.sandboxId, port, stream);
      if (protocol === tunnelProtocol) {
        spdyPortForward(createWebSocketStream(client), Buffer.alloc(0), asked.sandboxId, forward);
      } else void webSocketPortForward(client, protocol, asked.ports, asked.sandboxId, forward);
    });
  }

  #limitIdleness(socket: Duplex): void {
    const idleMs = this.#config.stream_idle_timeout;
    if (idleMs > 0) (socket as net.Socket).setTimeout(idleMs, () => socket.destroy());
  }

  async #webSocketServer(): Promise<WebSocketServer> {
    if (this.#webSockets) return this.#webSockets;
    const { WebSocketServer } = await import('ws');
    const server = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 32 << 20 });
    server.on('headers', (headers, request) => {
      const protocol = this.#agreed.get(request);
      if (protocol !== undefined) headers.push(`Sec-WebSocket-Protocol: ${protocol}`);
    });
    this.#webSockets = server;
    return server;
  }

  async #command(asked: Extract<Asked, WantedStreams>, { streams, finish }: RemoteCommand): Promise<void> {
    try {
      if (asked.kind === 'exec') {
        await finish({ exitCode: await this.#runtime().exec(asked.containerId, asked.command, streams) });
      } else {
        await this.#runtime().attach(asked.containerId, streams);
        await finish({ exitCode: 0 });
      }
    } catch (reason) {
      const what = asked.kind === 'exec' ? 'error executing command in container' : 'error attaching to container';
      await finish({ error: `${what}: ${reason instanceof Error ? reason.message : String(reason)}` });
    }
  }
}

function protocolsOf(header: string | string[] | undefined): string[] {
  const text = Array.isArray(header) ? header.join(',') : (header ?? '');
  return text
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}

function refuse(socket: Duplex, status: number, text: string, headers = ''): void {
  socket.end(
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(text)}\r\n${headers}\r\n${text}`,
  );
}

/** An address of this machine that others can reach. */
function ownAddress(): string {
  const addresses = Object.values(os.networkInterfaces()).flatMap((all) => all ?? []);
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
}
