import type { BoltFile } from './bolt-file.ts';
import * as layout from './layout.ts';
import { corrupt } from './meta.ts';
import { type LeafElement, Page } from './page.ts';

/** Branches above a leaf: with two keys a page, the smallest that bbolt writes, more than any file has. */
const deepestTree = 40;
/** Buckets in buckets. containerd has seven. */
const deepestNesting = 32;

/** A key of a bucket and what it holds: bytes, or a bucket. */
export type BoltEntry = { readonly key: Buffer } & (
  | { readonly value: Buffer; readonly bucket?: undefined }
  | { readonly bucket: BoltBucket; readonly value?: undefined }
);

/** A map from keys to values and to further buckets, in the order of keys' bytes: a tree of pages, or a page inside its parent. */
export class BoltBucket {
  readonly #file: BoltFile;
  readonly #root: number;
  #first: Page | undefined;
  readonly #nesting: number;

  constructor(file: BoltFile, root: number, inline: Page | undefined, nesting: number) {
    if (nesting > deepestNesting) throw corrupt(file.path, `buckets in buckets, more than ${deepestNesting} deep`);
    this.#file = file;
    this.#root = root;
    this.#first = inline;
    this.#nesting = nesting;
  }

  /** Everything in it, in order. @throws StatusError FailedPrecondition where the file is not sound */
  *entries(): Generator<BoltEntry> {
    let last: Buffer | undefined;
    for (const element of this.#walk(this.#top(), new Set([this.#root]), 0)) {
      if (last && Buffer.compare(last, element.key) >= 0) throw corrupt(this.#file.path, 'keys are out of order');
      last = element.key;
      yield this.#entry(element);
    }
  }

  /** The bytes under a key; undefined if there are none, or a bucket. */
  value(key: string): Buffer | undefined {
    const element = this.#find(Buffer.from(key));
    return element && !element.isBucket ? element.value : undefined;
  }

  /** The bucket under a key; undefined if there is none, or bytes. */
  bucket(key: string): BoltBucket | undefined {
    const element = this.#find(Buffer.from(key));
    return element && this.#entry(element).bucket;
  }

  /** The bucket at the end of a path of keys. */
  descend(...keys: readonly string[]): BoltBucket | undefined {
    let bucket: BoltBucket | undefined = this;
    for (const key of keys) bucket = bucket?.bucket(key);
    return bucket;
  }

  #top(): Page {
    this.#first ??= this.#file.page(this.#root);
    return this.#first;
  }

  *#walk(page: Page, seen: Set<number>, depth: number): Generator<LeafElement> {
    if (depth > deepestTree) throw corrupt(this.#file.path, `a tree of more than ${deepestTree} levels`);
    for (let index = 0; index < page.count; index++) {
      if (page.kind === 'leaf') {
        yield page.leaf(index);
        continue;
      }
      const child = page.branch(index).page;
      if (seen.has(child)) throw corrupt(this.#file.path, `page ${child} stands in a tree twice`);
      seen.add(child);
      yield* this.#walk(this.#file.page(child), seen, depth + 1);
    }
  }

  #find(key: Buffer): LeafElement | undefined {
    let page = this.#top();
    for (let depth = 0; page.kind === 'branch'; depth++) {
      if (depth > deepestTree) throw corrupt(this.#file.path, `a tree of more than ${deepestTree} levels`);
      const branch: Page = page;
      const index = lastNotAfter(key, branch.count, (at) => branch.branch(at).key);
      // A key before the first child's can only be in the first child.
      page = this.#file.page(branch.branch(Math.max(0, index)).page);
    }
    const leaf = page;
    const index = lastNotAfter(key, leaf.count, (at) => leaf.leaf(at).key);
    const element = index < 0 ? undefined : leaf.leaf(index);
    return element?.key.equals(key) ? element : undefined;
  }

  #entry({ key, value, isBucket }: LeafElement): BoltEntry {
    if (!isBucket) return { key, value };
    if (value.length < layout.bucketHeaderSize) throw corrupt(this.#file.path, 'a bucket without a header');
    const root = Number(value.readBigUInt64LE(0));
    if (root !== 0) return { key, bucket: new BoltBucket(this.#file, root, undefined, this.#nesting + 1) };
    const page = new Page(this.#file.path, 'an inline bucket', value.subarray(layout.bucketHeaderSize));
    if (page.kind !== 'leaf') throw corrupt(this.#file.path, 'an inline bucket is not a leaf');
    return { key, bucket: new BoltBucket(this.#file, 0, page, this.#nesting + 1) };
  }
}

/** The index of the last key that is not after `key`; -1 if all are. */
function lastNotAfter(key: Buffer, count: number, keyAt: (index: number) => Buffer): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (Buffer.compare(keyAt(middle), key) <= 0) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
