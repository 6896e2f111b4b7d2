/** A key is a path of strings, ordered component by component, as in `['v1', namespace, 'images', name]`. */
export type Key = readonly string[];

/** What a record may hold: structured data (msgpack). Bytes are Uint8Array; 64-bit values are bigint; no classes. */
export type Value = unknown;

/** One consistent snapshot of the store. Must not be used after the function it was given to has returned. */
export interface ReadTransaction {
  get<T>(key: Key): T | undefined;
  has(key: Key): boolean;
  /** Records whose key starts with `prefix` (and is longer), in order. No writing while iterating. */
  list<T>(prefix: Key): Iterable<{ key: Key; value: T }>;
  /** The distinct next components after `prefix`, in order: the "buckets" under it. */
  children(prefix: Key): Iterable<string>;
}

/** A transaction that sees its own writes. Throwing out of it undoes every write. */
export interface WriteTransaction extends ReadTransaction {
  put(key: Key, value: Value): void;
  /** True if there was such a record. */
  remove(key: Key): boolean;
  /** Removes all records under a prefix. */
  removeAll(prefix: Key): void;
  /** Called once the transaction is durable, in order of registration; not called if it aborts. For events. */
  afterCommit(fn: () => void): void;
}

/**
 * The daemon's durable state (design, chapter 4): the one door to lmdb. Reads are synchronous on a snapshot; an update
 * runs alone, is atomic, and its promise settles after the data are on disk. Functions given here must be synchronous.
 */
export interface MetadataStore {
  view<T>(fn: (tx: ReadTransaction) => T): T;
  /** A `step` (see RequestContext) settles before: whatever is on disk after a power cut, its order is that of the updates. */
  update<T>(fn: (tx: WriteTransaction) => T, options?: { step?: boolean | undefined }): Promise<T>;
  /** Settles when the steps so far are on disk. */
  flush(): Promise<void>;
  close(): Promise<void>;
}
