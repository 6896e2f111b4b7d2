import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode } from '@gantry/api';
import { Authorizer, type CredentialsProvider } from './authorizer.ts';
import type { RegistryHost } from './hosts.ts';
import { AuthorizationError } from './http-error.ts';
import { discard, type HttpRequest, type HttpResponse, HttpTransport, header } from './http-transport.ts';

/** Requests to one endpoint of a registry, with its credentials, headers and patience. */

export interface RegistryRequest {
  method: HttpRequest['method'];
  /** Below the host's prefix, with a leading slash; or a whole URL (upload locations). */
  path: string | URL;
  query?: Record<string, string>;
  headers?: Record<string, string>;
  body?: HttpRequest['body'];
  /** Token scopes, as `repository:a/b:pull`. */
  scopes: readonly string[];
  /** The image that the request is for, as its user named it. */
  reference?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Asks again after 408, 429, 5xx and broken connections; for the last endpoint, when no other is left to try. */
  patient?: boolean;
}

export interface HostClientOptions {
  credentials?: CredentialsProvider | undefined;
  /** Sent with every request, from the caller. */
  headers?: Record<string, string> | undefined;
  trace?: ((line: string) => void) | undefined;
}

const maxAttempts = 5;
const maxRetryAfter = 60_000;
const worthRepeating = (status: number): boolean =>
  status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505);

export class HostClient implements AsyncDisposable {
  readonly host: RegistryHost;
  readonly #transport: HttpTransport;
  readonly #authorizer: Authorizer;
  readonly #headers: Record<string, string | string[]>;

  constructor(host: RegistryHost, options: HostClientOptions = {}) {
    this.host = host;
    this.#transport = new HttpTransport({
      secure: host.scheme === 'https',
      ...(host.tls && { tls: host.tls }),
      ...(host.dialTimeout !== undefined && { dialTimeout: host.dialTimeout }),
      ...(host.httpFallback && { httpFallback: true }),
      trace: options.trace,
    });
    this.#authorizer = new Authorizer({
      host: host.host,
      credentials: options.credentials,
      transport: this.#transport,
    });
    this.#headers = { 'user-agent': 'gantry', ...lower(options.headers ?? {}) };
    for (const [name, values] of Object.entries(host.headers)) this.#headers[name.toLowerCase()] = [...values];
  }

  url(path: string | URL, query: Record<string, string> = {}): URL {
    const url =
      path instanceof URL ? new URL(path) : new URL(`${this.host.scheme}://${this.host.host}${this.host.path}${path}`);
    for (const [name, value] of Object.entries(query)) url.searchParams.append(name, value);
    return url;
  }

  /** Sends until there is an answer that is not a refusal for want of credentials. Any other status is the caller's. */
  async send(request: RegistryRequest): Promise<HttpResponse> {
    for (let attempt = 1; ; attempt++) {
      const last = request.patient !== true || attempt === maxAttempts;
      try {
        const response = await this.#authorized(request);
        if (last || !worthRepeating(response.status)) return response;
        const wait = retryAfter(response) ?? backoff(attempt);
        if (wait > maxRetryAfter) return response;
        await discard(response);
        await sleep(wait, undefined, { ...(request.signal && { signal: request.signal }) });
      } catch (error) {
        if (last || !hasCode(error, Code.Unavailable) || isHopeless(error.cause)) throw error;
        await sleep(backoff(attempt), undefined, { ...(request.signal && { signal: request.signal }) });
      }
    }
  }

  async #authorized(request: RegistryRequest): Promise<HttpResponse> {
    const url = this.url(request.path, request.query);
    const own = url.host === this.host.host;
    for (let attempt = 0; ; attempt++) {
      request.signal?.throwIfAborted();
      // An upload location at another host gets none of this host's secrets.
      const sent = own ? await this.#authorizer.header(request) : undefined;
      const response = await this.#transport.send({
        method: request.method,
        url,
        headers: {
          ...(own ? this.#headers : {}),
          ...lower(request.headers ?? {}),
          ...(sent !== undefined && { authorization: sent }),
        },
        ...(request.body !== undefined && { body: request.body }),
        signal: request.signal,
      });
      if (response.status !== 401 || !own) return response;
      if (attempt === 3) {
        await discard(response);
        throw new AuthorizationError('server message: unauthorized: authorization failed');
      }
      const again = await this.#authorizer.challenged(response, request.scopes, sent).catch(async (error) => {
        await discard(response);
        throw error;
      });
      if (!again) return response;
      await discard(response);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }
}

function lower(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function backoff(attempt: number): number {
  return 100 * 2 ** (attempt - 1) * (0.75 + Math.random() / 2);
}

/** Milliseconds of a `Retry-After` in seconds or as a date. */
function retryAfter(response: HttpResponse): number | undefined {
  const value = header(response, 'retry-after');
  if (value === undefined) return undefined;
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}

/** Failures that the next second will not change. */
function isHopeless(reason: unknown): boolean {
  const code = (reason as NodeJS.ErrnoException | undefined)?.code ?? '';
  return ['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH'].includes(code) || /CERT|ERR_SSL|ERR_TLS/.test(code);
}
