import { invalidArgument } from '@gantry/api';
import { type CacheLevel, cacheLevels } from './resctrl.ts';

/** How a cache is shared, as it is written; code and data count where the kernel allocates them apart. */
export interface CacheEntry {
  unified: string;
  code: string;
  data: string;
}

/** By lists of cache numbers (`0,2-3`), or `all`. */
export type CacheEntries = ReadonlyMap<string, CacheEntry>;
export type BandwidthEntries = ReadonlyMap<string, string[]>;

export interface Allocations {
  caches: Partial<Record<CacheLevel, CacheEntries>>;
  bandwidth?: BandwidthEntries;
}

export interface RdtClass extends Allocations {
  denyPodAnnotation: boolean;
  denyContainerAnnotation: boolean;
}

export interface Partition extends Allocations {
  classes: ReadonlyMap<string, RdtClass>;
}

/** goresctrl's configuration, short forms written out. */
export interface RdtDocument {
  /** What may be named where the machine does not have it. */
  optional: Record<CacheLevel | 'MB', boolean>;
  partitions: ReadonlyMap<string, Partition>;
}

/** @throws InvalidArgument for fields that are not known, and values of other kinds */
export function readRdtDocument(document: unknown): RdtDocument {
  const fields = readFields({ value: document, at: '' }, ['options', 'partitions']);
  const options = readFields(fields('options'), ['l2', 'l3', 'mb']);
  const optional = (name: string): boolean => readBoolean(readFields(options(name), ['optional'])('optional'));
  return {
    optional: { L2: optional('l2'), L3: optional('l3'), MB: optional('mb') },
    partitions: readMap(fields('partitions'), (partition) => {
      const parts = readFields(partition, [...allocationFields, 'classes']);
      return { ...readAllocations(parts), classes: readMap(parts('classes'), readClass) };
    }),
  };
}

/** Something in the document, and where that is. */
interface Place {
  value: unknown;
  at: string;
}

/** By name in small letters; what is not there is undefined. */
type Fields = (name: string) => Place;

const allocationFields = ['l2allocation', 'l3allocation', 'mballocation'];
const rules = ['denypodannotation', 'denycontainerannotation'];

function readClass(place: Place): RdtClass {
  const fields = readFields(place, [...allocationFields, 'kubernetes']);
  const kubernetes = readFields(fields('kubernetes'), rules);
  return {
    ...readAllocations(fields),
    denyPodAnnotation: readBoolean(kubernetes('denypodannotation')),
    denyContainerAnnotation: readBoolean(kubernetes('denycontainerannotation')),
  };
}

function readAllocations(fields: Fields): Allocations {
  const caches: Allocations['caches'] = {};
  for (const level of cacheLevels) {
    const place = fields(`${level.toLowerCase()}allocation`);
    if (place.value !== undefined) caches[level] = readCaches(place);
  }
  const place = fields('mballocation');
  return { caches, ...(place.value === undefined ? {} : { bandwidth: readBandwidths(place) }) };
}

function readCaches(place: Place): CacheEntries {
  if (typeof place.value === 'string') return new Map([['all', { unified: place.value, code: '', data: '' }]]);
  return readMap(place, (entry) => {
    if (typeof entry.value === 'string') return { unified: entry.value, code: '', data: '' };
    const fields = readFields(entry, ['unified', 'code', 'data']);
    return {
      unified: readString(fields('unified')),
      code: readString(fields('code')),
      data: readString(fields('data')),
    };
  });
}

function readBandwidths(place: Place): BandwidthEntries {
  const list = ({ value, at }: Place): string[] => {
    if (!Array.isArray(value)) throw invalidArgument(`${at}: a list like ["50%", "1000MBps"] is wanted`);
    return value.map((text) => readString({ value: text, at }));
  };
  return Array.isArray(place.value) ? new Map([['all', list(place)]]) : readMap(place, list);
}

function readMap<T>(place: Place, read: (place: Place) => T): Map<string, T> {
  return new Map(Object.entries(readObject(place)).map(([name, value]) => [name, read(inside(place, name, value))]));
}

/** Names of fields are known in any case, as Go reads them. */
function readFields(place: Place, known: readonly string[]): Fields {
  const found = new Map<string, Place>();
  for (const [name, value] of Object.entries(readObject(place))) {
    const field = inside(place, name, value);
    if (!known.includes(name.toLowerCase())) throw invalidArgument(`unknown field "${field.at}"`);
    found.set(name.toLowerCase(), field);
  }
  return (name) => found.get(name) ?? inside(place, name, undefined);
}

function inside({ at }: Place, name: string, value: unknown): Place {
  return { value, at: at === '' ? name : `${at}.${name}` };
}

function readObject({ value, at }: Place): Record<string, unknown> {
  if (value === null || value === undefined) return {};
  if (typeof value === 'object' && !Array.isArray(value)) return value as Record<string, unknown>;
  throw invalidArgument(`${at || 'the document'}: a mapping is wanted`);
}

function readString({ value, at }: Place): string {
  if (value === undefined || value === null) return '';
  if (typeof value === 'string') return value;
  throw invalidArgument(`${at}: not a string value ${JSON.stringify(value)}`);
}

function readBoolean({ value, at }: Place): boolean {
  if (value === undefined || value === null) return false;
  if (typeof value === 'boolean') return value;
  throw invalidArgument(`${at}: true or false is wanted`);
}
