import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';

/** An Any as records keep it: without the message's prototype. */
export interface AnyRecord {
  typeUrl: string;
  value: Uint8Array;
}

export function toAnyRecord({ typeUrl, value }: Any): AnyRecord {
  return { typeUrl, value };
}

export function fromAnyRecord(record: AnyRecord): Any;
export function fromAnyRecord(record: AnyRecord | undefined): Any | undefined;
export function fromAnyRecord(record: AnyRecord | undefined): Any | undefined {
  return record && create(AnySchema, { typeUrl: record.typeUrl, value: new Uint8Array(record.value) });
}
