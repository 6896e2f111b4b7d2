import type { ContentReader } from '../../core/content/content-store.ts';

/** Manifests and configurations are smaller; layers are not. */
export const smallBlob = 32 << 10;
const heldBytes = 2 << 20;

/**
 * The small blobs read last, in memory: a container's start reads the same manifest and configuration eight times, each of which would
 * take four trips to the thread pool. What a digest names does not change.
 */
export class SmallBlobs {
  readonly #blobs = new Map<string, Uint8Array>();
  #held = 0;

  get(digest: string): Uint8Array | undefined {
    const bytes = this.#blobs.get(digest);
    if (bytes) {
      // The map keeps the order of insertion: the first is the one not read for longest.
      this.#blobs.delete(digest);
      this.#blobs.set(digest, bytes);
    }
    return bytes;
  }

  add(digest: string, bytes: Uint8Array): void {
    this.delete(digest);
    this.#blobs.set(digest, bytes);
    this.#held += bytes.length;
    for (const oldest of this.#blobs.keys()) {
      if (this.#held <= heldBytes) return;
      this.delete(oldest);
    }
  }

  delete(digest: string): void {
    this.#held -= this.#blobs.get(digest)?.length ?? 0;
    this.#blobs.delete(digest);
  }
}

/** Reads a blob that is in memory. What it gives is the reader's own. */
export class MemoryReader implements ContentReader {
  readonly path: string;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, path: string) {
    this.#bytes = bytes;
    this.path = path;
  }

  get size(): number {
    return this.#bytes.length;
  }

  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    const wanted = this.#bytes.subarray(offset, offset + Math.max(0, length));
    if (!into || into.length < wanted.length) return Buffer.from(wanted);
    into.set(wanted);
    return into.subarray(0, wanted.length);
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}
}
