import { Code, StatusError } from '@gantry/api';
import { scrub } from './redact.ts';
import { transportFailure } from './transport-failure.ts';

/** What a registry answered when it refused: names the request, the status, the registry's own words and what to do. */

/** Thrown when credentials were refused or missing; what users search for is `authorization failed`. */
export class AuthorizationError extends StatusError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super(Code.Unauthenticated, message, options);
    this.name = 'AuthorizationError';
  }

  /** The same, with the request that could not be made. */
  during(request: RequestSummary): AuthorizationError {
    const advice = loginAdvice(registryName(request.url.host));
    const what = `${request.method} ${safeUrl(request.url)}: 401 Unauthorized; ${advice}`;
    return new AuthorizationError(`${this.message} (${what})`, { cause: this.cause });
  }
}

/** The name that images, and logins, have for an endpoint. */
export function registryName(host: string): string {
  return host === 'registry-1.docker.io' ? 'docker.io' : host;
}

/** How to log in to a registry, by the name that images have it by. */
export function loginAdvice(registry: string): string {
  return `log in with "ctr registry login ${registry}", or pass --user`;
}

interface RegistryErrors {
  errors?: { code?: string; message?: string; detail?: unknown }[];
  details?: string;
  error?: string;
  error_description?: string;
}

/** The registry's own words out of an error body, at most 500 characters, without what looks like a secret. */
export function describeBody(body: Uint8Array | undefined): string {
  if (!body || body.length === 0) return '';
  // Nobody reads more, and the patterns below take long on a hostile one.
  const text = new TextDecoder().decode(body.subarray(0, 8192));
  return scrub(wordsOf(text) ?? withoutTags(text)).slice(0, 500);
}

function wordsOf(text: string): string | undefined {
  try {
    const parsed = JSON.parse(text) as RegistryErrors;
    const words = (parsed.errors ?? [])
      .map(({ code, message }) => [code?.toLowerCase(), message].filter(Boolean).join(': '))
      .concat([parsed.details, parsed.error_description ?? parsed.error].filter((part) => typeof part === 'string'))
      .filter((part) => part !== '');
    return words.length > 0 ? words.join('; ') : undefined;
  } catch {
    return undefined;
  }
}

/** A proxy's page, most likely. Its tags say nothing. */
function withoutTags(text: string): string {
  return text
    .replace(/<[^<>]*>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
}

function advice(status: number, host: string, words: string): string {
  if (status === 401) return loginAdvice(host);
  if (status === 403) return `check that your account may use this repository at ${host}`;
  if (status === 407) return 'the proxy wants a login: put it into its address, as http://user:password@proxy:port';
  if (status === 429) return `${host} limits how often it is asked: log in for a higher limit, or wait`;
  if (status >= 500) return `${host} is in trouble: try again later, or configure a mirror in hosts.toml`;
  if (/sent an HTTP request to an HTTPS (?:server|port)/i.test(words)) {
    return `${host} speaks TLS: leave out --plain-http, or name it with https:// in hosts.toml`;
  }
  return '';
}

function codeOf(status: number): Code {
  if (status === 404) return Code.NotFound;
  if (status === 401) return Code.Unauthenticated;
  if (status === 403) return Code.PermissionDenied;
  if (status === 429) return Code.ResourceExhausted;
  if (status >= 500) return Code.Unavailable;
  return Code.Unknown;
}

export interface RequestSummary {
  method: string;
  url: URL;
}

/** An answer that was not the one hoped for. */
export class UnexpectedStatusError extends StatusError {
  readonly status: number;

  /** `host`: who the advice is about; '' for none. */
  constructor(
    request: RequestSummary,
    status: number,
    statusText: string,
    body?: Uint8Array,
    host = registryName(request.url.host),
  ) {
    const words = describeBody(body);
    const hint = host === '' ? '' : advice(status, host, words);
    const line = `unexpected status from ${request.method} request to ${safeUrl(request.url)}: ${status} ${statusText}`;
    super(codeOf(status), `${line.trimEnd()}${words && `: ${words}`}${hint && ` (${hint})`}`);
    this.name = 'UnexpectedStatusError';
    this.status = status;
  }
}

const harmlessParameters = new Set(['ns', 'digest', 'mount', 'from', 'scope', 'service', 'artifactType', 'n', 'last']);

/** A URL that can be shown: user info and the values of unknown query parameters are hidden. */
export function safeUrl(url: URL): string {
  const copy = new URL(url);
  copy.username = '';
  copy.password = '';
  for (const key of new Set(copy.searchParams.keys())) {
    if (!harmlessParameters.has(key)) copy.searchParams.set(key, 'REDACTED');
  }
  return copy.toString();
}

/** A request that got no answer, or whose answer broke off. */
export function requestFailed(request: RequestSummary, reason: unknown): StatusError {
  if (reason instanceof StatusError) return reason;
  if ((reason as Error).name === 'AbortError')
    return new StatusError(Code.Canceled, 'context canceled', { cause: reason });
  const method = request.method.charAt(0) + request.method.slice(1).toLowerCase();
  return new StatusError(
    Code.Unavailable,
    `failed to do request: ${method} "${safeUrl(request.url)}": ${transportFailure(reason, request.url)}`,
    { cause: reason },
  );
}
