import { createHash } from 'node:crypto';
import type { Key } from './metadata-store.ts';

/**
 * Keys as bytes that sort component by component. Components are UTF-8, each ended by a zero byte; zero and one bytes inside
 * are escaped. lmdb refuses keys over 1,978 bytes, so a long component keeps its beginning and ends in a hash: then the record
 * has to carry the key itself.
 */
const longest = 300;
const kept = 200;

/** The encoded key, and whether a component was hashed (so that it cannot be decoded). */
export function encodeKey(key: Key): { bytes: Buffer; hashed: boolean } {
  const parts: Buffer[] = [];
  let hashed = false;
  for (const component of key) {
    const encoded = encodeComponent(component);
    hashed ||= encoded.hashed;
    parts.push(encoded.bytes);
  }
  return { bytes: Buffer.concat(parts), hashed };
}

function encodeComponent(component: string): { bytes: Buffer; hashed: boolean } {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these two bytes are the ones that need escaping
  const needsEscape = /[\u0000\u0001]/.test(component);
  const plain = Buffer.from(component, 'utf8');
  const escaped = needsEscape
    ? Buffer.concat([...plain].map((byte) => (byte <= 1 ? Buffer.from([1, byte + 1]) : Buffer.from([byte]))))
    : plain;
  if (escaped.length <= longest) return { bytes: Buffer.concat([escaped, Buffer.of(0)]), hashed: false };
  const digest = createHash('sha256').update(plain).digest();
  const tail = Buffer.from(digest.toString('hex'), 'latin1');
  // 1 followed by 3 stands in no escaped text, so a hash never equals a real component.
  return { bytes: Buffer.concat([escaped.subarray(0, kept), Buffer.of(1, 3), tail, Buffer.of(0)]), hashed: true };
}

/** The components of an encoded key that has no hashed one. */
export function decodeKey(bytes: Buffer): string[] {
  const components: string[] = [];
  let start = 0;
  for (let end = bytes.indexOf(0); end >= 0; end = bytes.indexOf(0, start)) {
    components.push(decodeComponent(bytes.subarray(start, end)));
    start = end + 1;
  }
  return components;
}

function decodeComponent(bytes: Buffer): string {
  if (!bytes.includes(1)) return bytes.toString('utf8');
  const out: number[] = [];
  for (let index = 0; index < bytes.length; index++) {
    if (bytes[index] === 1) out.push(bytes[++index]! - 1);
    else out.push(bytes[index]!);
  }
  return Buffer.from(out).toString('utf8');
}

/** The first encoded key after everything under a prefix. */
export function afterPrefix(prefix: Buffer): Buffer {
  // A prefix ends in a zero byte (or is empty); nothing under it starts with the same bytes and a one instead.
  if (prefix.length === 0) return Buffer.of(0xff, 0xff, 0xff);
  const end = Buffer.from(prefix);
  end[end.length - 1] = 1;
  return end;
}
