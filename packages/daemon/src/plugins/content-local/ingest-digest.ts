import { createHash, type Hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { internal } from '@gantry/api';
import { type PoolDigest, poolDigest } from '@gantry/sys/digest.ts';

/** Up to here the way to another thread and back costs more than hashing where we are (16 µs of hashing for this much). */
const inlineLimit = 64 * 1024;

type Mode =
  | { kind: 'inline'; hash: Hash }
  | { kind: 'pool'; hash: PoolDigest }
  /** The digest up to the offset is known (or not), but no hash is running that could go on from it. */
  | { kind: 'file'; hex: string | undefined };

/**
 * The running digest of one ingest. Small ingests are hashed in place; when one outgrows that, its bytes are hashed on threads
 * of the pool, while they are written to the file.
 */
export class IngestDigest {
  readonly algorithm: string;
  readonly #path: string;
  #mode: Mode;
  #offset = 0;

  constructor(path: string, algorithm: string) {
    this.#path = path;
    this.algorithm = algorithm;
    this.#mode = { kind: 'inline', hash: createHash(algorithm) };
  }

  /** Goes on from a file that has `offset` bytes already; `hex` is their digest, if somebody knows it. */
  restart(offset: number, hex?: string): void {
    this.#release();
    this.#offset = offset;
    this.#mode = offset === 0 ? { kind: 'inline', hash: createHash(this.algorithm) } : { kind: 'file', hex };
  }

  /** Adds bytes that are (or are being) appended to the file. They are read before the promise settles, not after. */
  async update(chunk: Uint8Array): Promise<void> {
    if (this.#mode.kind === 'inline' && this.#offset + chunk.length <= inlineLimit) {
      this.#mode.hash.update(chunk);
      this.#offset += chunk.length;
      return;
    }
    const hash = this.#mode.kind === 'pool' ? this.#mode.hash : await this.#toPool();
    await hash.update(chunk);
    this.#offset += chunk.length;
  }

  /** `algorithm:hex` of all bytes so far. */
  async digest(): Promise<string> {
    const mode = this.#mode;
    if (mode.kind === 'inline') return `${this.algorithm}:${mode.hash.copy().digest('hex')}`;
    if (mode.kind === 'pool') return `${this.algorithm}:${mode.hash.hex()}`;
    if (mode.hex !== undefined) return `${this.algorithm}:${mode.hex}`;
    return `${this.algorithm}:${(await this.#toPool()).hex()}`;
  }

  /** The digest by another algorithm, from the file. */
  async digestBy(algorithm: string): Promise<string> {
    if (algorithm === this.algorithm) return this.digest();
    const hash = await hashFile(this.#path, algorithm, this.#offset);
    try {
      return `${algorithm}:${hash.hex()}`;
    } finally {
      hash.close();
    }
  }

  close(): void {
    this.#release();
    this.#mode = { kind: 'file', hex: undefined };
  }

  /** Hashes what the file has up to the offset, to go on from there. */
  async #toPool(): Promise<PoolDigest> {
    const hash = await hashFile(this.#path, this.algorithm, this.#offset);
    this.#mode = { kind: 'pool', hash };
    return hash;
  }

  #release(): void {
    if (this.#mode.kind === 'pool') this.#mode.hash.close();
  }
}

/** The running digest of a file's first `size` bytes. */
async function hashFile(path: string, algorithm: string, size: number): Promise<PoolDigest> {
  const hash = poolDigest(algorithm);
  try {
    if (size === 0) return hash;
    await using file = await open(path, 'r');
    const block = Buffer.allocUnsafeSlow(Math.min(size, 1 << 20));
    for (let offset = 0; offset < size; ) {
      const { bytesRead } = await file.read(block, 0, Math.min(block.length, size - offset), offset);
      if (bytesRead === 0) throw internal(`${path} ends at ${offset}, expected ${size} bytes`);
      await hash.update(block.subarray(0, bytesRead));
      offset += bytesRead;
    }
    return hash;
  } catch (reason) {
    hash.close();
    throw reason;
  }
}
