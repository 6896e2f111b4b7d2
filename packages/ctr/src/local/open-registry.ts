// The registry as this program itself talks to it (--local), set up by the command's flags.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { Credentials as GivenCredentials } from '@gantry/client';
import type { Credentials, HostsProvider, RegistryClient, TlsOptions } from '@gantry/registry';
import { type Invocation, UsageError } from '../command.ts';
import { credentialsFor } from '../registry-options.ts';

/** @throws Error for files that cannot be read or are no certificates */
export async function openRegistry(invocation: Invocation): Promise<RegistryClient> {
  const tls = tlsOptions(invocation);
  const { defaultHost, hostsFromDirectory, RegistryClient } = await import('@gantry/registry');
  const scheme = invocation.bool('plain-http') ? 'http' : undefined;
  const directory = invocation.string('hosts-dir');
  const credentials = await credentialsFor(invocation);
  const hosts: HostsProvider = directory
    ? withTls(hostsFromDirectory([directory], scheme), tls)
    : async (host) => [defaultHost(host, scheme, tls)];
  const tracing = invocation.bool('http-dump') || invocation.bool('http-trace');
  return new RegistryClient({
    hosts,
    ...(credentials && {
      credentials: async ({ host, reference = '' }) => {
        const given = await credentials({ host, reference, wwwAuthenticate: [] });
        return given && forRegistry(given);
      },
    }),
    ...(tracing && { trace: (line: string) => void process.stderr.write(`${line}\n`) }),
  });
}

function forRegistry(given: GivenCredentials): Credentials {
  if ('refreshToken' in given) return { kind: 'refresh', token: given.refreshToken };
  if ('header' in given) return { kind: 'header', value: given.header };
  return { kind: 'password', username: given.username, secret: given.password };
}

/** What the flags say is for hosts whose file says nothing of TLS. */
function withTls(hosts: HostsProvider, tls: TlsOptions | undefined): HostsProvider {
  if (!tls) return hosts;
  return async (host) =>
    (await hosts(host)).map((found) => (found.scheme === 'https' && !found.tls ? { ...found, tls } : found));
}

function tlsOptions(invocation: Invocation): TlsOptions | undefined {
  const authority = invocation.string('tlscacert');
  const certificate = invocation.string('tlscert');
  const key = invocation.string('tlskey');
  const skipVerify = invocation.bool('skip-verify');
  if ((certificate === '') !== (key === '')) throw new UsageError('flags --tlscert and --tlskey must be set together');
  if (!authority && !certificate && !skipVerify) return undefined;
  const tls: TlsOptions = skipVerify ? { skipVerify } : {};
  if (authority) {
    const pem = read(authority);
    try {
      new X509Certificate(pem);
    } catch (reason) {
      throw new Error(`failed to load TLS CAs from "${authority}": invalid data`, { cause: reason });
    }
    tls.ca = [pem];
  }
  if (certificate) {
    const pair = { cert: read(certificate), key: read(key) };
    try {
      createSecureContext(pair);
    } catch (reason) {
      const why = (reason as Error).message;
      throw new Error(`failed to load TLS client credentials (cert="${certificate}", key="${key}"): ${why}`, {
        cause: reason,
      });
    }
    tls.pairs = [pair];
  }
  return tls;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (reason) {
    throw new Error(`failed to read "${file}": ${(reason as Error).message}`, { cause: reason });
  }
}
