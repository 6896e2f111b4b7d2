import type { Challenge } from './challenge.ts';
import { parseChallenges } from './challenge.ts';
import { AuthorizationError } from './http-error.ts';
import type { HttpResponse, HttpTransport } from './http-transport.ts';
import { headerValues } from './http-transport.ts';
import { fetchToken, type Token } from './token.ts';

/** Proves who we are to one host: remembers what it asked for, and the tokens got, by scope. */

/** A user's right to a host. Exactly one form: a name and password, a refresh token, or a whole header value. */
export type Credentials = (
  | { kind: 'password'; username: string; secret: string }
  | { kind: 'refresh'; token: string }
  | { kind: 'header'; value: string }
) & {
  /** Milliseconds since 1970 after which they are asked for again; never if it is left out. */
  expiresAt?: number;
};

/** What credentials are wanted for. */
export interface CredentialsRequest {
  /** The endpoint that asks for them, as in its URL, with port: `registry-1.docker.io` for docker.io, a mirror's own for a mirror. */
  host: string;
  /** The image that is being transferred, as its user named it. */
  reference?: string | undefined;
  /** Token scopes of the request, as `repository:a/b:pull`. */
  scopes?: readonly string[];
}

/** Looks up credentials; undefined for anonymous access. Asked once for each endpoint and reference of a client. */
export type CredentialsProvider = (
  request: CredentialsRequest,
  signal?: AbortSignal,
) => Promise<Credentials | undefined>;

export interface AuthorizerOptions {
  /** As in the URL, with port. */
  host: string;
  credentials?: CredentialsProvider | undefined;
  transport: HttpTransport;
}

/** What a request that may need proof is for. */
interface Purpose {
  scopes: readonly string[];
  reference?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** Tokens are renewed this long before they end. */
const margin = 5_000;

export class Authorizer {
  readonly #options: AuthorizerOptions;
  /** Tokens by their scopes, joined; a promise, so that parallel requests share one fetch. */
  readonly #tokens = new Map<string, Promise<Token>>();
  #challenge: Challenge | undefined;
  /** By reference: a plugin may give each image its own. */
  readonly #credentials = new Map<string, Promise<Credentials | undefined>>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /** The `Authorization` of a request with these scopes; undefined until the host has asked for one. */
  async header({ scopes, reference, signal }: Purpose): Promise<string | undefined> {
    const challenge = this.#challenge;
    if (!challenge) return undefined;
    const credentials = await this.#lookUp({ scopes, reference, signal });
    if (credentials?.kind === 'header') return credentials.value;
    if (challenge.scheme === 'basic') {
      if (credentials?.kind !== 'password')
        throw new AuthorizationError('no basic auth credentials: authorization failed');
      return basic(credentials.username, credentials.secret);
    }
    const token = await this.#token(challenge, scopes, credentials, signal);
    return `Bearer ${token.value}`;
  }

  /**
   * Takes in a 401. True if the request is worth sending again.
   * @throws AuthorizationError if what was sent was refused, or the host asks for what is not known here.
   */
  async challenged(response: HttpResponse, scopes: readonly string[], sent: string | undefined): Promise<boolean> {
    const challenges = parseChallenges(headerValues(response, 'www-authenticate'));
    for (const challenge of challenges) {
      const { scheme, parameters } = challenge;
      if (scheme !== 'bearer' && scheme !== 'basic') continue;
      if (sent !== undefined) {
        // A token may have ended early, or not cover what this request needs: try once with a new one.
        const wanted = parameters.scope?.split(' ') ?? [];
        const covered = wanted.every((scope) => scopes.includes(scope));
        const { error } = parameters;
        if (scheme === 'basic' || (error !== undefined && error !== 'invalid_token' && covered)) {
          throw new AuthorizationError(`server message: ${error ?? 'unauthorized'}: authorization failed`);
        }
        this.#tokens.delete(key(scopes, this.#challenge));
      }
      this.#challenge = challenge;
      return true;
    }
    if (challenges.length === 0) return false;
    throw new AuthorizationError(
      `failed to find supported auth scheme: ${challenges.map(({ scheme }) => scheme).join(', ')}`,
    );
  }

  async #token(
    challenge: Challenge,
    scopes: readonly string[],
    credentials: Credentials | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Token> {
    const id = key(scopes, challenge);
    const known = this.#tokens.get(id);
    if (known) {
      const token = await known;
      if (token.expiresAt - margin > Date.now()) return token;
    }
    // Another request may have begun to renew it while this one waited.
    const current = this.#tokens.get(id);
    if (current && current !== known) return await current;
    const fetching = fetchToken({
      transport: this.#options.transport,
      challenge,
      scopes: mergeScopes([...scopes, ...(challenge.parameters.scope?.split(' ') ?? [])]),
      credentials,
      host: this.#options.host,
      signal,
    });
    this.#tokens.set(id, fetching);
    fetching.catch(() => this.#tokens.delete(id));
    return await fetching;
  }

  async #lookUp({ scopes, reference, signal }: Purpose): Promise<Credentials | undefined> {
    const { host, credentials: provider } = this.#options;
    if (!provider) return undefined;
    const id = reference ?? '';
    const known = this.#credentials.get(id);
    if (known) {
      const credentials = await known;
      if (credentials?.expiresAt === undefined || credentials.expiresAt > Date.now()) return credentials;
    }
    const current = this.#credentials.get(id);
    if (current && current !== known) return await current;
    const looking = provider({ host, reference, scopes }, signal);
    this.#credentials.set(id, looking);
    // One that was cancelled, or failed, says nothing about the next.
    looking.catch(() => this.#credentials.delete(id));
    return await looking;
  }
}

function key(scopes: readonly string[], challenge: Challenge | undefined): string {
  return [challenge?.parameters.realm ?? '', ...scopes].join(' ');
}

export function basic(username: string, secret: string): string {
  return `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`;
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
