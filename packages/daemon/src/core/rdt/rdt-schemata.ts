import { invalidArgument, StatusError } from '@gantry/api';
import { type CacheKind, type CacheSchema, cacheSchema, divideCache, effective } from './cache-partitions.ts';
import { numberList, shareOf } from './cache-share.ts';
import type { Allocations, BandwidthEntries, Partition, RdtClass, RdtDocument } from './rdt-document.ts';
import { type BandwidthInfo, type CacheInfo, type CacheLevel, cacheLevels, type Resctrl } from './resctrl.ts';

/** The class that stands for resctrl's root group, where every process begins. */
export const rootClass = 'system/default';

/** A class as resctrl is to have it. */
export interface ClassSchemata {
  name: string;
  rules: Pick<RdtClass, 'denyPodAnnotation' | 'denyContainerAnnotation'>;
  /** For the group's file `schemata`; '' for none. */
  schemata: string;
}

type BandwidthSchema = ReadonlyMap<number, number>;

/**
 * What each class gets of its partition, and each partition of the machine. Nothing is written.
 * @throws InvalidArgument for a configuration that contradicts itself or the machine
 */
export function classSchemata({ partitions, optional }: RdtDocument, resctrl: Resctrl): ClassSchemata[] {
  const grants: Partial<Record<CacheLevel, ReadonlyMap<string, CacheSchema>>> = {};
  for (const level of cacheLevels) {
    const requests = new Map([...partitions].map(([name, one]) => [name, requestOf(level, name, one, resctrl)]));
    const cache = resctrl.caches[level];
    if (cache && partitions.size > 0) grants[level] = divideCache(level, cache, requests);
  }
  const seen = new Set<string>();
  const found: ClassSchemata[] = [];
  for (const [partitionName, partition] of partitions) {
    const of = `partition "${partitionName}"`;
    const bandwidth = bandwidthOf(partition, resctrl.bandwidth, of);
    for (const [key, one] of partition.classes) {
      const name = key === '' ? rootClass : key;
      checkName(name, seen);
      checkComplete(name, one, partitionName, partition);
      const lines: string[] = [];
      for (const level of cacheLevels) {
        const cache = resctrl.caches[level];
        const own = cacheOf(level, name, one, cache);
        if (cache) lines.push(...cacheLines(level, cache, own, grants[level]?.get(partitionName)));
        else if (own && !optional[level]) {
          throw invalidArgument(
            `${level} cache allocation for "${name}" specified in configuration but not supported by system`,
          );
        }
      }
      const own = bandwidthOf(one, resctrl.bandwidth, `class "${name}"`);
      if (resctrl.bandwidth) lines.push(bandwidthLine(resctrl.bandwidth, own, bandwidth));
      else if (own && !optional.MB) {
        throw invalidArgument(
          `memory bandwidth allocation for "${name}" specified in configuration but not supported by system`,
        );
      }
      const { denyPodAnnotation, denyContainerAnnotation } = one;
      const schemata = lines.map((line) => `${line}\n`).join('');
      found.push({ name, rules: { denyPodAnnotation, denyContainerAnnotation }, schemata });
    }
  }
  return found;
}

/** Whether a class can have this name, which is that of a directory. */
export function isClassName(name: string): boolean {
  return name === rootClass || (name.length < 4096 && name !== '.' && name !== '..' && !/[/\n]/.test(name));
}

function checkName(name: string, seen: Set<string>): void {
  if (!isClassName(name)) {
    throw invalidArgument(
      `unqualified class name "${name}" (must not be '.' or '..' and must not contain '/' or newline)`,
    );
  }
  if (seen.has(name)) throw invalidArgument(`class names must be unique, "${name}" defined multiple times`);
  seen.add(name);
}

/** A class has nothing of what its partition does not speak of. */
function checkComplete(name: string, one: RdtClass, partitionName: string, partition: Partition): void {
  const missing = cacheLevels.find((level) => one.caches[level] && !partition.caches[level]);
  const what = missing ?? (one.bandwidth && !partition.bandwidth ? 'MB' : undefined);
  if (what === undefined) return;
  throw invalidArgument(
    `${what} allocation missing from partition "${partitionName}" but class "${name}" specifies ${what} schema`,
  );
}

