import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import type { TestRegistry } from './registry.ts';

/**
 * The registry under public names, for programs that fetch by themselves: a proxy that leads every connection to it, and speaks TLS with a
 * certificate of those names. Go's HTTP client takes both from its environment.
 */
export class RegistryAtPublicNames {
  readonly #servers: http.Server[];
  readonly #sockets = new Set<net.Socket>();
  /** What a program needs in its environment. */
  readonly environment: Record<string, string>;

  private constructor(servers: http.Server[], environment: Record<string, string>) {
    this.#servers = servers;
    this.environment = environment;
    for (const server of servers) {
      server.on('connection', (socket: net.Socket) => {
        this.#sockets.add(socket);
        socket.once('close', () => this.#sockets.delete(socket));
      });
    }
  }

  /** @param directory where the certificate goes */
  static async start(
    directory: string,
    registry: TestRegistry,
    names: readonly string[],
  ): Promise<RegistryAtPublicNames> {
    const cert = path.join(directory, 'public.crt');
    const key = path.join(directory, 'public.key');
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
        ...['-subj', '/CN=registry', '-addext', `subjectAltName=${names.map((name) => `DNS:${name}`).join(',')}`],
        ...['-keyout', key, '-out', cert],
      ],
      { stdio: 'ignore' },
    );
    const [host, port] = registry.address.split(':');
    const secure = https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (request, response) => {
      const { method, url, headers } = request;
      const onward = http.request({ host, port, method, path: url, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      request.pipe(onward);
    });
    const proxy = http.createServer((_request, response) => response.writeHead(502).end());
    await listen(secure);
    await listen(proxy);
    proxy.on('connect', (_request, client: net.Socket) => {
      const server = net.connect((secure.address() as net.AddressInfo).port, '127.0.0.1', () => {
        client.write('HTTP/1.1 200 Connection established\r\n\r\n');
        client.pipe(server).pipe(client);
      });
      for (const socket of [client, server]) socket.on('error', () => client.destroy());
    });
    return new RegistryAtPublicNames([secure, proxy], {
      HTTPS_PROXY: `http://127.0.0.1:${(proxy.address() as net.AddressInfo).port}`,
      SSL_CERT_FILE: cert,
    });
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

async function listen(server: http.Server): Promise<void> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
}
