/** Which file a log is, whatever its name has become. */
export interface FileIdentity {
  dev: bigint;
  ino: bigint;
}

/** Lines are being added to the log: with the last byte of them at `offset + length` the stream's spool is used up to `head`. */
export interface LogStep {
  stream: 0 | 1;
  offset: number;
  length: number;
  head: number;
}

/** What is being done to the files of a container's log, noted before it is done. */
export interface LogRecord {
  log: FileIdentity;
  /** Up to where each stream's spool was in the log before this step. */
  heads: [number, number];
  step: LogStep | undefined;
}

/** Bytes of a record: one write within one page, which a kill comes before or after. */
export const recordBytes = 72;

const magic = 0x314c4347;

export function encodeRecord({ log, heads, step }: LogRecord, into: Buffer): void {
  into.fill(0);
  into.writeUInt32LE(magic, 0);
  into.writeUInt8(step ? 1 : 0, 4);
  into.writeUInt8(step?.stream ?? 0, 5);
  into.writeBigUInt64LE(log.dev, 8);
  into.writeBigUInt64LE(log.ino, 16);
  into.writeDoubleLE(heads[0], 24);
  into.writeDoubleLE(heads[1], 32);
  into.writeDoubleLE(step?.offset ?? 0, 40);
  into.writeDoubleLE(step?.length ?? 0, 48);
  into.writeDoubleLE(step?.head ?? 0, 56);
}

/** undefined for what is no record: the journal was made and never written. */
export function decodeRecord(bytes: Buffer): LogRecord | undefined {
  if (bytes.length < recordBytes || bytes.readUInt32LE(0) !== magic) return undefined;
  return {
    log: { dev: bytes.readBigUInt64LE(8), ino: bytes.readBigUInt64LE(16) },
    heads: [bytes.readDoubleLE(24), bytes.readDoubleLE(32)],
    step:
      bytes.readUInt8(4) === 0
        ? undefined
        : {
            stream: bytes.readUInt8(5) === 0 ? 0 : 1,
            offset: bytes.readDoubleLE(40),
            length: bytes.readDoubleLE(48),
            head: bytes.readDoubleLE(56),
          },
  };
}
