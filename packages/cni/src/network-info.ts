import { stringifyJson } from '@gantry/oci';
import type { NetworkConfig, PluginConfig } from './network-config.ts';

/** A network, and the interface that it gives pods. */
export interface NamedNetwork {
  network: NetworkConfig;
  interfaceName: string;
}

/** How containerd shows what is configured, in its `cniconfig`. */
export function describeNetworks(networks: readonly NamedNetwork[]): object[] {
  return networks.map(({ network, interfaceName }) => ({
    Config: {
      Name: network.name,
      CNIVersion: network.cniVersion,
      Plugins: network.plugins.map((plugin) => ({
        Network: summary(plugin),
        Source: stringifyJson(sorted(plugin)),
      })),
      Source: network.source,
    },
    IFName: interfaceName,
  }));
}

function summary({ cniVersion, name, type, capabilities, ipam, dns }: PluginConfig): object {
  const ipamType = (ipam as { type?: unknown } | undefined)?.type;
  return {
    ...(cniVersion ? { cniVersion } : {}),
    ...(name ? { name } : {}),
    type,
    ...(capabilities && Object.keys(capabilities).length > 0 && { capabilities }),
    ipam: ipamType ? { type: ipamType } : {},
    ...(dns && Object.keys(dns).length > 0 ? { dns } : {}),
  };
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, sorted(item)]));
}
