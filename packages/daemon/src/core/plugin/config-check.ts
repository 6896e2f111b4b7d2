// Checks a table of the configuration against its schema: fills in defaults, turns durations into milliseconds, warns of
// keys that nobody knows and fails on a wrong type with file, table, key and what was expected.
import { invalidArgument, type StatusError } from '@gantry/api';
import type { Field } from './config-schema.ts';
import { formatDuration, parseDuration } from './duration.ts';

type Table = Record<string, unknown>;

/** Where a value stands: the file (or '' for values that came from a program) and the table's path. */
export interface ConfigPlace {
  readonly file: string;
  readonly table: readonly string[];
}

/** A key path as TOML writes it: parts that are not bare get quotes. */
export function tomlPath(parts: readonly string[]): string {
  return parts.map((part) => (/^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part))).join('.');
}

/** The words for where a key stands, as errors and warnings begin. */
export function describePlace(place: ConfigPlace, key: string): string {
  const table = place.table.length === 0 ? 'top level' : `table [${tomlPath(place.table)}]`;
  return `${place.file === '' ? '' : `${place.file}: `}${table}: key ${tomlPath([key])}`;
}

/** The error for a value of the wrong kind. */
export function wrongValue(place: ConfigPlace, key: string, expected: string, value: unknown): StatusError {
  return invalidArgument(`${describePlace(place, key)}: expected ${expected}, got ${describeValue(value)}`);
}

function describeValue(value: unknown): string {
  if (Array.isArray(value)) return 'an array';
  if (value instanceof Date) return 'a date';
  if (isTable(value)) return 'a table';
  if (typeof value === 'string') return `the string ${JSON.stringify(value)}`;
  return `${typeof value} ${String(value)}`;
}

export function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** Answers the value in the form a plugin gets it, or fails. */
function checkField(
  field: Field,
  value: unknown,
  key: string,
  place: ConfigPlace,
  warn: (text: string) => void,
): unknown {
  const fail = (expected: string) => wrongValue(place, key, expected, value);
  const inner: ConfigPlace = { file: place.file, table: [...place.table, key] };
  let result = value;
  switch (field.kind) {
    case 'string':
      if (typeof value !== 'string') throw fail('a string');
      break;
    case 'boolean':
      if (typeof value !== 'boolean') throw fail('true or false');
      break;
    case 'integer': {
      const number = typeof value === 'bigint' ? Number(value) : value;
      if (typeof number !== 'number' || !Number.isSafeInteger(number)) throw fail('an integer');
      result = number;
      break;
    }
    case 'float': {
      const number = typeof value === 'bigint' ? Number(value) : value;
      if (typeof number !== 'number') throw fail('a number');
      result = number;
      break;
    }
    case 'duration': {
      const millis = value === '' ? 0 : typeof value === 'string' ? parseDuration(value) : undefined;
      if (millis === undefined) throw fail('a duration such as "1h30m" or "0.5s"');
      result = millis;
      break;
    }
    case 'strings':
      if (!Array.isArray(value) || value.some((item) => typeof item !== 'string')) throw fail('an array of strings');
      break;
    case 'map':
      if (!isTable(value) || Object.values(value).some((item) => typeof item !== 'string')) {
        throw fail('a table of strings');
      }
      break;
    case 'table':
      if (!isTable(value)) throw fail('a table');
      result = checkTable(field.fields ?? {}, value, inner, warn);
      break;
    case 'tables': {
      if (!isTable(value)) throw fail('a table of tables');
      const entries: Table = {};
      for (const [name, entry] of Object.entries(value)) {
        if (!isTable(entry)) throw wrongValue(inner, name, 'a table', entry);
        entries[name] = checkTable(field.fields ?? {}, entry, { ...inner, table: [...inner.table, name] }, warn);
      }
      result = entries;
      break;
    }
    case 'any':
      break;
  }
  const expected = field.check?.(result);
  if (expected !== undefined) throw fail(expected);
  return result;
}

/**
 * The table with every field of the schema, defaults filled in, durations as milliseconds. Unknown keys are told to `warn`
 * and left out. @throws StatusError InvalidArgument that names file, table, key and what was expected.
 */
export function checkTable(
  fields: Record<string, Field>,
  raw: Record<string, unknown>,
  place: ConfigPlace,
  warn: (text: string) => void,
): Record<string, unknown> {
  for (const key of Object.keys(raw)) {
    if (!Object.hasOwn(fields, key)) warn(`${describePlace(place, key)} is unknown and ignored`);
  }
  const result: Table = {};
  for (const [key, field] of Object.entries(fields)) {
    result[key] = checkField(field, raw[key] ?? structuredClone(field.default), key, place, warn);
  }
  return result;
}

/** The defaults of a schema with `raw` laid over them, in the form the TOML file has: durations stay text. */
export function withDefaults(
  fields: Record<string, Field>,
  raw: Record<string, unknown> = {},
): Record<string, unknown> {
  const result: Table = {};
  for (const [key, field] of Object.entries(fields)) {
    const value = raw[key] ?? structuredClone(field.default);
    if (field.kind === 'table' && isTable(value)) {
      result[key] = withDefaults(field.fields ?? {}, value);
    } else if (field.kind === 'tables' && isTable(value)) {
      result[key] = Object.fromEntries(
        Object.entries(value).map(([name, entry]) => [
          name,
          isTable(entry) ? withDefaults(field.fields ?? {}, entry) : entry,
        ]),
      );
    } else if (field.kind === 'duration' && typeof value === 'string') {
      const millis = parseDuration(value);
      result[key] = millis === undefined ? value : formatDuration(millis);
    } else {
      result[key] = value;
    }
  }
  for (const [key, value] of Object.entries(raw)) if (!Object.hasOwn(fields, key)) result[key] = value;
  return result;
}
