import { readFile, writeFile } from 'node:fs/promises';
import { hostname as hostHostname } from 'node:os';
import path from 'node:path';
import type { PodSandboxConfig } from '@gantry/api/gen/cri/v1/api_pb.js';
import { hasErrno } from '@gantry/sys';

/** The files of /etc that all containers of a pod share. */

async function readHost(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return '';
    throw error;
  }
}

/** A resolv.conf; undefined if nothing is said of names. Who says that there are none gets an empty one. */
export function resolvConf(dns: PodSandboxConfig['dnsConfig']): string | undefined {
  if (!dns) return undefined;
  const lines: string[] = [];
  if (dns.searches.length > 0) lines.push(`search ${dns.searches.join(' ')}`);
  if (dns.servers.length > 0) lines.push(dns.servers.map((server) => `nameserver ${server}`).join('\n'));
  if (dns.options.length > 0) lines.push(`options ${dns.options.join(' ')}`);
  return lines.map((line) => `${line}\n`).join('');
}

/** Writes hostname, hosts and resolv.conf into the sandbox's directory. @param hostname '' for the machine's */
export async function writeEtcFiles(directory: string, config: PodSandboxConfig, hostname: string): Promise<void> {
  const write = (name: string, text: string): Promise<void> =>
    writeFile(path.join(directory, name), text, { mode: 0o644 });
  await Promise.all([
    write('hostname', `${hostname || hostHostname()}\n`),
    write('hosts', await readHost('/etc/hosts')),
    write('resolv.conf', resolvConf(config.dnsConfig) ?? (await readHost('/etc/resolv.conf'))),
  ]);
}
