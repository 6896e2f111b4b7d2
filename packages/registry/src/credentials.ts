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
  /** What the endpoint said that it wants: values of `WWW-Authenticate`. Absent if it was not asked, as when a token is at hand. */
  challenges?: readonly string[];
  /** Names of the providers that the host's configuration wants asked; absent: the usual ones. */
  providers?: readonly string[] | undefined;
}

/** Looks up credentials; undefined for anonymous access. Asked once for each endpoint and reference of a client. */
export type CredentialsProvider = (
  request: CredentialsRequest,
  signal?: AbortSignal,
) => Promise<Credentials | undefined>;

/** The header's value for a name and a password. */
export function basic(username: string, secret: string): string {
  return `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`;
}
