import { Code, StatusError } from '@gantry/api';

/** What a registry answered when it refused: names the request, the status, the registry's own words and what to do. */

/** Thrown inside when credentials were refused; the message that users search for is `authorization failed`. */
export class AuthorizationError extends StatusError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super(Code.Unauthenticated, message, options);
    this.name = 'AuthorizationError';
  }
}

interface RegistryErrors {
  errors?: { code?: string; message?: string; detail?: unknown }[];
  details?: string;
  error?: string;
  error_description?: string;
}

/** The registry's own words out of an error body, at most 500 characters. */
export function describeBody(body: Uint8Array | undefined): string {
  if (!body || body.length === 0) return '';
  const text = new TextDecoder().decode(body);
  try {
    const parsed = JSON.parse(text) as RegistryErrors;
    const words = (parsed.errors ?? [])
      .map(({ code, message }) => [code?.toLowerCase(), message].filter(Boolean).join(': '))
      .concat([parsed.details, parsed.error_description ?? parsed.error].filter((part) => typeof part === 'string'))
      .filter((part) => part !== '');
    if (words.length > 0) return words.join('; ').slice(0, 500);
  } catch {
    // Not JSON: a proxy's page, most likely. Its tags say nothing.
  }
  return text
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
    .slice(0, 500);
}

function advice(status: number, host: string): string {
  if (status === 401) return `log in to ${host} first`;
  if (status === 403) return `check that your account may use this repository at ${host}`;
  if (status === 429) return `${host} limits how often it is asked: log in for a higher limit, or wait`;
  if (status >= 500) return `${host} is in trouble: try again later, or configure a mirror in hosts.toml`;
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
  /** Without query values that may be secrets. */
  url: URL;
}

/** An answer that was not the one hoped for. */
export class UnexpectedStatusError extends StatusError {
  readonly status: number;

  constructor(request: RequestSummary, status: number, statusText: string, body?: Uint8Array) {
    const words = describeBody(body);
    const hint = advice(status, request.url.host);
    const line = `unexpected status from ${request.method} request to ${safeUrl(request.url)}: ${status} ${statusText}`;
    super(codeOf(status), `${line.trimEnd()}${words && `: ${words}`}${hint && ` (${hint})`}`);
    this.name = 'UnexpectedStatusError';
    this.status = status;
  }
}

/** A URL that can be logged: user info and the values of unknown query parameters are hidden. */
export function safeUrl(url: URL): string {
  const copy = new URL(url);
  copy.username = '';
  copy.password = '';
  for (const key of [...copy.searchParams.keys()]) {
    if (!['ns', 'digest', 'mount', 'from', 'scope', 'service', 'artifactType', 'n', 'last'].includes(key)) {
      copy.searchParams.set(key, 'redacted');
    }
  }
  return copy.toString();
}

/** A request that got no answer. */
export function requestFailed(request: RequestSummary, reason: unknown): StatusError {
  if (reason instanceof StatusError) return reason;
  const error = reason as NodeJS.ErrnoException & { errors?: Error[]; cause?: unknown };
  if (error.name === 'AbortError') return new StatusError(Code.Canceled, 'context canceled', { cause: reason });
  const method = request.method.charAt(0) + request.method.slice(1).toLowerCase();
  const inner = error.errors?.map((item) => item.message).join(', ') || error.message || String(reason);
  const hint = transportAdvice(error.code, request.url);
  return new StatusError(
    Code.Unavailable,
    `failed to do request: ${method} "${safeUrl(request.url)}": ${inner}${hint && ` (${hint})`}`,
    { cause: reason },
  );
}

function transportAdvice(code: string | undefined, url: URL): string {
  switch (code) {
    case 'ECONNREFUSED':
      return `nothing listens at ${url.host}`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the name ${url.hostname} cannot be resolved: check the reference and DNS`;
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
      return `the certificate of ${url.host} is not trusted: name its authority as "ca" in hosts.toml`;
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return `${url.host} does not speak TLS: use plain HTTP for it`;
    default:
      return '';
  }
}
