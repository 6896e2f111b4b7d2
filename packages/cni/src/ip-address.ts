import net from 'node:net';
import { unknown } from '@gantry/api';

export interface Cidr {
  ip: string;
  prefix: number;
}

/** An address in the one form that text comparison works for. undefined for what is none. */
export function canonicalIp(text: string): string | undefined {
  if (net.isIPv4(text)) return text;
  if (!net.isIPv6(text) || text.includes('%')) return undefined;
  const canonical = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  // An IPv4 address in IPv6 clothes is written, and meant, as IPv4.
  const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(canonical);
  if (!mapped) return canonical;
  const number = (Number.parseInt(mapped[1]!, 16) << 16) | Number.parseInt(mapped[2]!, 16);
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.');
}

export function isIpv6(ip: string): boolean {
  return ip.includes(':');
}

/** `10.0.0.1/24`. @throws StatusError Unknown `invalid CIDR address: …` */
export function parseCidr(text: string): Cidr {
  const [, address = '', length = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const ip = canonicalIp(address);
  const prefix = Number(length);
  if (ip === undefined || length === '' || prefix > (net.isIPv6(address) ? 128 : 32)) {
    throw unknown(`invalid CIDR address: ${text}`);
  }
  return { ip, prefix };
}
