/**
 * Intel's ISA-L, where it is installed (Debian: `libisal2`): inflates two to three times as fast as zlib. Raw deflate only; the wrapper
 * around it is the caller's.
 */
import koffi from 'koffi';

/** Where the fields of `struct inflate_state` are; the same in every libisal.so.2, and tried out before first use. */
const field = { nextOut: 0, availOut: 8, nextIn: 16, bits: 24, availIn: 32, bitCount: 36, blockState: 21_160 } as const;
/** Larger than the structure (87,368 bytes in 2.30), so that one that has grown fits. */
const stateSize = 256 << 10;
/** `ISAL_BLOCK_FINISH`: the last block is decoded and all of it is in the output. */
const finished = 5;

type Asynchronous = (state: Buffer, done: (error: Error | null, result: number) => void) => void;

interface Library {
  init(state: Buffer): void;
  inflate: ((state: Buffer) => number) & { async: Asynchronous };
  crc32(before: number, bytes: Uint8Array, length: number): number;
}

let library: Library | undefined | null;

function load(): Library | undefined {
  if (library !== undefined) return library ?? undefined;
  library = null;
  try {
    const loaded = koffi.load('libisal.so.2');
    library = {
      init: loaded.func('void isal_inflate_init(void *)'),
      inflate: loaded.func('int isal_inflate(void *)') as unknown as Library['inflate'],
      crc32: loaded.func('uint32_t crc32_gzip_refl(uint32_t, const void *, uint64_t)'),
    };
    if (!works()) library = null;
  } catch {
    library = null;
  }
  return library ?? undefined;
}

// The structure's layout is part of no promise we know of: what is known to come out has to come out.
function works(): boolean {
  // "gantry gantry gantry gantry", deflated with fixed codes, and two bytes that are not part of it.
  const packed = Buffer.from('4b4fcc2b29aa5448c7420100cdcd', 'hex');
  const inflater = new IsalInflater();
  const output = Buffer.alloc(64);
  inflater.input(packed);
  const first = inflater.inflate(output.subarray(0, 10));
  if (first.produced !== 10 || first.done) return false;
  const second = inflater.inflate(output.subarray(10));
  if (!second.done || !isRest(inflater.rest(), packed.subarray(-2))) return false;
  return output.toString('latin1', 0, 10 + second.produced) === 'gantry gantry gantry gantry';
}

const isRest = ({ taken, left }: { taken: Buffer; left: Buffer }, expected: Buffer) =>
  Buffer.concat([taken, left]).equals(expected);

/** Whether the library is there and does what it should. */
export const hasIsal = (): boolean => load() !== undefined;

/** `code` is the library's: -1 bad block, -2 bad symbol, -3 bad distance. */
export class IsalError extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`isal_inflate: error ${code}`);
    this.code = code;
  }
}

export interface Inflated {
  /** Bytes written to the output. */
  produced: number;
  /** The end of the deflate stream was reached. If not, and the output has room left, more input is needed. */
  done: boolean;
}

/** One deflate stream after the other. */
export class IsalInflater {
  readonly #library: Library;
  readonly #state = Buffer.alloc(stateSize);
  /** The library holds its address, so it must not be collected. */
  #input: Buffer | undefined;

  /** @throws Error if the library is not there */
  constructor() {
    const loaded = load();
    if (!loaded) throw new Error('libisal.so.2 is not installed');
    this.#library = loaded;
    this.reset();
  }

  /** Whether all input is taken. */
  get hungry(): boolean {
    return this.#state.readUInt32LE(field.availIn) === 0;
  }

  /** After the end of a stream: what follows it, the up to seven bytes that were taken too far and what is left of the input. */
  rest(): { taken: Buffer; left: Buffer } {
    const count = this.#state.readInt32LE(field.bitCount);
    const left = this.#state.readUInt32LE(field.availIn);
    const taken = Buffer.alloc(8);
    taken.writeBigUInt64LE(this.#state.readBigUInt64LE(field.bits) >> BigInt(count & 7));
    return { taken: taken.subarray(0, count >> 3), left: this.#input!.subarray(this.#input!.length - left) };
  }

  /** The gzip checksum of bytes, going on from that of the bytes `before` them. Several times as fast as zlib's. */
  crc32(bytes: Uint8Array, before: number): number {
    return this.#library.crc32(before, bytes, bytes.length);
  }

  /** Gets ready for another stream, of another input. */
  reset(): void {
    this.#library.init(this.#state);
    this.#input = undefined;
  }

  /** Sets what to inflate next. It must not change until it is used up or replaced. */
  input(bytes: Buffer): void {
    this.#input = bytes;
    this.#state.writeBigUInt64LE(bytes.length === 0 ? 0n : (koffi.address(bytes) as bigint), field.nextIn);
    this.#state.writeUInt32LE(bytes.length, field.availIn);
  }

  /** Blocks the thread. @throws IsalError if the input is no deflate stream */
  inflate(output: Buffer): Inflated {
    this.#aim(output);
    return this.#result(output, this.#library.inflate(this.#state));
  }

  /** The same on a thread of the pool. Nothing else may be called until it has settled. */
  async inflateAsync(output: Buffer): Promise<Inflated> {
    this.#aim(output);
    const code = await new Promise<number>((resolve, reject) => {
      this.#library.inflate.async(this.#state, (error, result) => (error ? reject(error) : resolve(result)));
    });
    return this.#result(output, code);
  }

  #aim(output: Buffer): void {
    this.#state.writeBigUInt64LE(koffi.address(output) as bigint, field.nextOut);
    this.#state.writeUInt32LE(output.length, field.availOut);
  }

  #result(output: Buffer, code: number): Inflated {
    if (code < 0) throw new IsalError(code);
    return {
      produced: output.length - this.#state.readUInt32LE(field.availOut),
      done: this.#state.readUInt32LE(field.blockState) === finished,
    };
  }
}
