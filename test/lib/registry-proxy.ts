import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';

/** What goes wrong between a registry and its clients. */
export type Misbehaviour =
  | 'none'
  /** Each connection breaks after 300 kB of a blob. */
  | 'cuts'
  /** Each request is refused twice. */
  | 'throttles'
  /** A byte of each layer is another one. */
  | 'lies about digests'
  /** Layers are announced, and sent, a byte longer than they are. */
  | 'lies about lengths'
  /** Layers go on for ever, without a length. */
  | 'never ends'
  /** Connections break after 300 kB, and Range is ignored. */
  | 'ignores Range'
  /** HEAD says neither digest nor length. */
  | 'says no digest'
  /** Blobs are at another host. */
  | 'redirects'
  /** Blobs cannot be sent in one piece. */
  | 'refuses whole blobs'
  /** Everything is refused. */
  | 'is down';

const cutAfter = 300_000;

/** Stands in front of a docker-registry and misbehaves as told. */
export class RegistryProxy {
  misbehaviour: Misbehaviour = 'none';
  /** `METHOD /path` of each request. */
  readonly requests: string[] = [];
  readonly headers: http.IncomingHttpHeaders[] = [];
  readonly #upstream: URL;
  readonly #server: http.Server;
  /** Where `redirects` sends clients. */
  #elsewhere: RegistryProxy | undefined;

  private constructor(upstream: string) {
    this.#upstream = new URL(`http://${upstream}`);
    this.#server = http.createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
  }

  static async start(upstream: string, elsewhere?: RegistryProxy): Promise<RegistryProxy> {
    const proxy = new RegistryProxy(upstream);
    proxy.#elsewhere = elsewhere;
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get address(): string {
    return `localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Forgets the requests so far. */
  become(misbehaviour: Misbehaviour): void {
    this.misbehaviour = misbehaviour;
    this.requests.length = 0;
    this.headers.length = 0;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    this.requests.push(`${request.method} ${request.url}`);
    this.headers.push({ ...request.headers });
    const isBlob = request.method === 'GET' && request.url?.includes('/blobs/sha256:') === true;
    switch (this.misbehaviour) {
      case 'is down':
        return void response.writeHead(503, { 'content-type': 'text/html' }).end('<h1>closed for repairs</h1>');
      case 'throttles':
        if (this.requests.filter((one) => one === this.requests.at(-1)).length < 3)
          return void response.writeHead(429, { 'retry-after': '0' }).end();
        break;
      case 'redirects':
        if (!isBlob) break;
        return void response
          .writeHead(307, { location: `http://${this.#elsewhere?.address}${request.url}?signature=of-the-registry` })
          .end();
      case 'refuses whole blobs':
        // Nor can they be mounted.
        request.url = request.url?.replace(/\?mount=.*/, '') ?? '';
        if (request.method === 'PUT' && request.url?.includes('/blobs/') && request.headers['content-length'] !== '0') {
          request.resume();
          await once(request, 'end');
          return void response.writeHead(405).end();
        }
        break;
      case 'ignores Range':
        if (isBlob) delete request.headers.range;
        break;
      default:
    }
    await this.#forward(request, response, isBlob);
  }

  async #forward(request: http.IncomingMessage, response: http.ServerResponse, isBlob: boolean): Promise<void> {
    const { host: _, ...headers } = request.headers;
    const up = http.request(new URL(request.url ?? '/', this.#upstream), {
      method: request.method ?? 'GET',
      // Uploads go on at the address that the client knows.
      headers: { ...headers, host: this.address },
    });
    up.on('error', () => response.destroy());
    response.on('close', () => up.destroy());
    request.pipe(up);
    const [answer] = (await once(up, 'response')) as [http.IncomingMessage];
    const answered = { ...answer.headers };
    if (request.method === 'HEAD' && this.misbehaviour === 'says no digest') {
      delete answered['docker-content-digest'];
      delete answered['content-length'];
    }
    if (!isBlob || answer.headers['content-type'] !== 'application/octet-stream') {
      response.writeHead(answer.statusCode ?? 502, answered);
      answer.pipe(response);
      return;
    }
    await this.#sendBlob(answer, answered, response);
  }

  async #sendBlob(
    answer: http.IncomingMessage,
    headers: http.IncomingHttpHeaders,
    response: http.ServerResponse,
  ): Promise<void> {
    const length = Number(headers['content-length']);
    // Configurations are small, and let be: what is tried here are layers.
    const isLayer = length > 10_000 || headers['content-range'] !== undefined;
    const mode = isLayer ? this.misbehaviour : 'none';
    if (mode === 'lies about lengths') headers['content-length'] = String(length + 1);
    if (mode === 'never ends') delete headers['content-length'];
    response.writeHead(answer.statusCode ?? 502, headers);
    let sent = 0;
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      if (mode === 'lies about digests' && sent === 0) chunk[100] = (chunk[100] as number) ^ 1;
      if ((mode === 'cuts' || mode === 'ignores Range') && sent + chunk.length > cutAfter && length > cutAfter) {
        // The second try of one that ignores Range gets through.
        if (mode === 'cuts' || this.requests.filter((one) => one === this.requests.at(-1)).length === 1) {
          response.write(chunk.subarray(0, cutAfter - sent), () => response.destroy());
          return;
        }
      }
      sent += chunk.length;
      if (!response.write(chunk)) await once(response, 'drain');
    }
    if (mode === 'lies about lengths') response.write('x');
    if (mode === 'never ends') return goOn(response);
    response.end();
  }
}

/** Sends until the client goes. */
function goOn(response: http.ServerResponse): void {
  const more = (): void => {
    while (!response.destroyed && response.write(Buffer.alloc(65_536)));
  };
  response.on('drain', more);
  more();
}
