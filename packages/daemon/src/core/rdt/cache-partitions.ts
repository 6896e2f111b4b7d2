import { invalidArgument } from '@gantry/api';
import { block, type CacheShare, numberList, parseCacheShare } from './cache-share.ts';
import type { CacheEntries, CacheEntry } from './rdt-document.ts';
import type { CacheInfo, CacheLevel } from './resctrl.ts';

const kinds = ['unified', 'code', 'data'] as const;
export type CacheKind = (typeof kinds)[number];

/** Of one cache: a share for each kind that was named. */
export type CacheShares = Partial<Record<CacheKind, CacheShare>>;
/** By the cache's number; whoever has none of these has all. */
export type CacheSchema = ReadonlyMap<number, CacheShares>;

/** Code and data have what is said of both where nothing else is said of them. */
export function effective(shares: CacheShares | undefined, kind: CacheKind): CacheShare | undefined {
  return shares?.[kind] ?? shares?.unified;
}

/** What the configuration says for every cache of a level. @throws InvalidArgument */
export function cacheSchema(entries: CacheEntries, cache: CacheInfo | undefined): CacheSchema {
  const minBits = cache?.minBits ?? 0;
  const all = parseEntry(entries.get('all') ?? { unified: '100%', code: '', data: '' }, minBits);
  const schema = new Map((cache?.ids ?? []).map((id) => [id, all]));
  for (const [list, entry] of entries) {
    if (list === 'all') continue;
    const shares = parseEntry(entry, minBits);
    for (const id of numberList(list)) if (schema.has(id)) schema.set(id, shares);
  }
  return schema;
}

function parseEntry(entry: CacheEntry, minBits: number): CacheShares {
  const shares: CacheShares = {};
  for (const kind of kinds) if (entry[kind] !== '') shares[kind] = parseCacheShare(entry[kind], minBits);
  const text = JSON.stringify(entry);
  if (!shares.unified) throw invalidArgument(`'unified' not specified in cache schema ${text}`);
  if (shares.code && !shares.data)
    throw invalidArgument(`'code' specified but missing 'data' from cache schema ${text}`);
  if (shares.data && !shares.code)
    throw invalidArgument(`'data' specified but missing 'code' from cache schema ${text}`);
  return shares;
}

/**
 * Divides the caches of a level among partitions, which never overlap. @param requests by partition; undefined for one that says nothing
 * @throws InvalidArgument where they want more than there is, or do not all say what they want in the same way
 */
export function divideCache(
  level: CacheLevel,
  cache: CacheInfo,
  requests: ReadonlyMap<string, CacheSchema | undefined>,
): ReadonlyMap<string, CacheSchema> {
  const grants = new Map([...requests.keys()].map((name) => [name, new Map<number, CacheShares>()]));
  for (const id of cache.ids) {
    for (const kind of kinds) {
      for (const [name, mask] of divide(level, cache, id, kind, requests)) {
        const granted = grants.get(name);
        granted?.set(id, { ...granted.get(id), [kind]: { mask } });
      }
    }
  }
  return grants;
}

function divide(
  level: string,
  cache: CacheInfo,
  id: number,
  kind: CacheKind,
  requests: ReadonlyMap<string, CacheSchema | undefined>,
): ReadonlyMap<string, bigint> {
  const wanted = [...requests]
    .map(([name, schema]) => ({ name, share: schema?.get(id)?.[kind] }))
    .sort((one, other) => (one.name < other.name ? -1 : 1));
  const silent = wanted.filter(({ share }) => !share).map(({ name }) => name);
  if (silent.length === wanted.length) return new Map();
  if (silent.length > 0) {
    throw invalidArgument(
      `some partitions (${silent.join(', ')}) missing ${level} "${kind}" allocation request for cache id ${id}`,
    );
  }
  const masks = new Map<string, bigint>();
  const percentages: { name: string; percent: number }[] = [];
  let taken = 0n;
  for (const { name, share } of wanted) {
    if (!share) continue;
    if ('mask' in share) {
      if ((share.mask & taken) !== 0n) {
        throw invalidArgument(`overlapping ${level} partition allocation requests for cache id ${id}`);
      }
      taken |= share.mask;
      masks.set(name, share.mask);
    } else if (share.range) throw invalidArgument('percentage ranges in partition allocation not supported');
    else percentages.push({ name, percent: share.high });
  }
  if (percentages.length === 0) return masks;
  if (masks.size === 0) return byPercent(level, kind, cache, id, percentages);
  throw invalidArgument(
    `error resolving ${level} allocation for cache id ${id}: mixing relative and absolute allocations between partitions not supported`,
  );
}

function byPercent(
  level: string,
  kind: CacheKind,
  cache: CacheInfo,
  id: number,
  wanted: { name: string; percent: number }[],
): ReadonlyMap<string, bigint> {
  const total = wanted.reduce((sum, { percent }) => sum + percent, 0);
  if (total > 100) {
    throw invalidArgument(
      `accumulated ${level} "${kind}" partition allocation requests for cache id ${id} exceeds 100% (${total}%)`,
    );
  }
  // The lowest block of ones is what can be shared out.
  const portions = /1*$/.exec(cache.mask.toString(2))?.[0].length ?? 0;
  const whole = Math.floor((total * portions) / 100);
  const widths = new Map<string, number>();
  let left = whole;
  // The smallest first: what has to be rounded up comes off the larger ones.
  const ascending = wanted.toSorted((one, other) => one.percent - other.percent);
  for (const [index, { name, percent }] of ascending.entries()) {
    const leftPercent = whole === 0 ? 0 : Math.floor((left * total) / whole);
    if (left < Math.max(cache.minBits, 1) || leftPercent === 0) {
      throw invalidArgument(
        `unable to resolve ${level} allocation for cache id ${id}, not enough exclusive bits available`,
      );
    }
    const width = Math.max(cache.minBits, Math.floor((percent * left) / leftPercent));
    widths.set(name, index === ascending.length - 1 ? left : Math.min(width, left));
    left -= widths.get(name) ?? 0;
  }
  let first = 0;
  return new Map(
    wanted.map(({ name }) => {
      const width = widths.get(name) ?? 0;
      const mask = block(first, width);
      first += width;
      return [name, mask];
    }),
  );
}
