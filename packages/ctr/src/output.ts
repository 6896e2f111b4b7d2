// What commands print, in the forms containerd's ctr has.
import { stringifyJson } from '@gantry/oci';
import { type TableStyle, table, wide } from './table.ts';

export function print(text: string): void {
  process.stdout.write(text);
}

export function printTable(rows: readonly (readonly string[])[], style: TableStyle = wide): void {
  print(table(rows, style));
}

/** Go's encoder writes these characters as escapes. */
const escapes: Record<string, string> = {
  '<': '\\u003c',
  '>': '\\u003e',
  '&': '\\u0026',
  '\u2028': '\\u2028',
  '\u2029': '\\u2029',
};

/** JSON as Go's encoding/json writes it: `<`, `>` and `&` escaped. */
export function goJson(value: unknown, indent?: number): string {
  return stringifyJson(value, indent).replace(/[<>&\u2028\u2029]/g, (character) => escapes[character]!);
}

/** A document over several lines, indented by four spaces. */
export function printJson(value: unknown): void {
  print(`${goJson(value, 4)}\n`);
}

/** A line for people to see beside the output, on standard error. */
export function log(
  level: 'debug' | 'info' | 'warning' | 'error',
  message: string,
  fields: Record<string, string> = {},
): void {
  const time = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  const quote = (text: string) => (/^[\w.:@/+-]+$/.test(text) ? text : JSON.stringify(text));
  const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${quote(value)}`);
  process.stderr.write(`time="${time}" level=${level} msg=${quote(message)}${rest.join('')}\n`);
}

/** Runs a step for each name; one that fails is told and the others still have their turn. @returns the exit code */
export async function forEachName(
  names: readonly string[],
  step: (name: string) => Promise<void>,
  told: (name: string, error: Error) => string = (name, error) => `failed to delete "${name}": ${error.message}`,
): Promise<number> {
  let code = 0;
  for (const name of names) {
    try {
      await step(name);
    } catch (reason) {
      process.stderr.write(`ctr: ${told(name, reason as Error)}\n`);
      code = 1;
    }
  }
  return code;
}

export function printLines(lines: readonly string[]): void {
  print(lines.map((line) => `${line}\n`).join(''));
}

/** Writes to standard output, as fast as it is read there. */
export async function written(bytes: Uint8Array): Promise<void> {
  if (!process.stdout.write(bytes)) await new Promise((resolve) => process.stdout.once('drain', resolve));
}
