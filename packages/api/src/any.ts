import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { invalidArgument } from './status-error.ts';

/**
 * Any as containerd's typeurl packs it: the type URL is the bare full name of the message, without the
 * `type.googleapis.com/` prefix that protobuf's own helpers write. Both forms are read.
 */
export function packAny<D extends DescMessage>(schema: D, message: MessageInitShape<D>): Any {
  return create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, create(schema, message)) });
}

/** The full name in a type URL: what stands after its last slash, if anything does. */
export function typeNameOf(any: { typeUrl: string }): string {
  return any.typeUrl.slice(any.typeUrl.lastIndexOf('/') + 1);
}

/** Whether an Any holds that message. */
export function isAny(any: { typeUrl: string } | undefined, schema: DescMessage): boolean {
  return any !== undefined && typeNameOf(any) === schema.typeName;
}

/** The message in an Any. @throws StatusError InvalidArgument if it holds another type. */
export function unpackAny<D extends DescMessage>(schema: D, any: Any): MessageShape<D> {
  if (!isAny(any, schema)) throw invalidArgument(`expected ${schema.typeName}, got ${any.typeUrl}`);
  return fromBinary(schema, any.value);
}

/** An Any that holds JSON under a type URL of its own, as containerd carries OCI types. The bytes are kept as given. */
export function jsonAny(typeUrl: string, json: string | Uint8Array): Any {
  return create(AnySchema, { typeUrl, value: typeof json === 'string' ? new TextEncoder().encode(json) : json });
}
