/**
 * What a plugin's table in the configuration may hold. One description gives the defaults, the check with an error that
 * names the key and what was expected, and what `config default` prints.
 */
export type FieldKind =
  | 'string'
  | 'boolean'
  | 'integer'
  | 'float'
  | 'duration'
  | 'strings'
  | 'table'
  | 'map'
  | 'tables'
  | 'any';

export interface Field<T = unknown> {
  readonly kind: FieldKind;
  /** In the form the TOML file has it: a duration is Go's `5m0s`. */
  readonly default: unknown;
  /** Fields of a `table`, or of each entry of `tables`. */
  readonly fields?: Record<string, Field>;
  /** Extra check; answers what was expected, if the value is not that. */
  // A method, so that a Field<string> is a Field of unknown values too.
  check?(value: T): string | undefined;
}

type FieldValue<F> = F extends Field<infer T> ? T : never;

export interface ConfigSchema<T> {
  readonly fields: { [K in keyof T]: Field<T[K]> };
}

type Shape = Record<string, Field>;

/** Makers of fields. Durations come to the plugin as milliseconds. */
export const field = {
  string: (value = '', check?: (value: string) => string | undefined): Field<string> => ({
    kind: 'string',
    default: value,
    ...(check && { check }),
  }),
  /** An absolute path, or '' for none. */
  path: (value = ''): Field<string> => ({
    kind: 'string',
    default: value,
    check: (text) => (text === '' || text.startsWith('/') ? undefined : 'an absolute path'),
  }),
  boolean: (value = false): Field<boolean> => ({ kind: 'boolean', default: value }),
  integer: (value = 0): Field<number> => ({ kind: 'integer', default: value }),
  float: (value = 0): Field<number> => ({ kind: 'float', default: value }),
  duration: (value = '0s'): Field<number> => ({ kind: 'duration', default: value }),
  strings: (value: string[] = []): Field<string[]> => ({ kind: 'strings', default: value }),
  /** A table of strings with free keys. */
  map: (value: Record<string, string> = {}): Field<Record<string, string>> => ({ kind: 'map', default: value }),
  table: <S extends Shape>(fields: S): Field<{ [K in keyof S]: FieldValue<S[K]> }> => ({
    kind: 'table',
    default: {},
    fields,
  }),
  /** A table of tables with free names. */
  tables: <S extends Shape>(
    fields: S,
    value: Record<string, unknown> = {},
  ): Field<Record<string, { [K in keyof S]: FieldValue<S[K]> }>> => ({
    kind: 'tables',
    default: value,
    fields,
  }),
  any: (value: unknown = {}): Field<unknown> => ({ kind: 'any', default: value }),
};

export function schema<S extends Shape>(fields: S): ConfigSchema<{ [K in keyof S]: FieldValue<S[K]> }> {
  return { fields } as unknown as ConfigSchema<{ [K in keyof S]: FieldValue<S[K]> }>;
}
