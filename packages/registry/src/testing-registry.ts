/**
 * A small registry in memory for tests: the distribution specification's pull and push, and whatever misbehaviour a test
 * asks for. Listens on loopback, plain HTTP or TLS.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createSecureServer } from 'node:http2';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';

export interface TestingRegistryOptions {
  tls?: {
    cert: string;
    key: string;
    /** PEM: clients must show a certificate of this authority. */
    clientCa?: string;
    /** Offers HTTP/2 besides HTTP/1.1. */
    http2?: boolean;
  };
  /** Of the answer that starts an upload. */
  uploadHeaders?: Record<string, string>;
  /** Looks at each request first; true: it has answered. */
  intercept?: ((request: IncomingMessage, response: ServerResponse, registry: TestingRegistry) => boolean) | undefined;
}

interface Stored {
  bytes: Buffer;
  mediaType: string;
}

export class TestingRegistry implements AsyncDisposable {
  /** `METHOD /path` of each request, in order. */
  readonly requests: string[] = [];
  readonly headers: IncomingMessage['headers'][] = [];
  /** By `repository@digest` and `repository:tag`. */
  readonly manifests = new Map<string, Stored>();
  /** By `repository@digest`. */
  readonly blobs = new Map<string, Buffer>();
  /** Bytes of uploads under way, by their path. */
  readonly uploads = new Map<string, Buffer>();
  readonly #server: NetServer;
  readonly #sockets = new Set<Socket>();
  readonly #options: TestingRegistryOptions;
  #uploads = 0;

