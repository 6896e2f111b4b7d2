import { Code, StatusError } from '@gantry/api';
import type { Challenge } from './challenge.ts';
import { basic, type Credentials } from './credentials.ts';
import { AuthorizationError, safeUrl, UnexpectedStatusError } from './http-error.ts';
import type { HttpRequest, HttpResponse, HttpTransport } from './http-transport.ts';
import { readBody } from './http-transport.ts';
import { patiently } from './patience.ts';
import { scrub } from './redact.ts';

/** Bearer tokens from a token server: OAuth2 by POST when there is a secret, else the older GET. */

export interface Token {
  value: string;
  /** Milliseconds since 1970. */
  expiresAt: number;
}

export interface TokenRequest {
  transport: HttpTransport;
  challenge: Challenge;
  scopes: readonly string[];
  credentials: Credentials | undefined;
  /** The registry's host. */
  host: string;
  /** The registry's own headers; a token server elsewhere gets those that name no user. */
  headers: Readonly<Record<string, string | string[]>>;
  signal?: AbortSignal | undefined;
}

/** Token servers answer with a few KB. */
const maxAnswer = 1 << 20;

export async function fetchToken(request: TokenRequest): Promise<Token> {
  const { challenge, credentials } = request;
  const realm = challenge.parameters.realm ?? '';
  if (!/^https?:\/\//.test(realm) || !URL.canParse(realm)) {
    throw new AuthorizationError(`${request.host} named no realm for token auth: authorization failed`);
  }
  const url = new URL(realm);
  if (credentials === undefined || credentials.kind === 'header') {
    return await get(request, url, undefined, 'failed to fetch anonymous token');
  }
  const answer = await post(request, url, credentials);
  if ('token' in answer) return answer.token;
  // Registries without OAuth2 answer one of these to the POST; they know the GET with a password.
  if (credentials.kind === 'password' && [400, 401, 404, 405].includes(answer.error.status)) {
    return await get(request, url, basic(credentials.username, credentials.secret), 'failed to fetch token');
  }
  throw refused('failed to fetch oauth token', answer.error);
}

/** A token server that is busy, or down, has not refused anybody. */
function refused(what: string, error: UnexpectedStatusError): StatusError {
  if (error.code === Code.Unavailable || error.code === Code.ResourceExhausted) return StatusError.wrap(error, what);
  return new AuthorizationError(`${what}: ${error.message}: authorization failed`, { cause: error });
}

function unexpected(
  request: TokenRequest,
  ask: HttpRequest,
  { status, statusText }: HttpResponse,
  body: Uint8Array,
): UnexpectedStatusError {
  return new UnexpectedStatusError(ask, status, statusText, cleanBody(request, body), '');
}

async function get(request: TokenRequest, realm: URL, authorization: string | undefined, what: string): Promise<Token> {
  const url = new URL(realm);
  const { service } = request.challenge.parameters;
  if (service !== undefined) url.searchParams.append('service', service);
  for (const scope of request.scopes) url.searchParams.append('scope', scope);
  const headers = { ...ownHeaders(request, url), ...(authorization !== undefined && { authorization }) };
  const ask: HttpRequest = { method: 'GET', url, headers, signal: request.signal };
  const response = await patiently(() => request.transport.send(ask), request.signal);
  const body = await readBody(response, maxAnswer);
  if (response.status < 200 || response.status > 299) {
    throw refused(what, unexpected(request, ask, response, body));
  }
  return readToken(ask, body);
}

async function post(
  request: TokenRequest,
  url: URL,
  credentials: Exclude<Credentials, { kind: 'header' }>,
): Promise<{ token: Token } | { error: UnexpectedStatusError }> {
  const form = new URLSearchParams();
  if (request.scopes.length > 0) form.set('scope', request.scopes.join(' '));
  form.set('service', request.challenge.parameters.service ?? '');
  form.set('client_id', 'gantry');
  if (credentials.kind === 'refresh') {
    form.set('grant_type', 'refresh_token');
    form.set('refresh_token', credentials.token);
  } else {
    form.set('grant_type', 'password');
    form.set('username', credentials.username);
    form.set('password', credentials.secret);
  }
  const ask: HttpRequest = {
    method: 'POST',
    url,
    headers: {
      ...ownHeaders(request, url),
      'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
    },
    body: new TextEncoder().encode(form.toString()),
    signal: request.signal,
  };
  const response = await patiently(() => request.transport.send(ask), request.signal);
  const body = await readBody(response, maxAnswer);
  if (response.status < 200 || response.status > 299) {
    return { error: unexpected(request, ask, response, body) };
  }
  return { token: readToken(ask, body) };
}

/** Some servers repeat in their refusal what they were sent. */
function cleanBody({ credentials }: TokenRequest, body: Uint8Array): Uint8Array {
  const secret =
    credentials?.kind === 'password' ? credentials.secret : credentials?.kind === 'refresh' && credentials.token;
  return secret ? Buffer.from(scrub(new TextDecoder().decode(body.subarray(0, 8192)), [secret])) : body;
}

function ownHeaders({ headers, host }: TokenRequest, realm: URL): Record<string, string | string[]> {
  if (realm.host === host) return { ...headers };
  const agent = headers['user-agent'];
  return agent === undefined ? {} : { 'user-agent': agent };
}

interface TokenAnswer {
  token?: string;
  access_token?: string;
  expires_in?: number;
  issued_at?: string;
}

function readToken(ask: HttpRequest, body: Uint8Array): Token {
  let answer: TokenAnswer;
  try {
    answer = JSON.parse(new TextDecoder().decode(body)) as TokenAnswer;
  } catch (error) {
    throw new AuthorizationError(
      `unable to decode token response of ${ask.method} ${safeUrl(ask.url)}: authorization failed`,
      { cause: error },
    );
  }
  const value = answer.access_token || answer.token;
  if (typeof value !== 'string' || value === '') {
    throw new AuthorizationError('authorization server did not include a token in the response: authorization failed');
  }
  // The distribution specification's default is a minute; clocks differ, so only the length is taken from the server.
  const seconds = typeof answer.expires_in === 'number' && answer.expires_in > 0 ? answer.expires_in : 60;
  return { value, expiresAt: Date.now() + seconds * 1000 };
}
