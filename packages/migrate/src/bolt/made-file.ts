// A bbolt file made page by page, for tests: sound, so that each test can break one thing. Only tests import it.
import * as layout from './layout.ts';

export const pageSize = 4096;

export interface MadeElement {
  key: string;
  value: Buffer | string;
  bucket?: boolean;
}

/** Header and elements of a leaf, as on a page or inline. */
export function leaf(elements: readonly MadeElement[], id = 0, size?: number): Buffer {
  const data = elements.map(({ key, value }) => Buffer.concat([Buffer.from(key), Buffer.from(value)]));
  const needed = data.reduce((sum, bytes) => sum + bytes.length + layout.elementSize, layout.pageHeaderSize);
  const bytes = Buffer.alloc(size ?? needed);
  header(bytes, id, layout.leafPage, elements.length, Math.ceil(needed / pageSize) - 1);
  let end = layout.pageHeaderSize + elements.length * layout.elementSize;
  for (const [index, { key, value, bucket }] of elements.entries()) {
    const at = layout.pageHeaderSize + index * layout.elementSize;
    bytes.writeUInt32LE(bucket ? layout.bucketElement : 0, at);
    bytes.writeUInt32LE(end - at, at + 4);
    bytes.writeUInt32LE(Buffer.byteLength(key), at + 8);
    bytes.writeUInt32LE(Buffer.from(value).length, at + 12);
    data[index]!.copy(bytes, end);
    end += data[index]!.length;
  }
  return bytes;
}

export function branch(children: readonly { key: string; page: number }[], id: number): Buffer {
  const bytes = Buffer.alloc(pageSize);
  header(bytes, id, layout.branchPage, children.length, 0);
  let end = layout.pageHeaderSize + children.length * layout.elementSize;
  for (const [index, { key, page }] of children.entries()) {
    const at = layout.pageHeaderSize + index * layout.elementSize;
    bytes.writeUInt32LE(end - at, at);
    bytes.writeUInt32LE(Buffer.byteLength(key), at + 4);
    bytes.writeBigUInt64LE(BigInt(page), at + 8);
    end += bytes.write(key, end);
  }
  return bytes;
}

function header(bytes: Buffer, id: number, flags: number, count: number, overflow: number): void {
  bytes.writeBigUInt64LE(BigInt(id), 0);
  bytes.writeUInt16LE(flags, 8);
  bytes.writeUInt16LE(count, 10);
  bytes.writeUInt32LE(overflow, 12);
}

/** The value of a bucket whose tree begins at a page. */
export function bucketAt(page: number): Buffer {
  const bytes = Buffer.alloc(layout.bucketHeaderSize);
  bytes.writeBigUInt64LE(BigInt(page), 0);
  return bytes;
}

/** The value of a bucket inside its parent's page. */
export function inlineBucket(elements: readonly MadeElement[]): Buffer {
  return Buffer.concat([bucketAt(0), leaf(elements)]);
}

export function meta(options: { id: number; root: number; highWater: number; transaction: number }): Buffer {
  const bytes = Buffer.alloc(pageSize);
  header(bytes, options.id, layout.metaPage, 0, 0);
  const fields = bytes.subarray(layout.pageHeaderSize);
  fields.writeUInt32LE(layout.magic, 0);
  fields.writeUInt32LE(layout.formatVersion, 4);
  fields.writeUInt32LE(pageSize, 8);
  fields.writeBigUInt64LE(BigInt(options.root), 16);
  fields.writeBigUInt64LE(2n, 32);
  fields.writeBigUInt64LE(BigInt(options.highWater), 40);
  fields.writeBigUInt64LE(BigInt(options.transaction), 48);
  fields.writeBigUInt64LE(layout.fnv1a(fields.subarray(0, 56)), 56);
  return bytes;
}

/** A file of pages from number 3 on, the first of them the root; two meta pages and a free list stand before. */
export function madeFile(pages: readonly Buffer[], root = 3): Buffer {
  const padded = pages.map((page) => {
    const bytes = Buffer.alloc(Math.ceil(page.length / pageSize) * pageSize);
    page.copy(bytes);
    return bytes;
  });
  const body = Buffer.concat(padded);
  const highWater = 3 + body.length / pageSize;
  const freeList = Buffer.alloc(pageSize);
  header(freeList, 2, 0x10, 0, 0);
  const metas = [0, 1].map((id) => meta({ id, root, highWater, transaction: 6 + id }));
  return Buffer.concat([...metas, freeList, body]);
}

/** Buckets in buckets, and values. */
export interface Tree {
  [key: string]: string | Buffer | Tree;
}

/** The elements of a bucket, its buckets inline. */
export function elements(tree: Tree): MadeElement[] {
  return Object.keys(tree)
    .sort()
    .map((key) => {
      const value = tree[key]!;
      if (typeof value === 'string' || Buffer.isBuffer(value)) return { key, value };
      return { key, value: inlineBucket(elements(value)), bucket: true };
    });
}
