// How containerd writes single values into its buckets.
import { fromBinary } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { failedPrecondition, type Time } from '@gantry/api';
import type { BoltBucket, BoltEntry } from '../bolt/bucket.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Seconds from Go's zero time, the first of January of the year 1, to 1970. */
const yearOne = 62135596800n;

/** A bucket of one record, and how errors call it (`namespace default: image busybox`). */
export interface Source {
  readonly name: string;
  readonly bucket: BoltBucket;
}

function malformed(name: string, key: string, what: string, cause?: unknown) {
  return failedPrecondition(`${name}: ${key}: ${what}`, cause);
}

export function text(bytes: Buffer, name: string, key: string): string {
  try {
    return utf8.decode(bytes);
  } catch (error) {
    throw malformed(name, key, 'not UTF-8', error);
  }
}

/** Text under a key; empty if there is none. */
export function readText({ name, bucket }: Source, key: string): string {
  const value = bucket.value(key);
  return value === undefined ? '' : text(value, name, key);
}

/** Go's `Time.MarshalBinary`: version, seconds, nanoseconds, zone. Undefined if there is none, or Go's zero time. */
export function readTime({ name, bucket }: Source, key: string): Time | undefined {
  const value = bucket.value(key);
  if (value === undefined || value.length === 0) return undefined;
  const expected = value[0] === 1 ? 15 : value[0] === 2 ? 16 : 0;
  if (value.length !== expected) throw malformed(name, key, `not a time: ${value.toString('hex')}`);
  const seconds = value.readBigInt64BE(1);
  const nanos = value.readInt32BE(9);
  if (nanos < 0 || nanos > 999_999_999) throw malformed(name, key, `not a time: ${value.toString('hex')}`);
  return seconds === 0n && nanos === 0 ? undefined : { seconds: seconds - yearOne, nanos };
}

/** Base 128, least significant first, as in protobuf. */
export function unsignedVarint(bytes: Buffer): bigint | undefined {
  let result = 0n;
  for (const [index, byte] of bytes.entries()) {
    if (index > 9) return undefined;
    result |= BigInt(byte & 0x7f) << BigInt(7 * index);
    if (byte < 0x80) return result < 1n << 64n ? result : undefined;
  }
  return undefined;
}

/** A signed number in a zigzag varint; undefined if there is none. */
export function readVarint(source: Source, key: string): bigint | undefined {
  const raw = readUnsigned(source, key);
  return raw === undefined ? undefined : (raw >> 1n) ^ -(raw & 1n);
}

export function readUnsigned({ name, bucket }: Source, key: string): bigint | undefined {
  const value = bucket.value(key);
  if (value === undefined || value.length === 0) return undefined;
  const number = unsignedVarint(value);
  if (number === undefined) throw malformed(name, key, `not a number: ${value.toString('hex')}`);
  return number;
}

/** A packed message; undefined if there is none. Its payload is not looked into. */
export function readAny({ name, bucket }: Source, key: string): Any | undefined {
  const value = bucket.value(key);
  return value === undefined || value.length === 0 ? undefined : parseAny(value, name, key);
}

function parseAny(value: Buffer, name: string, key: string): Any {
  try {
    return fromBinary(AnySchema, value);
  } catch (error) {
    throw malformed(name, key, 'not a packed message', error);
  }
}

/** A bucket of texts under a key, such as labels. */
export function readTexts({ name, bucket }: Source, key: string): Record<string, string> {
  const pairs: [string, string][] = [];
  for (const entry of bucket.bucket(key)?.entries() ?? []) {
    const field = keyOf(entry, name);
    if (entry.value) pairs.push([field, text(entry.value, name, `${key}: ${field}`)]);
  }
  return Object.fromEntries(pairs);
}

/** A bucket of packed messages under a key: a container's extensions. */
export function readAnys({ name, bucket }: Source, key: string): Record<string, Any> {
  const pairs: [string, Any][] = [];
  for (const entry of bucket.bucket(key)?.entries() ?? []) {
    const field = keyOf(entry, name);
    if (entry.value?.length) pairs.push([field, parseAny(entry.value, name, `${key}: ${field}`)]);
  }
  return Object.fromEntries(pairs);
}

export function keyOf(entry: BoltEntry, name: string): string {
  return text(entry.key, name, 'a key');
}

/** The buckets in a bucket, each a record, called `prefix key` in errors. */
export function* records(bucket: BoltBucket | undefined, prefix: string): Generator<Source & { readonly key: string }> {
  for (const entry of bucket?.entries() ?? []) {
    if (!entry.bucket) continue;
    const key = keyOf(entry, prefix);
    yield { key, name: `${prefix} ${key}`, bucket: entry.bucket };
  }
}
