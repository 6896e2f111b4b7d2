import type { CniResult } from './pod-network.ts';

/** What ADD prints (CNI specification 0.3 to 1.1). */
export interface PluginResult {
  cniVersion?: string;
  interfaces?: { name: string; mac?: string; sandbox?: string; pciID?: string; socketPath?: string }[];
  ips?: { address: string; gateway?: string; interface?: number }[];
  routes?: { dst: string; gw?: string }[];
  dns?: Record<string, unknown>;
}

/** One result of several networks, with the loopback interface that the namespace was made with. */
export function combineResults(results: readonly PluginResult[], netns: string): CniResult {
  const combined: CniResult = {
    Interfaces: {
      lo: {
        IPConfigs: [
          { IP: '127.0.0.1', Gateway: '' },
          { IP: '::1', Gateway: '' },
        ],
        Mac: '00:00:00:00:00:00',
        Sandbox: netns,
        PciID: '',
        SocketPath: '',
      },
    },
    DNS: [{}],
    Routes: null,
  };
  for (const [index, result] of results.entries()) {
    const names = (result.interfaces ?? []).map(({ name }) => name);
    for (const { name, mac = '', sandbox = '', pciID = '', socketPath = '' } of result.interfaces ?? []) {
      combined.Interfaces[name] = { IPConfigs: null, Mac: mac, Sandbox: sandbox, PciID: pciID, SocketPath: socketPath };
    }
    for (const { address, gateway = '', interface: at } of result.ips ?? []) {
      // Before 0.3 results did not say which interface an address is on.
      const name = (at === undefined ? undefined : names[at]) ?? `eth${index}`;
      const config = { IP: address.split('/')[0] ?? '', Gateway: gateway };
      combined.Interfaces[name] ??= { IPConfigs: null, Mac: '', Sandbox: netns, PciID: '', SocketPath: '' };
      const entry = combined.Interfaces[name];
      entry.IPConfigs = [...(entry.IPConfigs ?? []), config];
    }
    combined.DNS?.push(result.dns ?? {});
    if (result.routes && result.routes.length > 0) combined.Routes = [...(combined.Routes ?? []), ...result.routes];
  }
  return combined;
}

/** The pod's address (of eth0) by preference, and the others in their order. */
export function chooseAddresses(result: CniResult, preference: string): { ip: string; additionalIps: string[] } {
  const all = (result.Interfaces['eth0']?.IPConfigs ?? []).map(({ IP }) => IP);
  const isV6 = (ip: string): boolean => ip.includes(':');
  const wanted =
    preference === 'ipv6' ? all.find(isV6) : preference === 'cni' ? undefined : all.find((ip) => !isV6(ip));
  const ip = wanted ?? all[0] ?? '';
  return { ip, additionalIps: all.filter((other) => other !== ip) };
}
