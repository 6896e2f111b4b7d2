import { readFile } from 'node:fs/promises';
import { invalidArgument } from '@gantry/api';
import {
  type Credentials,
  type CredentialsProvider,
  defaultHost,
  type HostsProvider,
  type RegistryHost,
  type TlsOptions,
} from '@gantry/registry';
import type { ImagesConfig } from '../config/images-config.ts';

/**
 * `registry.mirrors`, `configs` and `auths`, deprecated for long: understood as hosts and logins, so that they go the way that all pulls go,
 * past the verifiers.
 */

interface LegacyAuth {
  username?: string;
  password?: string;
  auth?: string;
  identitytoken?: string;
}

interface LegacyTls {
  insecure_skip_verify?: boolean;
  ca_file?: string;
  cert_file?: string;
  key_file?: string;
}

interface LegacyRegistry {
  mirrors: Record<string, { endpoint?: string[] }>;
  configs: Record<string, { auth?: LegacyAuth; tls?: LegacyTls }>;
  auths: Record<string, LegacyAuth>;
}

/** undefined where nothing of it is set. @throws InvalidArgument for mirrors beside `config_path`, as with containerd */
export function legacyRegistry(
  registry: ImagesConfig['registry'],
): { hosts: HostsProvider | undefined; credentials: CredentialsProvider | undefined } | undefined {
  const legacy: LegacyRegistry = {
    mirrors: registry.mirrors ?? {},
    configs: (registry.configs ?? {}) as LegacyRegistry['configs'],
    auths: (registry.auths ?? {}) as LegacyRegistry['auths'],
  };
  const hasMirrors = Object.keys(legacy.mirrors).length > 0;
  const hasTls = Object.values(legacy.configs).some(({ tls }) => tls !== undefined);
  if (registry.config_path !== '' && (hasMirrors || hasTls)) {
    const key = hasMirrors ? 'mirrors' : 'configs.tls';
    throw invalidArgument(`\`${key}\` cannot be set when \`config_path\` is provided: invalid argument`);
  }
  const logins = loginsOf(legacy);
  if (!hasMirrors && !hasTls && logins.size === 0) return undefined;
  return {
    hosts: hasMirrors || hasTls ? (host) => hostsOf(legacy, host) : undefined,
    credentials: logins.size > 0 ? async ({ host }) => logins.get(host) : undefined,
  };
}

async function hostsOf(legacy: LegacyRegistry, host: string): Promise<RegistryHost[]> {
  const endpoints = legacy.mirrors[host]?.endpoint ?? legacy.mirrors['*']?.endpoint ?? [];
  const hosts: RegistryHost[] = [];
  for (const endpoint of endpoints) {
    let url: URL;
    try {
      url = new URL(endpoint.includes('://') ? endpoint : `https://${endpoint}`);
    } catch (error) {
      throw invalidArgument(
        `parse registry endpoint ${JSON.stringify(endpoint)} from mirrors: invalid argument`,
        error,
      );
    }
    const tls = await tlsOf(legacy.configs[url.host]?.tls);
    const path = url.pathname === '/' ? '/v2' : url.pathname.replace(/\/$/, '');
    hosts.push({
      scheme: url.protocol === 'http:' ? 'http' : 'https',
      host: url.host,
      path,
      capabilities: ['pull', 'resolve'],
      headers: {},
      ...(tls && { tls }),
    });
  }
  const own = defaultHost(host, undefined, await tlsOf(legacy.configs[host]?.tls));
  if (!hosts.some((known) => known.host === own.host)) hosts.push(own);
  return hosts;
}

async function tlsOf(tls: LegacyTls | undefined): Promise<TlsOptions | undefined> {
  if (!tls) return undefined;
  const read = async (file: string): Promise<string> => {
    try {
      return await readFile(file, 'utf8');
    } catch (error) {
      throw invalidArgument(`failed to load ${file}: ${(error as Error).message}: invalid argument`, error);
    }
  };
  return {
    ...(tls.insecure_skip_verify && { skipVerify: true }),
    ...(tls.ca_file && { ca: [await read(tls.ca_file)] }),
    ...(tls.cert_file &&
      tls.key_file && { pairs: [{ cert: await read(tls.cert_file), key: await read(tls.key_file) }] }),
  };
}

function loginsOf({ configs, auths }: LegacyRegistry): Map<string, Credentials> {
  const logins = new Map<string, Credentials>();
  for (const [url, auth] of Object.entries(auths)) add(logins, hostOfUrl(url), auth);
  for (const [host, { auth }] of Object.entries(configs)) if (auth) add(logins, host, auth);
  return logins;
}

function hostOfUrl(url: string): string {
  try {
    return new URL(url.includes('://') ? url : `https://${url}`).host;
  } catch (error) {
    throw invalidArgument(`failed to parse auth url ${JSON.stringify(url)}: invalid argument`, error);
  }
}

function add(logins: Map<string, Credentials>, name: string, auth: LegacyAuth): void {
  const host = name === 'docker.io' || name === 'index.docker.io' ? 'registry-1.docker.io' : name;
  if (auth.username) logins.set(host, { kind: 'password', username: auth.username, secret: auth.password ?? '' });
  else if (auth.identitytoken) logins.set(host, { kind: 'refresh', token: auth.identitytoken });
  else if (auth.auth) {
    const text = Buffer.from(auth.auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon < 0) throw invalidArgument(`auth of registry ${name} is not a name and a password: invalid argument`);
    logins.set(host, { kind: 'password', username: text.slice(0, colon), secret: text.slice(colon + 1) });
  }
}
