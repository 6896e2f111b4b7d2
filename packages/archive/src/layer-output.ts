/** The far end of a layer being written: hashes what comes, compresses it in the thread pool, and hands it to a file or a port. */
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import type { Transform } from 'node:stream';
import type { MessagePort } from 'node:worker_threads';
import { type Compression, createCompressor } from './compression.ts';
import { PortSender } from './port-chunks.ts';

export type LayerTarget = { kind: 'file'; path: string } | { kind: 'port'; port: MessagePort };

export interface LayerDigests {
  /** sha256 of the uncompressed archive. */
  diffId: string;
  /** sha256 of the bytes written. */
  digest: string;
  /** Bytes written. */
  size: number;
  /** Bytes before compression. */
  uncompressedSize: number;
}

interface Destination {
  write(chunk: Buffer): Promise<void> | void;
  close(error?: Error): void;
}

const PIECE = 256 << 10;

export class LayerOutput {
  readonly #plainHash = createHash('sha256');
  readonly #packedHash = createHash('sha256');
  readonly #compressor: Transform | undefined;
  readonly #destination: Destination;
  readonly #draining: Promise<void>;
  #piece = Buffer.allocUnsafeSlow(PIECE);
  #fill = 0;
  #plainSize = 0;
  #packedSize = 0;
  /** Full pieces not yet taken. */
  readonly #queue: Buffer[] = [];

  constructor(target: LayerTarget, compression: Compression) {
    this.#compressor = createCompressor(compression);
    this.#destination = target.kind === 'file' ? fileDestination(target.path) : portDestination(target.port);
    this.#draining = this.#compressor ? this.#drain(this.#compressor) : Promise.resolve();
    // Whoever waits next meets the failure; nobody else needs to hear of it.
    this.#draining.catch(() => {});
  }

  /** Takes bytes (copied). Call `ready` now and then. */
  write(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      const n = bytes.copy(this.#piece, this.#fill, at);
      at += n;
      this.#fill += n;
      if (this.#fill === PIECE) this.#next();
    }
  }

  /** Waits until at most one piece is on its way. */
  async ready(): Promise<void> {
    for (let piece = this.#queue.shift(); piece; piece = this.#queue.shift()) {
      this.#plainSize += piece.length;
      this.#plainHash.update(piece);
      if (!this.#compressor) {
        await this.#deliver(piece);
        continue;
      }
      const compressor = this.#compressor;
      const taken = Promise.withResolvers<void>();
      compressor.write(piece, (error) => (error ? taken.reject(error) : taken.resolve()));
      await Promise.race([taken.promise, this.#draining.then(() => taken.promise)]);
    }
  }

  async finish(): Promise<LayerDigests> {
    if (this.#fill > 0) this.#next();
    await this.ready();
    this.#compressor?.end();
    await this.#draining;
    this.#destination.close();
    return {
      diffId: `sha256:${this.#plainHash.digest('hex')}`,
      digest: `sha256:${this.#packedHash.digest('hex')}`,
      size: this.#packedSize,
      uncompressedSize: this.#plainSize,
    };
  }

  /** Lets go after a failure. */
  destroy(error: Error): void {
    this.#compressor?.destroy();
    this.#destination.close(error);
  }

  #next(): void {
    this.#queue.push(this.#piece.subarray(0, this.#fill));
    this.#piece = Buffer.allocUnsafeSlow(PIECE);
    this.#fill = 0;
  }

  async #drain(compressor: Transform): Promise<void> {
    for await (const chunk of compressor) await this.#deliver(chunk as Buffer);
  }

  async #deliver(chunk: Buffer): Promise<void> {
    this.#packedSize += chunk.length;
    this.#packedHash.update(chunk);
    await this.#destination.write(chunk);
  }
}

function fileDestination(path: string): Destination {
  const fd = openSync(path, 'a+', 0o600);
  ftruncateSync(fd, 0);
  let open = true;
  return {
    write(chunk) {
      for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
    },
    close() {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

function portDestination(port: MessagePort): Destination {
  const sender = new PortSender(port);
  return {
    write: (chunk) => sender.send(chunk),
    close: (error) => sender.end(error),
  };
}
