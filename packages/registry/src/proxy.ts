import { BlockList, isIP } from 'node:net';
import { invalidArgument } from '@gantry/api';
import { splitPort } from './hosts.ts';

/** Which proxy a request goes through, by the rules that containerd and most Go programs have. */

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * `HTTPS_PROXY` or `HTTP_PROXY` by the URL's scheme (upper case before lower), unless `NO_PROXY` names the host. Loopback
 * hosts are never reached through a proxy. undefined: directly.
 * @throws InvalidArgument for a variable that is no proxy's address.
 */
export function environmentProxy(url: URL, environment: Environment = process.env): URL | undefined {
  const get = (name: string): string => environment[name] || environment[name.toLowerCase()] || '';
  const name = url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const value = get(name);
  if (value === '' || isLoopback(url) || excluded(url, get('NO_PROXY'))) return undefined;
  return parseProxy(value, name);
}

const schemes = ['http:', 'https:', 'socks5:', 'socks5h:'];

/** The address of a proxy; without a scheme it is an HTTP one. @throws InvalidArgument, without what may be a password in it. */
export function parseProxy(value: string, where: string): URL {
  let url: URL | undefined;
  try {
    url = new URL(value.includes('://') ? value : `http://${value}`);
  } catch {
    // Said below.
  }
  if (!url || !schemes.includes(url.protocol) || url.hostname === '') {
    throw invalidArgument(`${where}: not the address of an http, https or socks5 proxy`);
  }
  if (url.pathname.length > 1 || url.search !== '' || url.hash !== '') {
    throw invalidArgument(`${where}: a proxy has no path, query or fragment`);
  }
  return url;
}

function bareName(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1').toLowerCase();
}

function isLoopback(url: URL): boolean {
  const name = bareName(url);
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

function excluded(url: URL, list: string): boolean {
  const name = bareName(url);
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  for (const entry of list.split(',').map((part) => part.trim().toLowerCase())) {
    if (entry === '') continue;
    if (entry === '*' || matches(entry, name, port)) return true;
  }
  return false;
}

function matches(entry: string, name: string, port: string): boolean {
  const [network = '', bits] = entry.split('/');
  const family = isIP(network) === 6 ? 'ipv6' : 'ipv4';
  if (bits !== undefined) {
    if (isIP(network) === 0 || !/^\d{1,3}$/.test(bits) || isIP(name) !== isIP(network)) return false;
    const block = new BlockList();
    block.addSubnet(network, Math.min(Number(bits), family === 'ipv6' ? 128 : 32), family);
    return block.check(name, family);
  }
  const { name: host, port: only } = splitPort(entry);
  if (only !== '' && only !== port) return false;
  if (isIP(host) !== 0) return host === name;
  // `.example.com` and `*.example.com` are its hosts alone, `example.com` itself too.
  const suffix = host.startsWith('*.') ? host.slice(1) : host;
  return suffix.startsWith('.') ? name.endsWith(suffix) : name === suffix || name.endsWith(`.${suffix}`);
}
