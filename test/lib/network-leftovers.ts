import { existsSync, readdirSync } from 'node:fs';
import type { CriLab } from './cri-lab.ts';
import { run } from './processes.ts';
import { mountsBeneath } from './temp-dir.ts';

export const resultCache = '/var/lib/cni/results';

/** All that networks of pods can leave on a machine. */
export interface NetworkLeftovers {
  addresses: string[];
  interfaces: string[];
  namespaces: string[];
  cached: string[];
  noted: string[];
}

export const noLeftovers: NetworkLeftovers = { addresses: [], interfaces: [], namespaces: [], cached: [], noted: [] };

export function namesIn(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

/** Cached results of networks whose names begin with the lab's bridge. */
export function cachedResults({ network }: CriLab): string[] {
  return namesIn(resultCache).filter((name) => name.startsWith(network.bridge));
}

/**
 * What is there of a lab's networks now: leases of host-local in `ipam`, interfaces of bridges and limits (the lab has the network namespace to
 * itself), namespaces under the state directory (`netns_mounts_under_state_dir`), cached results, the daemon's own notes.
 */
export async function networkLeftovers(lab: CriLab): Promise<NetworkLeftovers> {
  const leases = `${lab.directory}/ipam`;
  const netns = `${lab.daemon.state}/io.containerd.grpc.v1.cri/netns`;
  return {
    addresses: namesIn(leases).flatMap((name) => namesIn(`${leases}/${name}`).filter((ip) => /^[\da-f]+[.:]/.test(ip))),
    interfaces: (await run('ip', ['-o', 'link'])).stdout.match(/\b(veth|bwp)\w+/g) ?? [],
    namespaces: [...namesIn(netns), ...mountsBeneath(netns)],
    cached: cachedResults(lab),
    noted: namesIn(`${lab.daemon.root}/io.containerd.grpc.v1.cri/networks`),
  };
}
