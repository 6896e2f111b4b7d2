/** CRI messages as containerd writes them into JSON: the field names of the .proto file, numbers for enums and 64-bit integers. */
import { create, type DescField, type DescMessage, isFieldSet, type MessageShape } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';

type JsonObject = Record<string, unknown>;

/** Fields that are not set are left out; messages that are set stay, be they empty. */
export function toJson<D extends DescMessage>(schema: D, message: MessageShape<D>): JsonObject {
  return objectOf(reflect(schema, message));
}

/** The reverse. What the message does not know is left out. */
export function fromJson<D extends DescMessage>(schema: D, json: unknown): MessageShape<D> {
  return messageOf(schema, json) as MessageShape<D>;
}

function objectOf(message: ReflectMessage): JsonObject {
  const result: JsonObject = {};
  for (const desc of message.fields) {
    if (!isFieldSet(message.message, desc)) continue;
    result[desc.name] = fieldValue(message, desc);
  }
  return result;
}

function fieldValue(message: ReflectMessage, desc: DescField): unknown {
  switch (desc.fieldKind) {
    case 'list':
      return [...message.get(desc)].map((item) =>
        desc.listKind === 'message' ? objectOf(item as ReflectMessage) : scalar(item),
      );
    case 'map':
      return Object.fromEntries(
        [...message.get(desc)].map(([key, item]) => [
          String(key),
          desc.mapKind === 'message' ? objectOf(item as ReflectMessage) : scalar(item),
        ]),
      );
    case 'message':
      return objectOf(message.get(desc));
    default:
      return scalar(message.get(desc));
  }
}

function scalar(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  // The values of environment variables: containerd has them as text.
  if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8');
  return value;
}

function messageOf(schema: DescMessage, json: unknown): unknown {
  const init: JsonObject = {};
  if (typeof json === 'object' && json !== null) {
    for (const desc of schema.fields) {
      const value = (json as JsonObject)[desc.name];
      if (value === undefined || value === null) continue;
      init[desc.localName] = parsed(desc, value);
    }
  }
  return create(schema, init as never);
}

function parsed(desc: DescField, value: unknown): unknown {
  switch (desc.fieldKind) {
    case 'list':
      return (value as unknown[]).map((item) =>
        desc.listKind === 'message' ? messageOf(desc.message, item) : parsedScalar(desc.scalar, item),
      );
    case 'map':
      return Object.fromEntries(
        Object.entries(value as JsonObject).map(([key, item]) => [
          key,
          desc.mapKind === 'message' ? messageOf(desc.message, item) : parsedScalar(desc.scalar, item),
        ]),
      );
    case 'message':
      return messageOf(desc.message, value);
    default:
      return parsedScalar(desc.scalar, value);
  }
}

// Of descriptor.proto: the 64-bit integers, and bytes.
const long = new Set<number | undefined>([3, 4, 6, 16, 18]);
const bytes = 12;

function parsedScalar(type: number | undefined, value: unknown): unknown {
  if (long.has(type)) return BigInt(value as number | bigint | string);
  if (type === bytes) return Buffer.from(value as string, 'utf8');
  return value;
}
