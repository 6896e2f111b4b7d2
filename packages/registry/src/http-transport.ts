import type { Readable } from 'node:stream';
import type { SecureContext } from 'node:tls';
import { type Span, traced } from '@gantry/api';
import type { Dispatcher } from 'undici';
import { decodeBody } from './content-encoding.ts';
import type { TlsOptions } from './hosts.ts';
import { dumpAnswer, dumpRequest } from './http-dump.ts';
import { requestFailed } from './http-error.ts';
import { environmentProxy } from './proxy.ts';
import { secureContext } from './tls-context.ts';

/** One way to one host: connections with its TLS settings, kept open between requests. Knows nothing of registries. */

export type RequestBody = Uint8Array | (() => AsyncIterable<Uint8Array>);

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  url: URL;
  headers: Record<string, string | string[]>;
  body?: RequestBody;
  signal?: AbortSignal | undefined;
}

export interface HttpResponse {
  /** That which was answered, after redirects. */
  url: URL;
  status: number;
  statusText: string;
  /** Names in lower case. */
  headers: Record<string, string | string[] | undefined>;
  /** Must be read to its end or destroyed. */
  body: Readable & { dump?: () => Promise<void> };
}

export interface TransportOptions {
  tls?: TlsOptions;
  /** Milliseconds to connect; default 30 s, as containerd's. */
  dialTimeout?: number;
  /** See `RegistryHost.httpFallback`. */
  httpFallback?: boolean;
  /** Instead of those that the environment names. */
  proxy?: URL | undefined;
  /** Told of every request and answer, for debugging; never of secrets. */
  trace?: ((line: string) => void) | undefined;
  /** Told of their heads in full, but for secrets. */
  dump?: ((text: string) => void) | undefined;
}

/** What a TLS client sees when the other side speaks plain HTTP. */
const notTls = new Set(['ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_PACKET_LENGTH_TOO_LONG', 'EPROTO', 'ECONNRESET']);

/** Headers that may follow a redirect to another host. The others may say who we are, as `hosts.toml` can name any. */
const harmlessHeaders = new Set([
  'accept',
  'accept-encoding',
  'content-length',
  'content-range',
  'content-type',
  'if-range',
  'range',
  'user-agent',
]);

/** Flow control of HTTP/2: what may be under way at once, so that a long way does not make a fast line slow. */
const h2Options = { settings: { initialWindowSize: 4 << 20 }, connectionWindowSize: 16 << 20 };

type Undici = typeof import('undici');

const maxRedirects = 10;

export class HttpTransport implements AsyncDisposable {
  readonly #options: TransportOptions;
  readonly #plainHosts = new Set<string>();
  #undici: Promise<Undici> | undefined;
  /** By scheme and the address of the proxy, if there is one. */
  readonly #dispatchers = new Map<string, Dispatcher>();

  constructor(options: TransportOptions = {}) {
    this.#options = options;
  }

  /** Sends, follows redirects, and answers whatever status comes. @throws Unavailable if there is no answer. */
  async send(request: HttpRequest): Promise<HttpResponse> {
    let current = request;
    for (let redirects = 0; ; redirects++) {
      const response = await this.#once(current);
      const location = header(response, 'location');
      const { status } = response;
      // Others than GET are only sent elsewhere where the answer means them as they are, body and all.
      const follow = current.method === 'GET' || current.method === 'HEAD' || status === 307 || status === 308;
      if (!follow || status < 301 || status > 308 || status === 304 || location === undefined) return response;
      await discard(response);
      if (redirects === maxRedirects)
        throw requestFailed(current, new Error(`stopped after ${maxRedirects} redirects`));
      const url = new URL(location, current.url);
      const headers = url.origin === current.url.origin ? current.headers : harmless(current.headers);
      current = { ...current, url, headers };
    }
  }

  async #once(request: HttpRequest): Promise<HttpResponse> {
    const { httpFallback } = this.#options;
    const fall = httpFallback === true && request.url.protocol === 'https:';
    if (fall && this.#plainHosts.has(request.url.host)) return await this.#dispatch(plain(request));
    try {
      return await this.#dispatch(request);
    } catch (error) {
      if (!fall || !notTls.has((error as NodeJS.ErrnoException).code ?? '')) throw requestFailed(request, error);
      this.#plainHosts.add(request.url.host);
      this.#options.trace?.(`${request.url.host} does not speak TLS; using HTTP`);
      try {
        return await this.#dispatch(plain(request));
      } catch (second) {
        throw requestFailed(plain(request), second);
      }
    }
  }

