// Messages that are mostly one field of bytes (content, snapshots of streams) go out without a copy of those bytes.
import { create, type DescField, type DescMessage, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { EncodedMessage } from './encoded-message.ts';

/** From here on a copy costs more than a second piece. */
const splitFrom = 16 << 10;

const noBytes = new Uint8Array(0);

/** The first singular bytes field of each schema that was asked for. */
const bytesFields = new WeakMap<DescMessage, DescField | null>();

/**
 * Encodes a message or a plain object in its shape, unless it is encoded, and hands the bytes on, in two pieces if the message has a large bytes field:
 * `tail`, which continues `head`, is then the field's value itself and not a copy. (The order of fields on the wire is free.)
 */
export function encodeMessage<Result>(
  schema: DescMessage,
  value: unknown,
  send: (head: Uint8Array, tail: Uint8Array | undefined) => Result,
): Result {
  if (value instanceof EncodedMessage) return send(value.bytes(), undefined);
  const message = create(schema, value as never) as unknown as Record<string, unknown>;
  const field = bytesField(schema);
  const bytes = field && (message[field.localName] as Uint8Array | undefined);
  if (!field || !bytes || bytes.length < splitFrom) return send(toBinary(schema, message as never), undefined);
  const rest = toBinary(schema, { ...message, [field.localName]: noBytes } as never);
  const writer = new BinaryWriter().raw(rest).tag(field.number, WireType.LengthDelimited).uint32(bytes.length);
  return send(writer.finish(), bytes);
}

function bytesField(schema: DescMessage): DescField | null {
  let field = bytesFields.get(schema);
  if (field === undefined) {
    field = schema.fields.find((one) => one.fieldKind === 'scalar' && one.scalar === 12 && !one.oneof) ?? null;
    bytesFields.set(schema, field);
  }
  return field;
}

/** The two pieces as one. */
export function joined(head: Uint8Array, tail: Uint8Array | undefined): Uint8Array {
  return tail ? Buffer.concat([head, tail]) : head;
}
