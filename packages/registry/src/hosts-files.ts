import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { parse } from 'smol-toml';
import {
  allCapabilities,
  defaultHost,
  type HostCapability,
  type HostsProvider,
  type RegistryHost,
  splitPort,
  type TlsOptions,
} from './hosts.ts';
import { loadCertificates, readAuthority, readPair } from './hosts-tls.ts';
import { parseProxy } from './proxy.ts';

/**
 * Endpoints from files under a configuration directory, as containerd's hosts.md describes: `<root>/<host>/hosts.toml`,
 * else certificates in Docker's `certs.d` layout, else `<root>/_default`. The first root with a folder for the host counts.
 * Relative roots start at the process's working directory. Read anew on each use, so that an edit counts at the next pull.
 * @throws InvalidArgument for a file that cannot be read as meant: going on without it could ask a registry that must not be.
 */
export function hostsFromDirectory(roots: readonly string[], defaultScheme?: string): HostsProvider {
  return async (host) => {
    for (const root of roots) {
      const directory = await findDirectory(root, host);
      if (directory !== undefined) return await loadDirectory(directory, host, defaultScheme);
    }
    return [defaultHost(host, defaultScheme)];
  };
}

async function findDirectory(root: string, host: string): Promise<string | undefined> {
  if (host.includes('/') || host === '..' || host === '.') throw invalidArgument(`invalid host "${host}"`);
  const { port } = splitPort(host);
  const named = port === '' ? [] : [`${host.slice(0, -port.length - 1)}_${port}_`];
  for (const name of [...named, host, '_default']) {
    const directory = path.join(root, name);
    try {
      await stat(directory);
      return directory;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return undefined;
}

async function loadDirectory(directory: string, host: string, defaultScheme?: string): Promise<RegistryHost[]> {
  const file = path.join(directory, 'hosts.toml');
  let text = '';
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  if (text === '') return [defaultHost(host, defaultScheme, await loadCertificates(directory))];
  try {
    return await parseHostsFile(text, directory, host, defaultScheme);
  } catch (error) {
    throw invalidArgument(`failed to decode ${file}: ${(error as Error).message}`, error);
  }
}

/** The folders of a daemon's `config_path`: several, with colons between. */
export function splitConfigPath(configPath: string): string[] {
  return configPath.split(':').filter((root) => root !== '');
}

type Table = Record<string, unknown>;

const isTable = (value: unknown): value is Table =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Reads the text of a `hosts.toml`. Hosts come in the file's order; its `server`, or the default endpoint, last. */
export async function parseHostsFile(
  text: string,
  directory: string,
  host: string,
  defaultScheme?: string,
): Promise<RegistryHost[]> {
  const document = parse(text) as Table;
  const hosts: RegistryHost[] = [];
  const tables = document.host ?? {};
  if (!isTable(tables)) throw new Error('host: expected tables');
  for (const [address, table] of Object.entries(tables)) {
    if (!isTable(table)) throw new Error(`host."${address}": expected a table`);
    hosts.push(await readHost(address, table, directory));
  }
  const { server } = document;
  if (server !== undefined && typeof server !== 'string') throw new Error('server: expected a string');
  if (server !== undefined && server !== '') {
    hosts.push(await readHost(server, document, directory));
  } else {
    // Settings at the top of a file without a server belong to the registry's own endpoint.
    const settings = await readHost(host, document, directory);
    const { tls, headers, dialTimeout, proxy, credentials } = settings;
    hosts.push({
      // It can do everything, whatever the file says: as containerd has it.
      ...defaultHost(host, defaultScheme, tls),
      headers,
      ...(dialTimeout !== undefined && { dialTimeout }),
      ...(proxy && { proxy }),
      ...(credentials && { credentials }),
    });
  }
  return hosts;
}

async function readHost(address: string, table: Table, directory: string): Promise<RegistryHost> {
  const at = (key: string): string => `"${address}": ${key}`;
  const url = new URL(/^https?:\/\//.test(address) ? address : `https://${address}`);
  const { port } = splitPort(/^(?:https?:\/\/)?([^/?#]*)/.exec(address)?.[1] ?? '');
  let prefix = url.pathname.replace(/\/+$/, '');
  if (table.override_path !== true && !prefix.endsWith('/v2')) prefix += '/v2';
  const host: RegistryHost = {
    scheme: url.protocol === 'http:' ? 'http' : 'https',
    // A URL forgets the port that is its scheme's own; mirrors are told from registries by what is written.
    host: port === '' || url.port !== '' ? url.host : `${url.host}:${port}`,
    path: prefix,
    capabilities: readCapabilities(table.capabilities, at('capabilities')),
    headers: readHeaders(table.header, at('header')),
  };
  const credentials = readProviders(table.credentials, at('credentials'));
  if (credentials) host.credentials = credentials;
  const tls = await readTls(table, directory, at);
  if (tls) host.tls = tls;
  if (table.dial_timeout !== undefined) host.dialTimeout = readDuration(table.dial_timeout, at('dial_timeout'));
  if (table.proxy !== undefined) host.proxy = readProxy(table.proxy, at('proxy'));
  if (host.scheme === 'http' && tls && port !== '80') {
    host.scheme = 'https';
    host.httpFallback = true;
  }
  return host;
}

function readProxy(value: unknown, where: string): URL {
  if (typeof value !== 'string' || !value.includes('://')) {
    throw new Error(`${where}: expected a URL such as "http://proxy:8080"`);
  }
  return parseProxy(value, where);
}

function readCapabilities(value: unknown, where: string): readonly HostCapability[] {
  if (value === undefined) return allCapabilities;
  if (!Array.isArray(value)) throw new Error(`${where}: expected an array of strings`);
  if (value.length === 0) return allCapabilities;
  return value.map((item) => {
    const name = String(item).toLowerCase() as HostCapability;
    if (!allCapabilities.includes(name)) throw new Error(`unknown capability ${item}`);
    return name;
  });
}

/** Gantry's own `credentials` table: `providers` names those of the daemon's configuration that are asked for this host. */
function readProviders(value: unknown, where: string): readonly string[] | undefined {
  if (value === undefined) return undefined;
  if (!isTable(value)) throw new Error(`${where}: expected a table`);
  const { providers, ...others } = value;
  const [other] = Object.keys(others);
  // A password would be looked for here by nobody: better no registry than a secret in a file.
  if (other !== undefined) throw new Error(`${where}.${other}: unknown key, only providers is known`);
  return providers === undefined ? undefined : strings(providers, `${where}.providers`);
}

function readHeaders(value: unknown, where: string): Record<string, string[]> {
  if (value === undefined) return {};
  if (!isTable(value)) throw new Error(`${where}: expected a table`);
  const headers: Record<string, string[]> = {};
  for (const [name, item] of Object.entries(value)) headers[name] = strings(item, `${where}.${name}`);
  return headers;
}

function strings(value: unknown, where: string): string[] {
  const list = Array.isArray(value) ? value : [value];
  for (const item of list) if (typeof item !== 'string') throw new Error(`${where}: expected strings`);
  return list as string[];
}

async function readTls(table: Table, directory: string, at: (key: string) => string): Promise<TlsOptions | undefined> {
  const tls: TlsOptions = {};
  const resolve = (file: string): string => (file === '' ? '' : path.resolve(directory, file));
  if (table.ca !== undefined) {
    tls.ca = await Promise.all(strings(table.ca, at('ca')).map((file) => readAuthority(resolve(file))));
  }
  if (table.client !== undefined) {
    const entries = Array.isArray(table.client) ? table.client : [table.client];
    tls.pairs = await Promise.all(
      entries.map(async (entry) => {
        const files = strings(entry, at('client'));
        if (Array.isArray(entry) && files.length !== 2) throw new Error(`${at('client')}: invalid pair`);
        return await readPair(resolve(files[0] ?? ''), resolve(files[1] ?? ''));
      }),
    );
  }
  if (table.skip_verify !== undefined) {
    if (typeof table.skip_verify !== 'boolean') throw new Error(`${at('skip_verify')}: expected true or false`);
    tls.skipVerify = table.skip_verify;
  }
  return Object.keys(tls).length > 0 ? tls : undefined;
}

const units: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

function readDuration(value: unknown, where: string): number {
  if (typeof value !== 'string' || !/^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$/.test(value)) {
    throw new Error(`${where}: expected a duration such as "10s"`);
  }
  let millis = 0;
  for (const [, number, unit] of value.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) {
    millis += Number(number) * (units[unit ?? ''] ?? 0);
  }
  return millis;
}