  /** One request and its answer's head, as a step of the trace if there is one. */
  #dispatch(request: HttpRequest): Promise<HttpResponse> {
    const { method, url } = request;
    const attributes = {
      'http.request.method': method,
      'server.address': url.hostname,
      // Without the query, which may be a signature that gives access.
      'url.full': `${url.origin}${url.pathname}`,
    };
    return traced('remotes.docker.resolver.HTTPRequest', { kind: 'client', attributes }, async (span) => {
      const response = await this.#exchange(request, span);
      span?.set('http.response.status_code', response.status);
      if (response.status >= 400) span?.fail(`${response.status} ${response.statusText}`);
      return response;
    });
  }

  async #exchange(request: HttpRequest, span: Span | undefined): Promise<HttpResponse> {
    const undici = await this.#load();
    // Where plain HTTP redirects to HTTPS, the same settings hold.
    const context = request.url.protocol === 'https:' ? await secureContext(this.#options.tls ?? {}) : undefined;
    const { body } = request;
    const { trace, dump } = this.#options;
    dump?.(dumpRequest(request));
    const answer = await undici.request(request.url, {
      method: request.method,
      // Ranges of an encoded answer would be ranges of something else.
      headers: { 'accept-encoding': 'identity', ...span?.headers(), ...request.headers },
      body: typeof body === 'function' ? (body() as unknown as Readable) : (body ?? null),
      ...(request.signal && { signal: request.signal }),
      dispatcher: this.#dispatcher(undici, request.url, context),
    });
    const { statusCode: status } = answer;
    // Whoever reads the body gets its errors; one destroyed unread must not bring the process down.
    answer.body.on('error', () => undefined);
    trace?.(`${request.method} ${request.url.origin}${request.url.pathname} ${status}`);
    dump?.(dumpAnswer(status, answer.headers, request.url));
    return {
      url: request.url,
      status,
      statusText: process.getBuiltinModule('node:http').STATUS_CODES[status] ?? '',
      headers: answer.headers,
      body: decodeBody(answer.body, answer.headers['content-encoding']),
    };
  }

  /** undici is loaded at the first request: a daemon that never pulls never pays for it. */
  #load(): Promise<Undici> {
    // undici is CommonJS: in a bundle all that it exports is the default.
    this.#undici ??= import('undici').then((module) =>
      'Agent' in module ? module : (module as { default: Undici }).default,
    );
    return this.#undici;
  }

  #dispatcher({ Agent, ProxyAgent }: Undici, url: URL, context: SecureContext | undefined): Dispatcher {
    const proxy = this.#options.proxy ?? environmentProxy(url);
    const name = `${url.protocol} ${proxy?.href ?? ''}`;
    const known = this.#dispatchers.get(name);
    if (known) return known;
    const { tls, dialTimeout = 30_000 } = this.#options;
    const tlsOptions = {
      ...(context && { secureContext: context }),
      ...(tls?.skipVerify && { rejectUnauthorized: false }),
    };
    const options = {
      connect: { timeout: dialTimeout, ...tlsOptions },
      headersTimeout: 60_000,
      // A body that stalls counts as a broken connection, to be resumed.
      bodyTimeout: 60_000,
      keepAliveTimeout: 10_000,
      h2Options,
    };
    const dispatcher = proxy
      ? new ProxyAgent({
          ...options,
          uri: proxy.href.replace(/^socks5h:/, 'socks5:'),
          requestTls: tlsOptions,
          connectTimeout: dialTimeout,
        })
      : new Agent(options);
    this.#dispatchers.set(name, dispatcher);
    return dispatcher;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const made = [...this.#dispatchers.values()];
    this.#dispatchers.clear();
    await Promise.all(made.map((dispatcher) => dispatcher.destroy()));
  }
}

function plain(request: HttpRequest): HttpRequest {
  const url = new URL(request.url);
  url.protocol = 'http:';
  return { ...request, url };
}

function harmless(headers: HttpRequest['headers']): HttpRequest['headers'] {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => harmlessHeaders.has(name.toLowerCase())));
}

/** The first value of a header. */
export function header(response: HttpResponse, name: string): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** All values of a header. */
export function headerValues(response: HttpResponse, name: string): string[] {
  const value = response.headers[name];
  return value === undefined ? [] : Array.isArray(value) ? value : [value];
}

/** Throws the rest of an answer away, so that its connection can be used again. */
export async function discard(response: HttpResponse): Promise<void> {
  if (response.body.dump) await response.body.dump().catch(() => undefined);
  else response.body.destroy();
}

/** Reads an answer whole, up to `limit` bytes; more is cut off. */
export async function readBody(response: HttpResponse, limit: number): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response.body as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > limit) break;
  }
  return Buffer.concat(chunks).subarray(0, limit);
}
