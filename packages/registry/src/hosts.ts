import { isIP } from 'node:net';

/** Where a registry is reached: its endpoints in the order they are tried, and how each is to be talked to. */

export type HostCapability = 'pull' | 'resolve' | 'push' | 'referrers';

export const allCapabilities: readonly HostCapability[] = ['pull', 'resolve', 'push', 'referrers'];

export interface TlsOptions {
  /** PEM texts trusted besides the system's. */
  ca?: string[];
  /** PEM texts of client certificates and their keys. */
  pairs?: { cert: string; key: string }[];
  skipVerify?: boolean;
}

export interface RegistryHost {
  scheme: 'http' | 'https';
  /** Host and port as in the URL. */
  host: string;
  /** Path prefix, usually `/v2`; without a slash at its end. */
  path: string;
  capabilities: readonly HostCapability[];
  /** Sent with each request to this host. */
  headers: Readonly<Record<string, readonly string[]>>;
  tls?: TlsOptions;
  /** Names of the credential providers to ask for this host, in this order; absent: the usual ones. */
  credentials?: readonly string[];
  /** Milliseconds to connect. */
  dialTimeout?: number;
  /** What its connections go through, instead of what the environment names. */
  proxy?: URL;
  /** Tries HTTPS, and HTTP if what answers does not speak TLS: containerd's rule for localhost with an unknown port. */
  httpFallback?: boolean;
}

/** The endpoints of a registry name, best first. An empty list means that it must not be reached at all. */
export type HostsProvider = (host: string) => Promise<RegistryHost[]>;

/** `localhost`, or a loopback address, with or without a port. */
export function isLocalhost(host: string): boolean {
  const { name } = splitPort(host);
  if (name === 'localhost') return true;
  return (isIP(name) === 4 && name.startsWith('127.')) || name === '::1';
}

export function splitPort(host: string): { name: string; port: string } {
  const found = /^(.*?)(?::(\d+))?$/.exec(host);
  const bare = found?.[1] ?? host;
  // Without brackets more than one colon is an IPv6 address without a port.
  if (!host.startsWith('[') && host.split(':').length > 2) return { name: host, port: '' };
  return { name: bare.replace(/^\[(.*)\]$/, '$1'), port: found?.[2] ?? '' };
}

/**
 * The endpoint of a registry that nothing is configured for: docker.io's own host; localhost on port 80 by HTTP, on 443 or
 * none by unverified HTTPS, on other ports by unverified HTTPS and then HTTP; others by HTTPS.
 */
export function defaultHost(host: string, defaultScheme?: string, tls?: TlsOptions): RegistryHost {
  const base = { path: '/v2', capabilities: allCapabilities, headers: {} };
  if (host === 'docker.io') return { ...base, scheme: 'https', host: 'registry-1.docker.io', ...(tls && { tls }) };
  if (isLocalhost(host) && !defaultScheme) {
    const { port } = splitPort(host);
    if (port === '80') return { ...base, scheme: 'http', host };
    const unverified = { ...tls, skipVerify: true };
    if (port === '' || port === '443') return { ...base, scheme: 'https', host, tls: unverified };
    return { ...base, scheme: 'https', host, tls: unverified, httpFallback: true };
  }
  const scheme = defaultScheme === 'http' ? 'http' : 'https';
  // TLS settings for a host asked for by HTTP: containerd then tries HTTPS first.
  if (scheme === 'http' && tls && splitPort(host).port !== '80') {
    return { ...base, scheme: 'https', host, tls, httpFallback: true };
  }
  return { ...base, scheme, host, ...(tls && { tls }) };
}

/** The endpoints when no directory of host files is configured. */
export function defaultHosts(defaultScheme?: string): HostsProvider {
  return async (host) => [defaultHost(host, defaultScheme)];
}
