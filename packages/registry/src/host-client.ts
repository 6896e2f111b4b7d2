import { Authorizer } from './authorizer.ts';
import type { CredentialsProvider } from './credentials.ts';
import type { RegistryHost } from './hosts.ts';
import { AuthorizationError } from './http-error.ts';
import { discard, type HttpRequest, type HttpResponse, HttpTransport } from './http-transport.ts';
import { patiently } from './patience.ts';
import type { TokenCache } from './token-cache.ts';

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
  dump?: ((text: string) => void) | undefined;
  /** Shared with other clients, so that their tokens serve here too. */
  tokens?: TokenCache | undefined;
}

export class HostClient implements AsyncDisposable {
  readonly host: RegistryHost;
  readonly #transport: HttpTransport;
  readonly #authorizer: Authorizer;
  readonly #headers: Record<string, string | string[]>;

  constructor(host: RegistryHost, options: HostClientOptions = {}) {
    this.host = host;
    this.#transport = new HttpTransport({
      ...(host.tls && { tls: host.tls }),
      ...(host.dialTimeout !== undefined && { dialTimeout: host.dialTimeout }),
      ...(host.httpFallback && { httpFallback: true }),
      ...(host.proxy && { proxy: host.proxy }),
      trace: options.trace,
      dump: options.dump,
    });
    this.#headers = { 'user-agent': 'gantry', ...lower(options.headers ?? {}) };
    for (const [name, values] of Object.entries(host.headers)) this.#headers[name.toLowerCase()] = [...values];
    this.#authorizer = new Authorizer({
      host: host.host,
      credentials: options.credentials,
      providers: host.credentials,
      transport: this.#transport,
      headers: this.#headers,
      tokens: options.tokens,
    });
  }

  url(path: string | URL, query: Record<string, string> = {}): URL {
    const url =
      path instanceof URL ? new URL(path) : new URL(`${this.host.scheme}://${this.host.host}${this.host.path}${path}`);
    for (const [name, value] of Object.entries(query)) url.searchParams.append(name, value);
    return url;
  }

  /** Sends until there is an answer that is not a refusal for want of credentials. Any other status is the caller's. */
  async send(request: RegistryRequest): Promise<HttpResponse> {
    if (request.patient !== true) return await this.#authorized(request);
    return await patiently(() => this.#authorized(request), request.signal);
  }

  async #authorized(request: RegistryRequest): Promise<HttpResponse> {
    const url = this.url(request.path, request.query);
    const own = this.#isOwn(url);
    /** As it went out: plain HTTP, perhaps, where HTTPS was tried first. */
    let asked = url;
    try {
      for (let attempt = 0; ; attempt++) {
        request.signal?.throwIfAborted();
        // An upload location at another host gets none of this host's secrets.
        const sent = own ? await this.#authorizer.header(request) : undefined;
        const response = await this.#transport.send(this.#prepare(request, url, own, sent));
        // Where a redirect led to has no say in who gets this host's credentials.
        if (response.status !== 401 || !own || !this.#isOwn(response.url)) return response;
        asked = response.url;
        if (!(await this.#again(response, request, sent, attempt))) return response;
        await discard(response);
      }
    } catch (error) {
      throw error instanceof AuthorizationError ? error.during({ method: request.method, url: asked }) : error;
    }
  }

  #prepare(request: RegistryRequest, url: URL, own: boolean, authorization: string | undefined): HttpRequest {
    return {
      method: request.method,
      url,
      headers: {
        ...(own ? this.#headers : {}),
        ...lower(request.headers ?? {}),
        ...(authorization !== undefined && { authorization }),
      },
      ...(request.body !== undefined && { body: request.body }),
      signal: request.signal,
    };
  }

  async #again(
    response: HttpResponse,
    request: RegistryRequest,
    sent: string | undefined,
    attempt: number,
  ): Promise<boolean> {
    try {
      if (attempt === 3) throw new AuthorizationError('server message: unauthorized: authorization failed');
      return await this.#authorizer.challenged(response, request, sent);
    } catch (error) {
      await discard(response);
      throw error;
    }
  }

  /** With the scheme's own port named or not; by plain HTTP only where that is as good as HTTPS. */
  #isOwn(url: URL): boolean {
    const { scheme, host, httpFallback } = this.host;
    if (url.protocol !== `${scheme}:` && !httpFallback) return false;
    return url.host === new URL(`${url.protocol}//${host}`).host;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }
}

function lower(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
