import type { Credentials } from './credentials.ts';

/** Docker's client configuration (`~/.docker/config.json`): which helper keeps a registry's login, or the login itself. */
export interface DockerConfig {
  auths?: Record<string, DockerAuth>;
  /** The helper for all registries that have none of their own: `pass` is the program `docker-credential-pass`. */
  credsStore?: string;
  /** Helpers by registry. */
  credHelpers?: Record<string, string>;
  [other: string]: unknown;
}

export interface DockerAuth {
  /** Base64 of `name:password`. */
  auth?: string;
  username?: string;
  password?: string;
  /** A refresh token. */
  identitytoken?: string;
  /** A bearer token. */
  registrytoken?: string;
  [other: string]: unknown;
}

const isTable = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** @throws Error that says what is wrong and never what is in it */
export function parseDockerConfig(text: string): DockerConfig {
  let value: unknown;
  try {
    value = JSON.parse(text.trim() === '' ? '{}' : text);
  } catch {
    // The parser's own words quote the text, which may be a secret.
    throw new Error('it is not JSON');
  }
  if (!isTable(value)) throw new Error('it is not a JSON object');
  const { auths = {}, credHelpers = {}, credsStore = '' } = value;
  if (!isTable(auths) || !Object.values(auths).every(isTable)) throw new Error('auths is not an object of objects');
  if (!isTable(credHelpers) || Object.values(credHelpers).some((name) => typeof name !== 'string')) {
    throw new Error('credHelpers is not an object of strings');
  }
  if (typeof credsStore !== 'string') throw new Error('credsStore is not a string');
  return value as DockerConfig;
}

const dockerHub = 'https://index.docker.io/v1/';

/** The name under which Docker keeps the login of a registry: its host, but for Docker Hub. */
export function dockerServerKey(host: string): string {
  return ['docker.io', 'index.docker.io', 'registry-1.docker.io'].includes(host) ? dockerHub : host;
}

/** The name of the helper that keeps a registry's login, if it is kept by one. */
export function dockerHelperFor(config: DockerConfig, host: string): string | undefined {
  const name = config.credHelpers?.[dockerServerKey(host)] ?? config.credHelpers?.[host] ?? config.credsStore;
  return name === undefined || name === '' ? undefined : name;
}

/** The login of a registry that stands in the file itself. */
export function dockerAuthOf(config: DockerConfig, host: string): Credentials | undefined {
  const auths = config.auths ?? {};
  const key = dockerServerKey(host);
  const entry = auths[key] ?? Object.entries(auths).find(([name]) => hostOfKey(name) === hostOfKey(key))?.[1];
  if (!entry) return undefined;
  const { identitytoken, registrytoken } = entry;
  if (identitytoken) return { kind: 'refresh', token: identitytoken };
  if (registrytoken) return { kind: 'header', value: `Bearer ${registrytoken}` };
  const [username, secret] = entry.auth ? decodeAuth(entry.auth) : [entry.username ?? '', entry.password ?? ''];
  return username === '' || secret === '' ? undefined : { kind: 'password', username, secret };
}

/** Keys of old files are URLs. */
function hostOfKey(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
}

function decodeAuth(auth: string): [string, string] {
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon < 0) return ['', ''];
  // Docker once padded passwords with NULs.
  return [text.slice(0, colon), text.slice(colon + 1).replace(/^\0+|\0+$/g, '')];
}

/** The file with a login in it; `secret` is left out where a helper keeps it. */
export function withDockerAuth(
  config: DockerConfig,
  host: string,
  login: { username: string; secret: string } | undefined,
): DockerConfig {
  const entry = login ? { auth: Buffer.from(`${login.username}:${login.secret}`).toString('base64') } : {};
  return { ...config, auths: { ...config.auths, [dockerServerKey(host)]: entry } };
}

/** The file without a registry's login. */
export function withoutDockerAuth(config: DockerConfig, host: string): DockerConfig {
  const gone = hostOfKey(dockerServerKey(host));
  const kept = Object.entries(config.auths ?? {}).filter(([name]) => hostOfKey(name) !== gone);
  return { ...config, auths: Object.fromEntries(kept) };
}
