import { staticTable } from './static-table.ts';

// Headers that are in the table with their value, and places of names.
const whole = new Map<string, number>();
const names = new Map<string, number>();
for (const [index, [name, value]] of staticTable.entries()) {
  if (value !== '') whole.set(`${name} ${value}`, index + 1);
  if (!names.has(name)) names.set(name, index + 1);
}

/** A header block, which says that the table of earlier headers is not used. It goes before the first one to a peer that made it smaller. */
export const noTable: Uint8Array = Buffer.from([0x20]);

/**
 * Headers as a block (RFC 7541) that depends on nothing sent before: those that are the same for each call can be made once.
 * Values are Latin-1, names in lower case.
 */
export function encodeHeaders(headers: Readonly<Record<string, string | number>>): Buffer {
  const parts: Uint8Array[] = [];
  for (const [name, value] of Object.entries(headers)) {
    const text = String(value);
    const index = whole.get(`${name} ${text}`);
    if (index !== undefined) {
      parts.push(integer(0x80, 7, index));
      continue;
    }
    const place = names.get(name) ?? 0;
    // Literals that are not to be remembered.
    parts.push(integer(0, 4, place));
    if (place === 0) parts.push(...string(name));
    parts.push(...string(text));
  }
  return Buffer.concat(parts);
}

function string(text: string): [Uint8Array, Uint8Array] {
  const bytes = Buffer.from(text, 'latin1');
  return [integer(0, 7, bytes.length), bytes];
}

function integer(pattern: number, prefixBits: number, value: number): Uint8Array {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) return Uint8Array.of(pattern | value);
  const bytes = [pattern | mask];
  let rest = value - mask;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}
