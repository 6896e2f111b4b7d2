import type { Credentials } from './authorizer.ts';
import { basic } from './authorizer.ts';
import type { Challenge } from './challenge.ts';
import { AuthorizationError, requestFailed, UnexpectedStatusError } from './http-error.ts';
import type { HttpRequest, HttpResponse, HttpTransport } from './http-transport.ts';
import { readBody } from './http-transport.ts';

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
  /** The registry's host, for messages. */
  host: string;
  signal?: AbortSignal | undefined;
}

/** Token servers answer with a few KB. */
const maxAnswer = 1 << 20;

export async function fetchToken(request: TokenRequest): Promise<Token> {
  const { challenge, credentials } = request;
  const realm = challenge.parameters.realm ?? '';
  if (!/^https?:\/\//.test(realm)) {
    throw new AuthorizationError(`${request.host} named no realm for token auth: authorization failed`);
  }
  const url = new URL(realm);
  if (credentials === undefined || credentials.kind === 'header') {
    return await get(request, url, undefined, 'failed to fetch anonymous token');
  }
  const answer = await post(request, url, credentials);
  if ('token' in answer) return answer.token;
  // Registries without OAuth2 answer 404, 405 or 401 to the POST; they know the GET with a password.
  if (credentials.kind === 'password' && [401, 404, 405].includes(answer.error.status)) {
    return await get(request, url, basic(credentials.username, credentials.secret), 'failed to fetch token');
  }
  throw new AuthorizationError(`failed to fetch oauth token: ${answer.error.message}: authorization failed`, {
    cause: answer.error,
  });
}

async function get(request: TokenRequest, realm: URL, authorization: string | undefined, what: string): Promise<Token> {
  const url = new URL(realm);
  const { service } = request.challenge.parameters;
  if (service !== undefined) url.searchParams.append('service', service);
  for (const scope of request.scopes) url.searchParams.append('scope', scope);
  const headers = authorization === undefined ? {} : { authorization };
  const ask: HttpRequest = { method: 'GET', url, headers, signal: request.signal };
  const response = await request.transport.send(ask);
  const body = await readBody(response, maxAnswer);
  if (response.status < 200 || response.status > 299) {
    const error = new UnexpectedStatusError(ask, response.status, response.statusText, body);
    throw new AuthorizationError(`${what}: ${error.message}: authorization failed`, { cause: error });
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
    headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
    body: new TextEncoder().encode(form.toString()),
    signal: request.signal,
  };
  const response: HttpResponse = await request.transport.send(ask);
  const body = await readBody(response, maxAnswer);
  if (response.status < 200 || response.status > 299) {
    return { error: new UnexpectedStatusError(ask, response.status, response.statusText, body) };
  }
  return { token: readToken(ask, body) };
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
    throw requestFailed(ask, new Error('unable to decode token response', { cause: error }));
  }
  const value = answer.access_token || answer.token;
  if (typeof value !== 'string' || value === '') {
    throw new AuthorizationError('authorization server did not include a token in the response: authorization failed');
  }
  // The distribution specification's default is a minute; clocks differ, so only the length is taken from the server.
  const seconds = typeof answer.expires_in === 'number' && answer.expires_in > 0 ? answer.expires_in : 60;
  return { value, expiresAt: Date.now() + seconds * 1000 };
}
