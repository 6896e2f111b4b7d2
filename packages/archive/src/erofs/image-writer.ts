/** Writes an image front to back: room for the superblock, data as they come, and at last the metadata and the superblock. */
import { fsyncSync, ftruncateSync, writeSync } from 'node:fs';
import { encodeSuperblock, HOLE, SUPERBLOCK_OFFSET } from './erofs-format.ts';
import type { ErofsNode } from './erofs-node.ts';
import { encodeMetadata, planMetadata } from './metadata-layout.ts';

const BUFFER = 1 << 20;
/** Longer gaps are left out of the file, and so take no room. */
const MAX_ZEROS = 64 << 10;
/** Data begin here, whatever the block size. */
const DATA_OFFSET = 4096;
/** Most entries of a chunk map, and of all maps of an image before they get as coarse as `FEW_CHUNKS`. */
const MAX_CHUNKS = 1 << 16;
const ALL_CHUNKS = 1 << 22;
/** So many cost no more than the header of the file in an archive. */
const FEW_CHUNKS = 64;

export interface ImageSize {
  /** Bytes. */
  size: number;
  inodes: number;
}

export class ImageWriter {
  readonly #fd: number;
  readonly #blockBits: number;
  readonly blockSize: number;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER);
  /** Where in the file the buffer begins, and how much of it is filled. */
  #start = DATA_OFFSET;
  #fill = 0;
  #sparse: ErofsNode | undefined;
  #chunksLeft = ALL_CHUNKS;
  /** Of a sparse file: the chunk that is being written, and where in the image it begins. */
  #chunk = -1;
  #chunkStart = 0;

  /** `fd`: an empty file, open for writing; stays the caller's. */
  constructor(fd: number, blockBits: number) {
    this.#fd = fd;
    this.#blockBits = blockBits;
    this.blockSize = 2 ** blockBits;
  }

  /** Where the next byte goes. */
  get position(): number {
    return this.#start + this.#fill;
  }

  write(bytes: Buffer, start = 0, end = bytes.length): void {
    if (end - start >= BUFFER) {
      this.#flush();
      this.#put(bytes, start, end);
      return;
    }
    while (start < end) {
      const n = bytes.copy(this.#buffer, this.#fill, start, end);
      this.#fill += n;
      start += n;
      if (this.#fill === BUFFER) this.#flush();
    }
  }

  #flush(): void {
    const { length } = this.#buffer.subarray(0, this.#fill);
    this.#fill = 0;
    this.#put(this.#buffer, 0, length);
  }

  #put(bytes: Buffer, start: number, end: number): void {
    while (start < end) {
      const n = writeSync(this.#fd, bytes, start, end - start, this.#start);
      start += n;
      this.#start += n;
    }
  }

  /** Goes on at `position`; what is left out reads as zeros. */
  skipTo(position: number): void {
    const gap = position - this.position;
    if (gap === 0) return;
    if (gap <= Math.min(MAX_ZEROS, BUFFER - this.#fill)) {
      this.#buffer.fill(0, this.#fill, this.#fill + gap);
      this.#fill += gap;
      if (this.#fill === BUFFER) this.#flush();
      return;
    }
    this.#flush();
    this.#start = position;
  }

  align(): void {
    this.skipTo(Math.ceil(this.position / this.blockSize) * this.blockSize);
  }

  #block(position: number): number {
    const block = position / this.blockSize;
    if (block >= HOLE) throw new Error(`image is larger than ${HOLE} blocks`);
    return block;
  }

  /** Makes ready for a regular file's data, which come next by `fileData`. */
  beginFile(node: ErofsNode, sparse: boolean): void {
    this.align();
    const size = node.size ?? 0;
    if (!sparse || size === 0) {
      node.block = size === 0 ? 0 : this.#block(this.position);
      this.#sparse = undefined;
      return;
    }
    let bits = this.#blockBits;
    // A thousand headers that promise a terabyte each must not fill the memory with maps.
    const most = Math.max(FEW_CHUNKS, Math.min(MAX_CHUNKS, this.#chunksLeft >> 2));
    while (size / 2 ** bits > most) bits++;
    if (bits > this.#blockBits + 31) throw new Error(`file of ${size} bytes is too large for an image`);
    node.chunks = { bits, blockBits: this.#blockBits, blocks: new Uint32Array(Math.ceil(size / 2 ** bits)).fill(HOLE) };
    this.#chunksLeft -= node.chunks.blocks.length;
    this.#sparse = node;
    this.#chunk = -1;
  }

  /** Data at a place in the file, in order. */
  fileData(bytes: Buffer, start: number, end: number, at: number): void {
    const chunks = this.#sparse?.chunks;
    if (!chunks) {
      this.write(bytes, start, end);
      return;
    }
    const chunkSize = 2 ** chunks.bits;
    while (start < end) {
      const index = Math.floor(at / chunkSize);
      if (index !== this.#chunk) this.#beginChunk(index);
      const inside = at - index * chunkSize;
      const n = Math.min(end - start, chunkSize - inside);
      this.skipTo(this.#chunkStart + inside);
      this.write(bytes, start, start + n);
      start += n;
      at += n;
    }
  }

  #beginChunk(index: number): void {
    this.#endChunk();
    this.align();
    this.#chunk = index;
    this.#chunkStart = this.position;
    this.#sparse!.chunks!.blocks[index] = this.#block(this.position);
  }

  /** A chunk is there as a whole, also if its end is a hole. */
  #endChunk(): void {
    const { chunks, size = 0 } = this.#sparse!;
    if (this.#chunk < 0) return;
    const chunkSize = 2 ** chunks!.bits;
    this.skipTo(this.#chunkStart + Math.min(chunkSize, size - this.#chunk * chunkSize));
  }

  endFile(): void {
    if (this.#sparse) this.#endChunk();
    this.#sparse = undefined;
  }

  /** Writes the tree and the superblock. The image is whole afterwards. */
  finish(root: ErofsNode, uuid: Buffer, sync = false): ImageSize {
    this.align();
    const metaStart = this.position;
    const plan = planMetadata(root, this.blockSize, this.#block(metaStart));
    encodeMetadata(plan, this, metaStart);
    this.align();
    const size = this.position;
    this.#flush();
    ftruncateSync(this.#fd, size);
    const superblock = encodeSuperblock({
      blockBits: this.#blockBits,
      rootNid: plan.rootNid,
      inodes: plan.inodes.length,
      blocks: this.#block(size),
      metaBlock: this.#block(metaStart),
      uuid,
      chunked: plan.chunked,
    });
    this.#start = SUPERBLOCK_OFFSET;
    this.#put(superblock, 0, superblock.length);
    if (sync) fsyncSync(this.#fd);
    return { size, inodes: plan.inodes.length };
  }
}
