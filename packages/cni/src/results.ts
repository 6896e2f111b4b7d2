import { unknown } from '@gantry/api';
import { isIpv6 } from './ip-address.ts';
import type { PluginResult } from './plugin-result.ts';
import type { CniResult } from './pod-network.ts';

type NamedInterface = CniResult['Interfaces'][string];

/** What every kernel gives a loopback interface that is up. */
const loopbackAddresses = ['127.0.0.1', '::1'];

const bare: NamedInterface = { IPConfigs: null, Mac: '', Sandbox: '', PciID: '', SocketPath: '' };

/** The interface that a pod's addresses are those of. */
export const defaultInterface = 'eth0';

/** One result of several networks. An address that is on no interface is on the default one. @throws StatusError Unknown for one that contradicts itself */
export function combineResults(results: readonly PluginResult[]): CniResult {
  const combined: CniResult = { Interfaces: { [defaultInterface]: { ...bare } }, DNS: [], Routes: null };
  for (const { interfaces = [], ips = [], routes = [], dns = {} } of results) {
    for (const { name, mac = '', sandbox = '', pciID = '', socketPath = '' } of interfaces) {
      combined.Interfaces[name] = { ...bare, Mac: mac, Sandbox: sandbox, PciID: pciID, SocketPath: socketPath };
    }
    for (const { address, gateway = '', interface: at } of ips) {
      const name = at === undefined ? defaultInterface : interfaces[at]?.name;
      if (name === undefined) {
        throw unknown(
          `invalid interface config: invalid IP configuration (interface number ${at} is > number of interfaces ${interfaces.length}): invalid result`,
        );
      }
      const entry = combined.Interfaces[name] as NamedInterface;
      entry.IPConfigs = [...(entry.IPConfigs ?? []), { IP: address.split('/')[0] ?? '', Gateway: gateway }];
    }
    combined.DNS?.push(dns);
    if (routes.length > 0) combined.Routes = [...(combined.Routes ?? []), ...routes];
  }
  return combined;
}

/** What the loopback plugin would say of an interface that came up without it. */
export function loopbackResult(netns: string): PluginResult {
  return {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: netns }],
    ips: loopbackAddresses.map((ip) => ({ address: isIpv6(ip) ? `${ip}/128` : `${ip}/8`, interface: 0 })),
  };
}

/** The pod's address by preference, and the others of its default interface in their order. '' if that has none. */
export function chooseAddresses(result: CniResult, preference: string): { ip: string; additionalIps: string[] } {
  const all = (result.Interfaces[defaultInterface]?.IPConfigs ?? []).map(({ IP }) => IP);
  const wanted =
    preference === 'cni'
      ? 0
      : Math.max(
          0,
          all.findIndex((ip) => isIpv6(ip) === (preference === 'ipv6')),
        );
  return { ip: all[wanted] ?? '', additionalIps: all.filter((_, index) => index !== wanted) };
}
