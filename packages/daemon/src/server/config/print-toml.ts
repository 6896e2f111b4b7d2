// Prints a configuration as TOML in the shape that containerd's `config default` has: two spaces a level, single quotes,
// values before tables.
import { isTable } from '../../core/plugin/config-check.ts';

function quote(text: string): string {
  // A literal string cannot hold its own quote or control characters.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: TOML's rule is about exactly these
  if (!/['\x00-\x08\x0a-\x1f\x7f]/.test(text)) return `'${text}'`;
  return JSON.stringify(text).replaceAll('\x7f', '\\u007f');
}

function keyText(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : quote(key);
}

/** A value on one line. */
export function printTomlValue(value: unknown): string {
  if (typeof value === 'string') return quote(value);
  if (Array.isArray(value)) return `[${value.map(printTomlValue).join(', ')}]`;
  if (value instanceof Date) return value.toISOString();
  if (isTable(value)) {
    const inner = Object.entries(value).map(([key, item]) => `${keyText(key)} = ${printTomlValue(item)}`);
    return inner.length === 0 ? '{}' : `{ ${inner.join(', ')} }`;
  }
  return String(value);
}

function printTable(table: Record<string, unknown>, path: string[], depth: number, lines: string[]): void {
  const indent = '  '.repeat(Math.max(depth, 0));
  let first = true;
  for (const [key, value] of Object.entries(table)) {
    if (value === undefined || isTable(value)) continue;
    lines.push(`${indent}${keyText(key)} = ${printTomlValue(value)}`);
    first = false;
  }
  for (const [key, value] of Object.entries(table)) {
    if (!isTable(value)) continue;
    if (!first) lines.push('');
    first = false;
    const inner = [...path, keyText(key)];
    lines.push(`${'  '.repeat(depth)}[${inner.join('.')}]`);
    printTable(value, inner, depth + 1, lines);
  }
}

/** The text of a TOML file. Empty tables are kept, undefined values are not. */
export function printToml(config: Record<string, unknown>): string {
  const lines: string[] = [];
  printTable(config, [], 0, lines);
  return `${lines.join('\n')}\n`;
}
