import { createHash } from 'node:crypto';
import { failedPrecondition, invalidArgument, now, unimplemented } from '@gantry/api';
import { validateLabels } from '../validation/labels.ts';
import type { CommitOptions, ContentInfo, ContentWriter, IngestStatus } from './content-store.ts';

/** Gathers a small blob in memory; see ContentStore.wholeWriter. */
export class WholeWriter implements ContentWriter {
  readonly #ref: string;
  readonly #expected: string;
  readonly #bytes: Buffer;
  readonly #startedAt = now();
  readonly #commit: (bytes: Uint8Array, labels: Record<string, string>) => Promise<ContentInfo>;
  #offset = 0;
  #open = true;

  /** `commit` is given the bytes that the digest says. */
  constructor(
    { ref, size, expected }: { ref: string; size: number; expected: string },
    commit: (bytes: Uint8Array, labels: Record<string, string>) => Promise<ContentInfo>,
  ) {
    this.#ref = ref;
    this.#expected = expected;
    this.#bytes = Buffer.alloc(size);
    this.#commit = commit;
  }

  /** What has been written so far; it changes with the next write. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#offset);
  }

  status(): IngestStatus {
    const at = this.#startedAt;
    const total = this.#bytes.length;
    return { ref: this.#ref, offset: this.#offset, total, expected: this.#expected, startedAt: at, updatedAt: at };
  }

  async digest(): Promise<string> {
    const algorithm = this.#expected.slice(0, this.#expected.indexOf(':'));
    return `${algorithm}:${createHash(algorithm).update(this.bytes).digest('hex')}`;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#mustBeOpen('write to');
    const end = this.#offset + chunk.length;
    if (end > this.#bytes.length) {
      throw failedPrecondition(`unexpected commit size ${end}, expected ${this.#bytes.length}: failed precondition`);
    }
    this.#bytes.set(chunk, this.#offset);
    this.#offset = end;
  }

  async truncate(size: number): Promise<void> {
    this.#mustBeOpen('truncate');
    if (size < 0 || size > this.#offset) {
      throw invalidArgument(`cannot truncate ${this.#ref} to ${size}, it has ${this.#offset} bytes`);
    }
    this.#offset = size;
  }

  async commit({ size, expected, labels = {} }: CommitOptions = {}): Promise<ContentInfo> {
    this.#mustBeOpen('commit on');
    this.#open = false;
    validateLabels(labels);
    const wanted = size || this.#bytes.length;
    if (wanted !== this.#offset) {
      throw failedPrecondition(`unexpected commit size ${this.#offset}, expected ${wanted}: failed precondition`);
    }
    if (expected && expected !== this.#expected) {
      throw unimplemented(`${this.#ref} was begun for ${this.#expected}, not ${expected}: not implemented`);
    }
    const digest = await this.digest();
    if (digest !== this.#expected) {
      throw failedPrecondition(`unexpected commit digest ${digest}, expected ${this.#expected}: failed precondition`);
    }
    return await this.#commit(this.bytes, labels);
  }

  async close(): Promise<void> {
    this.#open = false;
  }

  #mustBeOpen(what: string): void {
    if (!this.#open) throw failedPrecondition(`cannot ${what} closed writer: failed precondition`);
  }
}
