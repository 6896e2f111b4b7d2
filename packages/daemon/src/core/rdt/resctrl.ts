import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { StatusError, unknown } from '@gantry/api';

export type CacheLevel = 'L2' | 'L3';
export const cacheLevels: readonly CacheLevel[] = ['L2', 'L3'];

/** What of a cache can be allocated. */
export interface CacheInfo {
  /** Code and data are allocated apart (CDP). */
  codeAndData: boolean;
  /** All that there is, a bit for each portion. */
  mask: bigint;
  /** Of the portions that a group must have at the least. */
  minBits: number;
  /** Numbers of the caches of this level. */
  ids: number[];
}

/** How memory bandwidth can be allocated. */
export interface BandwidthInfo {
  /** In MB/s (the mount option `mba_MBps`) and not in percent. */
  megabytes: boolean;
  /** Percent. */
  minimum: number;
  ids: number[];
}

/** The kernel's resctrl file system, and what it can do on this machine. */
export interface Resctrl {
  directory: string;
  /** Levels that cannot be allocated are absent. */
  caches: Partial<Record<CacheLevel, CacheInfo>>;
  bandwidth?: BandwidthInfo;
}

/** @param mounts a file like /proc/mounts. @throws Unknown where resctrl is not mounted, or says what it should not */
export function openResctrl(mounts: string): Resctrl {
  const lines = readFileSync(mounts, 'utf8').split('\n');
  const mount = lines.map((line) => line.split(' ')).find((fields) => fields[2] === 'resctrl');
  const directory = mount?.[1];
  if (directory === undefined) throw unknown(`failed to detect resctrl mount point: resctrl not found in ${mounts}`);
  const info = path.join(directory, 'info');
  if (!existsSync(info)) throw unknown(`failed to read RDT info from "${info}": there is none`);
  const caches: Resctrl['caches'] = {};
  for (const level of cacheLevels) {
    const cache = readCache(directory, level);
    if (cache) caches[level] = cache;
  }
  const bandwidth = readBandwidth(directory, mount?.[3]?.split(',').includes('mba_MBps') ?? false);
  return { directory, caches, ...(bandwidth ? { bandwidth } : {}) };
}

function readCache(directory: string, level: CacheLevel): CacheInfo | undefined {
  for (const kind of [`${level}CODE`, `${level}DATA`, level]) {
    const about = path.join(directory, 'info', kind);
    if (!existsSync(about)) continue;
    try {
      const mask = BigInt(`0x${readText(path.join(about, 'cbm_mask'))}`);
      const minBits = readNumber(path.join(about, 'min_cbm_bits'));
      if (mask !== 0n) return { codeAndData: kind !== level, mask, minBits, ids: readIds(directory, level) };
    } catch (error) {
      throw StatusError.wrap(error, `failed to get ${kind} info from "${about}"`);
    }
  }
  return undefined;
}

function readBandwidth(directory: string, megabytes: boolean): BandwidthInfo | undefined {
  const about = path.join(directory, 'info', 'MB');
  if (!existsSync(about)) return undefined;
  try {
    const minimum = readNumber(path.join(about, 'min_bandwidth'));
    return minimum === 0 ? undefined : { megabytes, minimum, ids: readIds(directory, 'MB') };
  } catch (error) {
    throw StatusError.wrap(error, `failed to get MBA info from "${about}"`);
  }
}

/** Which caches there are, by the first line about them in the root group. */
function readIds(directory: string, kind: string): number[] {
  const lines = readText(path.join(directory, 'schemata')).split('\n');
  const line = lines.map((text) => text.trim()).find((text) => text.startsWith(kind) && text.includes(':'));
  if (line === undefined) throw unknown(`no ${kind} resources in root schemata`);
  return line
    .slice(line.indexOf(':') + 1)
    .split(';')
    .map((entry) => {
      const [, id] = /^(\d+)=[^=]*$/.exec(entry.trim()) ?? [];
      if (id === undefined) throw unknown(`looks like an invalid schema "${line}"`);
      return Number(id);
    })
    .sort((one, other) => one - other);
}

function readText(file: string): string {
  return readFileSync(file, 'utf8').trim();
}

function readNumber(file: string): number {
  const text = readText(file);
  if (!/^\d+$/.test(text)) throw unknown(`"${file}" says "${text}", which is no number`);
  return Number(text);
}

/** What the kernel says of a change that it has refused, or else the error itself. */
export function refusal(directory: string, error: unknown): string {
  let status = '';
  try {
    status = readText(path.join(directory, 'info', 'last_cmd_status'));
  } catch {
    // Older kernels have none.
  }
  return status === '' || status === 'ok' ? (error as Error).message : status;
}
