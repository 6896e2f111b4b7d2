/**
 * The one way to read and write OCI JSON. JavaScript numbers hold 53 bits; the runtime specification has 64-bit fields
 * (memory limits, rlimits, device numbers), so integers that would not survive are read as bigint, and bigint is written
 * as a plain number. Everything else is as JSON.parse and JSON.stringify have it; the order of keys is kept.
 */
export type Json = null | boolean | number | bigint | string | Json[] | { [key: string]: Json };

// `source` in the reviver's third argument and JSON.rawJSON are ECMAScript 2026, not yet in TypeScript's library.
type Reviver = (key: string, value: unknown, context: { source?: string }) => unknown;
type RawJson = { rawJSON(text: string): unknown };

const longDigits = /\d{16}/;

/** @throws SyntaxError for what is not JSON. */
export function parseJson<T = Json>(text: string | Uint8Array): T {
  const source = typeof text === 'string' ? text : new TextDecoder('utf-8', { ignoreBOM: false }).decode(text);
  // The reviver costs ten times the parse; only a text with a run of sixteen digits can need it.
  if (!longDigits.test(source)) return JSON.parse(source) as T;
  const keep: Reviver = (_key, value, context) =>
    typeof value === 'number' &&
    !Number.isSafeInteger(value) &&
    context.source !== undefined &&
    /^-?\d+$/.test(context.source)
      ? BigInt(context.source)
      : value;
  return (JSON.parse as (text: string, reviver: Reviver) => unknown)(source, keep) as T;
}

/** `indent`: spaces per level; absent for one line. */
export function stringifyJson(value: unknown, indent?: number): string {
  // A replacer is called for each value, which costs five times the rest; most documents hold no bigint.
  if (!holdsBigint(value)) return JSON.stringify(value, undefined, indent);
  return JSON.stringify(
    value,
    (_key, item) => (typeof item === 'bigint' ? (JSON as unknown as RawJson).rawJSON(item.toString()) : item),
    indent,
  );
}

/** The same as UTF-8 bytes. */
export function encodeJson(value: unknown, indent?: number): Uint8Array {
  return new TextEncoder().encode(stringifyJson(value, indent));
}

function holdsBigint(value: unknown): boolean {
  if (typeof value === 'bigint') return true;
  if (typeof value !== 'object' || value === null) return false;
  if (Array.isArray(value)) return value.some(holdsBigint);
  for (const key in value) if (holdsBigint((value as Record<string, unknown>)[key])) return true;
  return false;
}
