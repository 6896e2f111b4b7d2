import { unknown } from '@gantry/api';
import { canonicalIp, isIpv6, parseCidr } from './ip-address.ts';
import { compareVersions, isKnownVersion } from './version.ts';

/** What ADD prints, in the form of version 1.x; other versions are read into it and written from it. */
export interface PluginResult {
  cniVersion: string;
  interfaces?: ResultInterface[];
  ips?: ResultIp[];
  routes?: ResultRoute[];
  dns?: Record<string, unknown>;
  [more: string]: unknown;
}

export interface ResultInterface {
  name: string;
  mac?: string;
  /** The network namespace it is in; absent for the host's. */
  sandbox?: string;
  pciID?: string;
  socketPath?: string;
  [more: string]: unknown;
}

export interface ResultIp {
  /** With the length of the network's prefix. */
  address: string;
  gateway?: string;
  /** Place in `interfaces`. */
  interface?: number;
  [more: string]: unknown;
}

export interface ResultRoute {
  dst: string;
  gw?: string;
  [more: string]: unknown;
}

type Fields = Record<string, unknown>;

/**
 * What a plugin printed. One that does not say its version means the configuration's.
 * @throws StatusError Unknown for what is no result
 */
export function readResult(printed: unknown, configVersion: string): PluginResult {
  const fields = objectOf(printed ?? {}, 'result');
  const said = fields['cniVersion'];
  const version = typeof said === 'string' && said !== '' ? said : configVersion || '0.1.0';
  if (!isKnownVersion(version)) throw unknown(`unsupported CNI result version ${JSON.stringify(version)}`);
  return compareVersions(version, '0.3.0') < 0 ? readOld(fields, version) : readNew(fields, version);
}

function readNew(fields: Fields, version: string): PluginResult {
  const { interfaces, ips, routes, dns, ...more } = fields;
  return {
    ...more,
    cniVersion: version,
    ...(interfaces != null && {
      interfaces: listOf(interfaces, 'interfaces').map((each) => ({ ...each, name: textOf(each, 'name') })),
    }),
    ...(ips != null && { ips: listOf(ips, 'ips').map(readIp) }),
    ...(routes != null && { routes: listOf(routes, 'routes').map(readRoute) }),
    ...(dns != null && { dns: objectOf(dns, 'dns') }),
  };
}

/** 0.1.0 and 0.2.0: one address of each family, with its routes. */
function readOld({ ip4, ip6, dns }: Fields, version: string): PluginResult {
  const ips: ResultIp[] = [];
  const routes: ResultRoute[] = [];
  for (const [name, family] of Object.entries({ ip4, ip6 })) {
    if (family == null) continue;
    const { ip, gateway, routes: own } = objectOf(family, name);
    ips.push(readIp({ address: ip, gateway }));
    if (own != null) routes.push(...listOf(own, 'routes').map(readRoute));
  }
  return { cniVersion: version, ips, routes, ...(dns != null && { dns: objectOf(dns, 'dns') }) };
}

function readIp({ version: _version, ...fields }: Fields): ResultIp {
  const { ip, prefix } = parseCidr(textOf(fields, 'address'));
  const { gateway, interface: at, ...more } = fields;
  if (at != null && (!Number.isInteger(at) || Number(at) < 0)) {
    throw unknown(`invalid IP configuration (interface number ${JSON.stringify(at)})`);
  }
  return {
    ...more,
    address: `${ip}/${prefix}`,
    ...(gateway != null && gateway !== '' && { gateway: ipOf(gateway) }),
    ...(at != null && { interface: Number(at) }),
  };
}

function readRoute(fields: Fields): ResultRoute {
  const { ip, prefix } = parseCidr(textOf(fields, 'dst'));
  const { gw, ...more } = fields;
  return { ...more, dst: `${ip}/${prefix}`, ...(gw != null && gw !== '' && { gw: ipOf(gw) }) };
}

/** The same in the form of another version, as plugins of that version take it. @throws StatusError if that cannot hold it */
export function resultAsVersion(result: PluginResult, version: string): object {
  const wanted = version || '0.1.0';
  if (!isKnownVersion(wanted)) {
    throw unknown(`cannot convert from ${JSON.stringify(result.cniVersion)} to ${JSON.stringify(version)}`);
  }
  const { interfaces, ips = [], routes = [], dns } = result;
  if (compareVersions(wanted, '0.3.0') < 0) return asOld(wanted, ips, routes, dns);
  if (compareVersions(wanted, '1.0.0') >= 0) return { ...result, cniVersion: wanted };
  return {
    cniVersion: wanted,
    ...(interfaces && {
      interfaces: interfaces.map(({ name, mac, sandbox }) => ({
        name,
        ...(mac !== undefined && { mac }),
        ...(sandbox !== undefined && { sandbox }),
      })),
    }),
    ips: ips.map((ip) => ({ version: isIpv6(ip.address) ? '6' : '4', ...ip })),
    routes,
    ...(dns && { dns }),
  };
}

function asOld(
  cniVersion: string,
  ips: readonly ResultIp[],
  routes: readonly ResultRoute[],
  dns: Fields | undefined,
): object {
  const family = (six: boolean): object | undefined => {
    const first = ips.find(({ address }) => isIpv6(address) === six);
    if (!first) return undefined;
    const own = routes.filter(({ dst }) => isIpv6(dst) === six).map(({ dst, gw }) => ({ dst, ...(gw && { gw }) }));
    return {
      ip: first.address,
      ...(first.gateway && { gateway: first.gateway }),
      ...(own.length > 0 && { routes: own }),
    };
  };
  const [ip4, ip6] = [family(false), family(true)];
  if (!ip4 && !ip6) throw unknown('cannot convert: no valid IP addresses');
  return { cniVersion, ...(ip4 && { ip4 }), ...(ip6 && { ip6 }), ...(dns && { dns }) };
}

function objectOf(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw unknown(`failed to unmarshal raw result: ${what} is no object`);
  }
  return value as Fields;
}

function listOf(value: unknown, what: string): Fields[] {
  if (!Array.isArray(value)) throw unknown(`failed to unmarshal raw result: ${what} is no list`);
  return value.map((item) => objectOf(item, `an entry of ${what}`));
}

function textOf(fields: Fields, key: string): string {
  const value = fields[key];
  if (typeof value !== 'string') throw unknown(`failed to unmarshal raw result: ${key} is no text`);
  return value;
}

function ipOf(value: unknown): string {
  const ip = typeof value === 'string' ? canonicalIp(value) : undefined;
  if (ip === undefined) throw unknown(`invalid IP address: ${String(value)}`);
  return ip;
}
