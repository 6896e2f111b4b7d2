import type { Key, MetadataStore, ReadTransaction, Value, WriteTransaction } from '../metadata/metadata-store.ts';

const joined = (key: Key) => key.join('\0');

/** A MetadataStore without a disk, for tests of what is built on one. */
export class MemoryMetadataStore implements MetadataStore {
  #records = new Map<string, Value>();

  view<T>(fn: (tx: ReadTransaction) => T): T {
    return fn(new MemoryTransaction(this.#records));
  }

  async update<T>(fn: (tx: WriteTransaction) => T): Promise<T> {
    const tx = new MemoryTransaction(new Map(this.#records));
    const result = fn(tx);
    this.#records = tx.records;
    for (const done of tx.done) done();
    return result;
  }

  async close(): Promise<void> {}
}

class MemoryTransaction implements WriteTransaction {
  readonly records: Map<string, Value>;
  readonly done: (() => void)[] = [];

  constructor(records: Map<string, Value>) {
    this.records = records;
  }

  get<T>(key: Key): T | undefined {
    return structuredClone(this.records.get(joined(key))) as T | undefined;
  }

  has(key: Key): boolean {
    return this.records.has(joined(key));
  }

  *list<T>(prefix: Key): Iterable<{ key: Key; value: T }> {
    const start = `${joined(prefix)}\0`;
    for (const key of [...this.records.keys()].filter((key) => key.startsWith(start)).sort()) {
      yield { key: key.split('\0'), value: structuredClone(this.records.get(key)) as T };
    }
  }

  *children(prefix: Key): Iterable<string> {
    yield* new Set([...this.list(prefix)].map(({ key }) => key[prefix.length] ?? ''));
  }

  put(key: Key, value: Value): void {
    this.records.set(joined(key), structuredClone(value));
  }

  remove(key: Key): boolean {
    return this.records.delete(joined(key));
  }

  removeAll(prefix: Key): void {
    for (const { key } of this.list(prefix)) this.remove(key);
  }

  afterCommit(fn: () => void): void {
    this.done.push(fn);
  }
}
