/** CRI messages as containerd writes them into JSON: the field names of the .proto file, numbers for enums and 64-bit integers. */
import {
  create,
  type DescField,
  type DescMessage,
  isFieldSet,
  type Message,
  type MessageShape,
} from '@bufbuild/protobuf';
import { stringifyJson } from '@gantry/oci';

type JsonObject = Record<string, unknown>;

/** Fields that are not set are left out; messages that are set stay, be they empty. */
export function toJson<D extends DescMessage>(schema: D, message: MessageShape<D>): JsonObject {
  return objectOf(schema, message);
}

/** The reverse. What the message does not know is left out. */
export function fromJson<D extends DescMessage>(schema: D, json: unknown): MessageShape<D> {
  return messageOf(schema, json) as MessageShape<D>;
}

// By the properties themselves: protobuf's reflection is ten times as slow, and every pod and container is written several times.
function objectOf(schema: DescMessage, message: Message): JsonObject {
  const result: JsonObject = {};
  for (const desc of schema.fields) {
    if (isFieldSet(message, desc)) result[desc.name] = fieldValue(desc, propertyOf(message, desc));
  }
  return result;
}

function propertyOf(message: Message, desc: DescField): unknown {
  const properties = message as unknown as JsonObject;
  return desc.oneof ? (properties[desc.oneof.localName] as { value: unknown }).value : properties[desc.localName];
}

function fieldValue(desc: DescField, value: unknown): unknown {
  switch (desc.fieldKind) {
    case 'list':
      return (value as unknown[]).map((item) =>
        desc.listKind === 'message' ? objectOf(desc.message, item as Message) : scalar(item),
      );
    case 'map':
      return Object.fromEntries(
        Object.entries(value as JsonObject).map(([key, item]) => [
          key,
          desc.mapKind === 'message' ? objectOf(desc.message, item as Message) : scalar(item),
        ]),
      );
    case 'message':
      return objectOf(desc.message, value as Message);
    default:
      return scalar(value);
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

/** JSON of an object, with further members that are JSON already: what is stored as text is not read to be written again. */
export function jsonWith(object: object, members: Readonly<Record<string, Uint8Array | undefined>>): string {
  const text = stringifyJson(object);
  const more = Object.entries(members).map(
    ([name, value]) =>
      `${JSON.stringify(name)}:${value ? Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8') : 'null'}`,
  );
  return `${text.slice(0, -1)}${text === '{}' ? '' : ','}${more.join(',')}}`;
}
