/**
 * Just enough of the protobuf wire format to read the start parameters and to answer them. The `start` action runs once for
 * every container of a daemon that does not know about reuse, so it must not pay for loading the whole protobuf runtime.
 */
export interface WireField {
  number: number;
  /** A varint's value, or the bytes of a length-delimited field. Fixed-width fields are skipped. */
  value: bigint | Buffer;
}

/** The fields of a message. @returns undefined if the bytes are not a message. */
export function readFields(data: Buffer): WireField[] | undefined {
  const fields: WireField[] = [];
  let at = 0;
  const varint = (): bigint | undefined => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = data[at++];
      if (byte === undefined) return undefined;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    return undefined;
  };
  while (at < data.length) {
    const tag = varint();
    if (tag === undefined || tag >> 3n === 0n) return undefined;
    const number = Number(tag >> 3n);
    const kind = Number(tag & 7n);
    if (kind === 0) {
      const value = varint();
      if (value === undefined) return undefined;
      fields.push({ number, value });
    } else if (kind === 2) {
      const length = varint();
      if (length === undefined || at + Number(length) > data.length) return undefined;
      fields.push({ number, value: data.subarray(at, at + Number(length)) });
      at += Number(length);
    } else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else return undefined;
    if (at > data.length) return undefined;
  }
  return fields;
}

/** The last string with that number, or ''. */
export function stringField(fields: readonly WireField[], number: number): string {
  return bytesField(fields, number)?.toString('utf8') ?? '';
}

/** The last bytes with that number. */
export function bytesField(fields: readonly WireField[], number: number): Buffer | undefined {
  const value = fields.findLast((field) => field.number === number)?.value;
  return Buffer.isBuffer(value) ? value : undefined;
}

function varintBytes(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return bytes;
}

/** One field: a number as varint, anything else length-delimited. */
export function writeField(number: number, value: number | string | Buffer): Buffer {
  if (typeof value === 'number') return Buffer.from([...varintBytes(number << 3), ...varintBytes(value)]);
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([Buffer.from([...varintBytes((number << 3) | 2), ...varintBytes(bytes.length)]), bytes]);
}