function requestOf(
  level: CacheLevel,
  name: string,
  partition: Partition,
  { caches }: Resctrl,
): CacheSchema | undefined {
  const entries = partition.caches[level];
  try {
    return entries && cacheSchema(entries, caches[level]);
  } catch (error) {
    throw StatusError.wrap(error, `failed to parse ${level} allocation request for partition "${name}"`);
  }
}

function cacheOf(
  level: CacheLevel,
  name: string,
  one: RdtClass,
  cache: CacheInfo | undefined,
): CacheSchema | undefined {
  const entries = one.caches[level];
  try {
    return entries && cacheSchema(entries, cache);
  } catch (error) {
    throw StatusError.wrap(error, `failed to resolve ${level} allocation for class "${name}"`);
  }
}

function cacheLines(level: CacheLevel, cache: CacheInfo, own?: CacheSchema, partition?: CacheSchema): string[] {
  const line = (kind: CacheKind, suffix: string): string => {
    const masks = cache.ids.map((id) => {
      const granted = effective(partition?.get(id), kind);
      const base = granted && 'mask' in granted ? granted.mask : cache.mask;
      const share = effective(own?.get(id), kind);
      return `${id}=${(share ? shareOf(base, share, cache.minBits) : base).toString(16)}`;
    });
    return `${level}${suffix}:${masks.join(';')}`;
  };
  return cache.codeAndData ? [line('code', 'CODE'), line('data', 'DATA')] : [line('unified', '')];
}

const unlimited = 4294967295;

function bandwidthOf(
  { bandwidth }: Allocations,
  info: BandwidthInfo | undefined,
  whose: string,
): BandwidthSchema | undefined {
  if (!bandwidth) return undefined;
  try {
    return bandwidthSchema(bandwidth, info);
  } catch (error) {
    throw StatusError.wrap(error, `failed to resolve MB allocation for ${whose}`);
  }
}

function bandwidthSchema(entries: BandwidthEntries, info: BandwidthInfo | undefined): BandwidthSchema {
  const megabytes = info?.megabytes ?? false;
  const all = parseBandwidth(entries.get('all') ?? ['100%', `${unlimited}MBps`], megabytes);
  const schema = new Map((info?.ids ?? []).map((id) => [id, all]));
  for (const [list, values] of entries) {
    if (list === 'all') continue;
    const value = parseBandwidth(values, megabytes);
    for (const id of numberList(list)) if (schema.has(id)) schema.set(id, value);
  }
  return schema;
}

/** Of several values, the one that counts here. */
function parseBandwidth(values: readonly string[], megabytes: boolean): number {
  const unit = megabytes ? 'MBps' : '%';
  const value = values.find((text) => text.endsWith(unit));
  if (value === undefined) {
    const enabled = megabytes ? "'mba_MBps'" : 'percentage-based MBA allocation';
    throw invalidArgument(
      `missing '${unit}' value from mbSchema; required because ${enabled} is enabled in the system`,
    );
  }
  const digits = value.slice(0, -unit.length);
  if (!/^\d{1,10}$/.test(digits) || Number(digits) > (megabytes ? unlimited : 127)) {
    throw invalidArgument(`invalid memory bandwidth "${value}"`);
  }
  return Number(digits);
}

function bandwidthLine(info: BandwidthInfo, own?: BandwidthSchema, partition?: BandwidthSchema): string {
  const values = info.ids.map((id) => {
    if (info.megabytes) return `${id}=${Math.min(own?.get(id) ?? unlimited, partition?.get(id) ?? unlimited)}`;
    const base = Math.max(partition?.get(id) ?? 100, partition ? info.minimum : 0);
    return `${id}=${Math.max(info.minimum, Math.floor(((own?.get(id) ?? 100) * base) / 100))}`;
  });
  return `MB:${values.join(';')}`;
}