  private constructor(options: TestingRegistryOptions) {
    this.#options = options;
    const listener: RequestListener = (request, response) => {
      this.#answer(request, response).catch((error: Error) => response.writeHead(500).end(error.message));
    };
    this.#server = serverOf(options, listener);
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(options: TestingRegistryOptions = {}): Promise<TestingRegistry> {
    const registry = new TestingRegistry(options);
    await new Promise<void>((resolve) => {
      registry.#server.listen(0, '127.0.0.1', resolve);
    });
    return registry;
  }

  /** `localhost:<port>`. */
  get host(): string {
    return `localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  addBlob(repository: string, bytes: Uint8Array | string): { digest: string; size: number } {
    const buffer = Buffer.from(bytes);
    const digest = sha256(buffer);
    this.blobs.set(`${repository}@${digest}`, buffer);
    return { digest, size: buffer.length };
  }

  addManifest(
    repository: string,
    mediaType: string,
    document: unknown,
    tag?: string,
  ): { digest: string; size: number } {
    const bytes = Buffer.from(JSON.stringify(document));
    const digest = sha256(bytes);
    this.manifests.set(`${repository}@${digest}`, { bytes, mediaType });
    if (tag !== undefined) this.manifests.set(`${repository}:${tag}`, { bytes, mediaType });
    return { digest, size: bytes.length };
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests.push(`${request.method} ${request.url}`);
    this.headers.push(request.headers);
    if (this.#options.intercept?.(request, response, this)) return;
    const url = new URL(request.url ?? '', 'http://registry');
    const found = /^\/v2\/(.+)\/(manifests|blobs)\/(.+)$/.exec(url.pathname);
    const upload = /^\/v2\/(.+)\/blobs\/uploads\/(.*)$/.exec(url.pathname);
    if (upload) return await this.#upload(request, response, url, upload[1] ?? '');
    if (!found) return void response.writeHead(404).end();
    const [, repository = '', kind, reference = ''] = found;
    if (request.method === 'PUT') return await this.#putManifest(request, response, repository, reference);
    const key = reference.includes(':') ? `${repository}@${reference}` : `${repository}:${reference}`;
    const stored: Stored | undefined =
      kind === 'manifests'
        ? this.manifests.get(key)
        : { bytes: this.blobs.get(key) as Buffer, mediaType: 'application/octet-stream' };
    if (!stored?.bytes) return this.#error(response, 404, kind === 'manifests' ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN');
    sendBytes(request, response, stored.bytes, stored.mediaType);
  }

  async #putManifest(request: IncomingMessage, response: ServerResponse, repository: string, reference: string) {
    const bytes = await readAll(request);
    const mediaType = request.headers['content-type'] ?? '';
    const digest = sha256(bytes);
    this.manifests.set(`${repository}@${digest}`, { bytes, mediaType });
    if (!reference.includes(':')) this.manifests.set(`${repository}:${reference}`, { bytes, mediaType });
    response.writeHead(201, { 'docker-content-digest': digest }).end();
  }

  async #upload(request: IncomingMessage, response: ServerResponse, url: URL, repository: string) {
    const { method } = request;
    if (method === 'POST') {
      request.resume();
      const [mount, from] = [url.searchParams.get('mount'), url.searchParams.get('from')];
      const bytes = this.blobs.get(`${from}@${mount}`);
      if (bytes) {
        this.blobs.set(`${repository}@${mount}`, bytes);
        return void response.writeHead(201, { location: `/v2/${repository}/blobs/${mount}` }).end();
      }
      const location = `/v2/${repository}/blobs/uploads/${++this.#uploads}`;
      this.uploads.set(location, Buffer.alloc(0));
      return void response.writeHead(202, { location, ...this.#options.uploadHeaders }).end();
    }
    const had = this.uploads.get(url.pathname);
    if (!had) return this.#error(response, 404, 'BLOB_UPLOAD_UNKNOWN');
    const progress = (size: number): Record<string, string> => ({
      location: url.pathname,
      ...(size > 0 && { range: `0-${size - 1}` }),
    });
    if (method === 'GET') return void response.writeHead(204, progress(had.length)).end();
    const bytes = Buffer.concat([had, await readAll(request)]);
    if (method === 'PATCH') {
      const start = Number(/^(\d+)-/.exec(request.headers['content-range'] ?? '')?.[1]);
      if (start !== had.length) return void response.writeHead(416, progress(had.length)).end();
      this.uploads.set(url.pathname, bytes);
      return void response.writeHead(202, progress(bytes.length)).end();
    }
    const digest = sha256(bytes);
    if (digest !== url.searchParams.get('digest')) return this.#error(response, 400, 'DIGEST_INVALID');
    this.uploads.delete(url.pathname);
    this.blobs.set(`${repository}@${digest}`, bytes);
    response.writeHead(201, { 'docker-content-digest': digest }).end();
  }

  #error(response: ServerResponse, status: number, code: string): void {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ errors: [{ code, message: `${code.toLowerCase()} in a test` }] }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function serverOf({ tls }: TestingRegistryOptions, listener: RequestListener): NetServer {
  if (!tls) return createServer(listener);
  const { cert, key, clientCa, http2 = false } = tls;
  const options = { cert, key, ...(clientCa && { ca: clientCa, requestCert: true, rejectUnauthorized: true }) };
  if (!http2) return createTlsServer(options, listener);
  // Its compatibility API answers both versions alike.
  return createSecureServer({ ...options, allowHTTP1: true }, listener as never);
}

/** Answers with bytes, or the range asked for. */
export function sendBytes(request: IncomingMessage, response: ServerResponse, bytes: Buffer, mediaType: string): void {
  const range = /^bytes=(\d+)-(\d+)?$/.exec(request.headers.range ?? '');
  const start = Number(range?.[1] ?? 0);
  const end = Math.min(Number(range?.[2] ?? bytes.length) + 1, bytes.length);
  const headers: Record<string, string> = {
    'content-type': mediaType,
    'content-length': String(end - start),
    'docker-content-digest': sha256(bytes),
  };
  if (range) headers['content-range'] = `bytes ${start}-${end - 1}/${bytes.length}`;
  response.writeHead(range ? 206 : 200, headers);
  if (request.method === 'HEAD') response.end();
  else response.end(bytes.subarray(start, end));
}

export function sha256(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}
