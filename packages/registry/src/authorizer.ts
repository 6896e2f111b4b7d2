import { Code, hasCode } from '@gantry/api';
import type { Challenge } from './challenge.ts';
import { parseChallenges } from './challenge.ts';
import { basic, type Credentials, type CredentialsProvider } from './credentials.ts';
import { AuthorizationError } from './http-error.ts';
import type { HttpResponse, HttpTransport } from './http-transport.ts';
import { headerValues } from './http-transport.ts';
import { scrub } from './redact.ts';
import { fetchToken, type Token } from './token.ts';
import { TokenCache } from './token-cache.ts';

export interface AuthorizerOptions {
  /** As in the URL, with port. */
  host: string;
  credentials?: CredentialsProvider | undefined;
  /** See `RegistryHost.credentials`. */
  providers?: readonly string[] | undefined;
  transport: HttpTransport;
  /** Sent to a token server at the same host; elsewhere only what names no user. */
  headers?: Readonly<Record<string, string | string[]>>;
  tokens?: TokenCache | undefined;
}

/** What a request that may need proof is for. */
interface Purpose {
  scopes: readonly string[];
  reference?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** Tokens are renewed this long before they end. */
const margin = 5_000;

/** Proves who we are to one host: remembers what it asked for, and the tokens got, by scope. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #tokens: TokenCache;
  #challenge: Challenge | undefined;
  #asked: readonly string[] | undefined;
  /** What the host wanted for requests with certain scopes, joined, when it wanted something else. */
  readonly #wanted = new Map<string, readonly string[]>();
  /** By reference: a plugin may give each image its own. */
  readonly #credentials = new Map<string, Promise<Credentials | undefined>>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    this.#tokens = options.tokens ?? new TokenCache();
  }

  /**
   * The `Authorization` of a request with these scopes; undefined until the host has asked for one, or if an earlier
   * transfer's token is not at hand either.
   */
  async header(purpose: Purpose): Promise<string | undefined> {
    const { scopes } = purpose;
    const challenge = this.#challenge;
    if (!challenge) return await this.#remembered(purpose);
    const credentials = await this.#lookUp(purpose);
    if (credentials?.kind === 'header') return credentials.value;
    if (challenge.scheme === 'basic') return basicOf(credentials);
    return `Bearer ${(await this.#token(challenge, scopes, credentials, purpose.signal)).value}`;
  }

  async #remembered(purpose: Purpose): Promise<string | undefined> {
    const challenge = this.#tokens.challenge(this.#options.host);
    if (!challenge) return undefined;
    const credentials = await this.#lookUp(purpose);
    if (credentials?.kind === 'header') return undefined;
    const token = await this.#tokens
      .get(TokenCache.key(challenge, purpose.scopes, credentials))
      ?.catch(() => undefined);
    if (!token || !isFresh(token)) return undefined;
    this.#challenge = challenge;
    return `Bearer ${token.value}`;
  }

  /**
   * Takes in a 401. True if the request is worth sending again.
   * @throws AuthorizationError if what was sent was refused, or the host asks for what is not known here.
   */
  async challenged(response: HttpResponse, purpose: Purpose, sent: string | undefined): Promise<boolean> {
    const { scopes } = purpose;
    this.#asked = headerValues(response, 'www-authenticate');
    const challenges = parseChallenges(this.#asked);
    for (const challenge of challenges) {
      const { scheme, parameters } = challenge;
      if (scheme !== 'bearer' && scheme !== 'basic') continue;
      if (sent !== undefined) {
        // A token may have ended early, or not cover what this request needs: try once with a new one.
        const wanted = parameters.scope?.split(' ') ?? [];
        const covered = wanted.every((scope) => scopes.includes(scope));
        const { error } = parameters;
        if (scheme === 'basic' || (error !== undefined && error !== 'invalid_token' && covered)) {
          const words = scrub(error ?? 'unauthorized').slice(0, 64);
          throw new AuthorizationError(`server message: ${words}: authorization failed`);
        }
        const old = this.#challenge ?? challenge;
        this.#tokens.delete(TokenCache.key(old, scopes, await this.#lookUp(purpose)));
      }
      // Before it is kept: what asks for no login must still be had without one.
      if (scheme === 'basic') basicOf(await this.#lookUp(purpose));
      this.#challenge = challenge;
      if (parameters.scope !== undefined) this.#wanted.set(scopes.join(' '), parameters.scope.split(' '));
      if (scheme === 'bearer') this.#tokens.remember(this.#options.host, challenge);
      return true;
    }
    if (challenges.length === 0) return false;
    const schemes = challenges.map(({ scheme }) => scheme).join(', ');
    throw new AuthorizationError(`failed to find supported auth scheme: ${schemes}: not implemented`);
  }

  async #token(
    challenge: Challenge,
    scopes: readonly string[],
    credentials: Credentials | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Token> {
    const id = TokenCache.key(challenge, scopes, credentials);
    for (;;) {
      const known = this.#tokens.get(id);
      if (!known) break;
      const token = await untilAborted(known, signal).catch((error) => {
        signal?.throwIfAborted();
        // The transfer that asked for it was cancelled: this one asks itself.
        if (!hasCode(error, Code.Canceled)) throw error;
        return undefined;
      });
      if (token && isFresh(token)) return token;
      // Another request may have begun to renew it while this one waited.
      if (this.#tokens.get(id) === known) this.#tokens.delete(id);
    }
    const { transport, host, headers } = this.#options;
    const fetching = fetchToken({
      transport,
      challenge,
      scopes: mergeScopes([...scopes, ...(this.#wanted.get(scopes.join(' ')) ?? [])]),
      credentials,
      host,
      headers: headers ?? {},
      signal,
    });
    this.#tokens.set(id, fetching);
    return await fetching;
  }

  async #lookUp({ scopes, reference, signal }: Purpose): Promise<Credentials | undefined> {
    const { host, credentials: provider, providers } = this.#options;
    if (!provider) return undefined;
    const id = reference ?? '';
    const known = this.#credentials.get(id);
    if (known) {
      const credentials = await known;
      if (credentials?.expiresAt === undefined || credentials.expiresAt > Date.now()) return credentials;
    }
    const current = this.#credentials.get(id);
    if (current && current !== known) return await current;
    const asked = this.#asked && { challenges: this.#asked };
    const looking = provider({ host, reference, scopes, ...asked, ...(providers && { providers }) }, signal);
    this.#credentials.set(id, looking);
    // One that was cancelled, or failed, says nothing about the next.
    looking.catch(() => this.#credentials.delete(id));
    return await looking;
  }
}

function isFresh(token: Token): boolean {
  return token.expiresAt - margin > Date.now();
}

/** One of those who wait for the same thing may give up while the others go on. */
function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

function basicOf(credentials: Credentials | undefined): string {
  if (credentials?.kind === 'header') return credentials.value;
  if (credentials?.kind === 'password' && credentials.username !== '') {
    return basic(credentials.username, credentials.secret);
  }
  throw new AuthorizationError('authorization failed: no basic auth credentials');
}

/** Puts actions on the same repository together: `repository:a:pull` and `repository:a:push,pull` are one. */
export function mergeScopes(scopes: readonly string[]): string[] {
  const actions = new Map<string, Set<string>>();
  const others = new Set<string>();
  for (const scope of scopes) {
    const colon = scope.lastIndexOf(':');
    if (scope === '') continue;
    if (colon <= 0) {
      others.add(scope);
      continue;
    }
    const resource = scope.slice(0, colon);
    const known = actions.get(resource) ?? new Set();
    for (const action of scope.slice(colon + 1).split(',')) known.add(action);
    actions.set(resource, known);
  }
  const merged = [...actions].map(([resource, set]) => `${resource}:${[...set].sort().join(',')}`);
  return [...merged, ...others].sort();
}
