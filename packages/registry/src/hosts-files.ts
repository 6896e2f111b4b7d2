import { readdir, readFile, stat } from 'node:fs/promises';
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

/**
 * Endpoints from files under a configuration directory, as containerd's hosts.md describes: `<root>/<host>/hosts.toml`,
 * else certificates in Docker's `certs.d` layout, else `<root>/_default`. Read anew on each use, so that an edit counts
 * at the next pull.
 */
export function hostsFromDirectory(roots: string, defaultScheme?: string): HostsProvider {
  const list = roots.split(':').filter((root) => root !== '');
  return async (host) => {
    for (const root of list) {
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

/** Docker's layout: `*.crt` are authorities, `x.cert` with `x.key` a client's pair. */
async function loadCertificates(directory: string): Promise<TlsOptions | undefined> {
  const names = (await readdir(directory)).sort();
  const tls: TlsOptions = {};
  for (const name of names) {
    const file = path.join(directory, name);
    if (name.endsWith('.crt')) {
      tls.ca = [...(tls.ca ?? []), await readFile(file, 'utf8')];
    } else if (name.endsWith('.cert')) {
      const key = `${name.slice(0, -5)}.key`;
      if (!names.includes(key)) throw invalidArgument(`missing key ${key} for client certificate ${name}`);
      const pair = { cert: await readFile(file, 'utf8'), key: await readFile(path.join(directory, key), 'utf8') };
      tls.pairs = [...(tls.pairs ?? []), pair];
    }
  }
  return tls.ca || tls.pairs ? tls : undefined;
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
    const own = defaultHost(host, defaultScheme, settings.tls);
    const merged = { ...own, headers: settings.headers, capabilities: settings.capabilities };
    hosts.push(settings.dialTimeout === undefined ? merged : { ...merged, dialTimeout: settings.dialTimeout });
  }
  return hosts;
}

async function readHost(address: string, table: Table, directory: string): Promise<RegistryHost> {
  const at = (key: string): string => `"${address}": ${key}`;
  const url = new URL(/^https?:\/\//.test(address) ? address : `https://${address}`);
  let prefix = url.pathname.replace(/\/+$/, '');
  if (table.override_path !== true && !prefix.endsWith('/v2')) prefix += '/v2';
  const host: RegistryHost = {
    scheme: url.protocol === 'http:' ? 'http' : 'https',
    host: url.host,
    path: prefix,
    capabilities: readCapabilities(table.capabilities, at('capabilities')),
    headers: readHeaders(table.header, at('header')),
  };
  const tls = await readTls(table, directory, at);
  if (tls) host.tls = tls;
  if (table.dial_timeout !== undefined) host.dialTimeout = readDuration(table.dial_timeout, at('dial_timeout'));
  if (host.scheme === 'http' && tls && splitPort(url.host).port !== '' && url.port !== '80') {
    host.scheme = 'https';
    host.httpFallback = true;
  }
  return host;
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
  const read = (file: string): Promise<string> => readFile(path.resolve(directory, file), 'utf8');
  if (table.ca !== undefined) tls.ca = await Promise.all(strings(table.ca, at('ca')).map(read));
  if (table.client !== undefined) {
    const entries = Array.isArray(table.client) ? table.client : [table.client];
    tls.pairs = await Promise.all(
      entries.map(async (entry) => {
        const [cert = '', key = ''] = strings(entry, at('client'));
        return { cert: await read(cert), key: await read(key === '' ? cert : key) };
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
