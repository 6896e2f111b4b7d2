// Protobuf messages in the form in which Go programs print them: encoding/json on the generated structs, not protobuf's own JSON.

import type { Message } from '@bufbuild/protobuf';
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import type { Any } from '@bufbuild/protobuf/wkt';
import { type Json, parseJson } from '@gantry/oci';
import { decodeAny } from './known-messages.ts';

/**
 * A message with snake_case names, in the order of its fields, empty ones left out, 64-bit numbers as numbers, bytes in base64,
 * enums by number, and moments as seconds and nanos.
 */
export function plainMessage(schema: DescMessage, message: Message): Json {
  return plain(reflect(schema, message));
}

/** The content of an Any in that form; JSON documents as they are. Undefined if it is of an unknown type. */
export function plainAny(any: Any): Json | undefined {
  const decoded = decodeAny(any);
  if (decoded) return plainMessage(decoded.schema, decoded.message);
  if (any.value[0] !== 0x7b) return undefined;
  try {
    return parseJson(any.value);
  } catch {
    return undefined; // Not JSON after all, though it begins like an object.
  }
}

function plain(message: ReflectMessage): Json {
  const result: Record<string, Json> = {};
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    const value = fieldValue(message, field);
    if (value !== undefined) result[field.name] = value;
  }
  return result;
}

function fieldValue(message: ReflectMessage, field: DescField): Json | undefined {
  switch (field.fieldKind) {
    case 'message':
      return plain(message.get(field));
    case 'list':
      return [...message.get(field)].map((item) =>
        field.listKind === 'message' ? plain(item as ReflectMessage) : scalar(item),
      );
    case 'map': {
      const entries = [...message.get(field)].map(
        ([key, item]) =>
          [String(key), field.mapKind === 'message' ? plain(item as ReflectMessage) : scalar(item)] as const,
      );
      return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
    }
    case 'scalar':
      return field.scalar === ScalarType.BYTES
        ? Buffer.from(message.get(field) as Uint8Array).toString('base64')
        : scalar(message.get(field));
    case 'enum':
      return message.get(field) as number;
  }
}

function scalar(value: unknown): Json {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (typeof value === 'bigint' && value >= -9007199254740991n && value <= 9007199254740991n) return Number(value);
  return value as Json;
}
