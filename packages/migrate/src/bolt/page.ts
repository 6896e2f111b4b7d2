import * as layout from './layout.ts';
import { corrupt } from './meta.ts';

/** A child of a branch: all its keys are at or after `key`. */
export interface BranchElement {
  readonly key: Buffer;
  readonly page: number;
}

export interface LeafElement {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly isBucket: boolean;
}

/** A page with whatever it runs on to, checked as far as its own bytes tell. */
export class Page {
  readonly #file: string;
  readonly #name: string;
  readonly #bytes: Buffer;
  readonly kind: 'branch' | 'leaf';
  readonly count: number;

  /** @param name how errors call it, such as `page 7` */
  constructor(file: string, name: string, bytes: Buffer) {
    this.#file = file;
    this.#name = name;
    this.#bytes = bytes;
    if (bytes.length < layout.pageHeaderSize) throw corrupt(file, `${name} is cut off`);
    const flags = bytes.readUInt16LE(8);
    const kind = flags & (layout.branchPage | layout.leafPage);
    if (kind !== layout.branchPage && kind !== layout.leafPage)
      throw corrupt(file, `${name} is neither branch nor leaf (flags 0x${flags.toString(16)})`);
    this.kind = kind === layout.branchPage ? 'branch' : 'leaf';
    this.count = bytes.readUInt16LE(10);
    const end = layout.pageHeaderSize + this.count * layout.elementSize;
    if (end > bytes.length) throw corrupt(file, `${name} has ${this.count} elements, more than it has room for`);
    if (this.kind === 'branch' && this.count === 0) throw corrupt(file, `${name} is a branch without children`);
  }

  branch(index: number): BranchElement {
    const at = layout.pageHeaderSize + index * layout.elementSize;
    const [key] = this.#slices(at, this.#bytes.readUInt32LE(at), this.#bytes.readUInt32LE(at + 4), 0);
    return { key, page: Number(this.#bytes.readBigUInt64LE(at + 8)) };
  }

  leaf(index: number): LeafElement {
    const at = layout.pageHeaderSize + index * layout.elementSize;
    const flags = this.#bytes.readUInt32LE(at);
    const keySize = this.#bytes.readUInt32LE(at + 8);
    const [key, value] = this.#slices(at, this.#bytes.readUInt32LE(at + 4), keySize, this.#bytes.readUInt32LE(at + 12));
    return { key, value, isBucket: (flags & layout.bucketElement) !== 0 };
  }

  /** Key and value lie one after the other, at a distance from the element itself. */
  #slices(at: number, distance: number, keySize: number, valueSize: number): [Buffer, Buffer] {
    const start = at + distance;
    if (start + keySize + valueSize > this.#bytes.length)
      throw corrupt(this.#file, `an element of ${this.#name} lies outside of it`);
    const value = start + keySize;
    return [this.#bytes.subarray(start, value), this.#bytes.subarray(value, value + valueSize)];
  }
}
