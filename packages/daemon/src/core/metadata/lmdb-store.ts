import { mkdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { failedPrecondition, StatusError, unavailable } from '@gantry/api';
import { closeOnExec } from '@gantry/sys';
import { asBinary, open, type RootDatabase, type Transaction } from 'lmdb';
import { type DatabaseShape, DiskReserve, Work } from './disk-reserve.ts';
import { afterPrefix, decodeKey, encodeKey } from './key-codec.ts';
import type { Key, MetadataStore, ReadTransaction, Value, WriteTransaction } from './metadata-store.ts';

/** A change of the layout of records, applied once, in order, to a store that is older. */
export interface Migration {
  /** The version it leads to. */
  version: number;
  apply(tx: WriteTransaction): void;
}

export interface LmdbStoreOptions {
  /** The database file; its directory is made. */
  path: string;
  migrations?: readonly Migration[];
  /** Do not wait for the disk: for tests and `no_sync`. A power cut may then lose the last changes, not the consistency. */
  noSync?: boolean;
  /** Bytes of disk that the database owns ahead of what it uses (DiskReserve); several times the largest usual update. */
  reserve?: number;
}

/** lmdb's types leave it out. */
interface Environment {
  info(): { lastPageNumber: number };
  stat(): { pageSize: number; treeDepth: number; treeBranchPageCount: number; treeLeafPageCount: number };
}

/** Version of the records' layout when there are no migrations. */
const firstVersion = 1;
const versionKey: Key = ['schema-version'];

/**
 * After kill -9, too, it goes on from what was brought to disk last. lmdb would take what was written since, in the same boot of the
 * kernel; but a disk that was taken away and given back within one boot has lost that. (lmdb's types do not know the option.)
 */
const safeRestore: object = { safeRestore: true };

/** Records whose key holds a hash carry the key. */
interface Keyed {
  $key: string[];
  $value: Value;
}

/**
 * MetadataStore over lmdb, keeping to what was measured: `childTransaction` for real aborts, reads inside the
 * transaction, no cache, and an answer only after the flush. Records of one turn of the event loop share a flush.
 */
export class LmdbStore implements MetadataStore {
  readonly #db: RootDatabase<Value, Buffer>;
  readonly #noSync: boolean;
  readonly #reserve: DiskReserve;
  /** Of updates that wait for the disk: lmdb forgets them when a write fails. */
  readonly #waiting = new Set<(error: unknown) => void>();
  #broken: StatusError | undefined;
  #closed = false;

  private constructor(db: RootDatabase<Value, Buffer>, reserve: DiskReserve, noSync: boolean) {
    this.#db = db;
    this.#reserve = reserve;
    this.#noSync = noSync;
  }

  /** Opens or makes the database. @throws FailedPrecondition if a newer Gantry wrote it. */
  static async open(options: LmdbStoreOptions): Promise<LmdbStore> {
    mkdirSync(path.dirname(options.path), { recursive: true, mode: 0o700 });
    const reserve = await DiskReserve.open(options.path, options.reserve ?? 1 << 20);
    const db = open<Value, Buffer>({
      path: options.path,
      noSubdir: true,
      keyEncoding: 'binary',
      encoding: 'msgpack',
      cache: false,
      noSync: options.noSync ?? false,
      ...safeRestore,
      // A turn's transactions are written together all the same; with it, lmdb keeps a promise whose failure nobody could see to.
      eventTurnBatching: false,
      // A daemon's metadata is small; the map grows by itself when it is not.
      mapSize: 64 << 20,
      maxReaders: 64,
    });
    // The library opens the file and its lock for children to inherit: shims would hold them for as long as they live.
    closeOnExec(realpathSync(options.path));
    const environment = (db as unknown as { env: Environment }).env;
    await reserve.watch((): DatabaseShape => {
      const { pageSize, treeDepth, treeBranchPageCount, treeLeafPageCount } = environment.stat();
      const treePages = treeBranchPageCount + treeLeafPageCount;
      return { pageSize, treeDepth, treePages, pages: environment.info().lastPageNumber + 1 };
    });
    const store = new LmdbStore(db, reserve, options.noSync ?? false);
    await store.#migrate(options.migrations ?? [], options.path);
    return store;
  }

  async #migrate(migrations: readonly Migration[], file: string): Promise<void> {
    const newest = Math.max(firstVersion, ...migrations.map((migration) => migration.version));
    const present = this.view((tx) => tx.get<number>(versionKey));
    if (present === newest) return;
    if (present !== undefined && present > newest) {
      await this.close();
      throw failedPrecondition(
        `${file}: its schema version ${present} is newer than ${newest}, the newest this gantryd knows`,
      );
    }
    await this.update((tx) => {
      // A fresh store has nothing to migrate.
      for (const migration of migrations) if (present !== undefined && migration.version > present) migration.apply(tx);
      tx.put(versionKey, newest);
    });
  }

  view<T>(fn: (tx: ReadTransaction) => T): T {
    this.#assertOpen();
    const transaction = this.#db.useReadTransaction();
    try {
      return fn(new LmdbReadTransaction(this.#db, transaction));
    } finally {
      transaction.done();
    }
  }

  async update<T>(fn: (tx: WriteTransaction) => T, options: { step?: boolean | undefined } = {}): Promise<T> {
    this.#assertWritable();
    if (this.#reserve.low) {
      await this.#reserve.renew();
      this.#assertWritable();
    }
    const done: (() => void)[] = [];
    const work = new Work();
    let failure: { error: unknown } | undefined;
    const running = this.#db.childTransaction(() => {
      try {
        return fn(new LmdbWriteTransaction(this.#db, this.#reserve, work, done));
      } catch (error) {
        failure = { error };
        throw error;
      }
    });
    // lmdb has promises of its own for the same, which nobody else sees fail.
    this.#db.committed.then(ignore, ignore);
    try {
      const result = await running;
      if (!options.step) await this.flush();
      for (const call of done) call();
      return result;
    } catch (error) {
      throw failure?.error ?? (await this.#break(error as Error));
    } finally {
      this.#reserve.settle(work);
    }
  }

  async flush(): Promise<void> {
    this.#assertWritable();
    if (this.#noSync) return;
    await new Promise<unknown>((resolve, reject) => {
      this.#waiting.add(reject);
      this.#db.flushed.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#broken) await this.#db.flushed;
    await this.#reserve.stop();
    await this.#db.close();
    await this.#reserve.close();
  }

  /** What has failed in lmdb leaves it in a state that no more can be written from: the next daemon can. */
  async #break(error: Error & { commitError?: Promise<never> }): Promise<StatusError> {
    const cause = await (error.commitError?.catch((reason: Error) => reason) ?? error);
    if (this.#broken === undefined) {
      this.#broken = StatusError.wrap(cause, 'metadata cannot be written');
      for (const reject of this.#waiting) reject(this.#broken);
    }
    return this.#broken;
  }

  #assertWritable(): void {
    this.#assertOpen();
    if (this.#broken) throw unavailable(`${this.#broken.message}; gantryd must be restarted`, this.#broken);
  }

  #assertOpen(): void {
    if (this.#closed) throw unavailable('the metadata store is closed');
  }
}

class LmdbReadTransaction implements ReadTransaction {
  protected readonly db: RootDatabase<Value, Buffer>;
  readonly #options: { transaction?: Transaction };

  constructor(db: RootDatabase<Value, Buffer>, transaction?: Transaction) {
    this.db = db;
    this.#options = transaction ? { transaction } : {};
  }

  get<T>(key: Key): T | undefined {
    const { bytes, hashed } = encodeKey(key);
    const value = this.db.get(bytes, this.#options);
    return (hashed && value !== undefined ? (value as Keyed).$value : value) as T | undefined;
  }

  has(key: Key): boolean {
    return this.db.get(encodeKey(key).bytes, this.#options) !== undefined;
  }

  *list<T>(prefix: Key): Iterable<{ key: Key; value: T }> {
    const start = encodeKey(prefix).bytes;
    for (const { key, value } of this.db.getRange({ start, end: afterPrefix(start), ...this.#options })) {
      if (key.length === start.length) continue;
      if (isKeyed(value)) yield { key: value.$key, value: value.$value as T };
      else yield { key: decodeKey(key), value: value as T };
    }
  }

  *children(prefix: Key): Iterable<string> {
    let start = encodeKey(prefix).bytes;
    const end = afterPrefix(start);
    const depth = start.length;
    for (;;) {
      let next: Buffer | undefined;
      let name: string | undefined;
      for (const { key, value } of this.db.getRange({ start, end, limit: 2, ...this.#options })) {
        if (key.length === depth) continue;
        const stop = key.indexOf(0, depth) + 1;
        name = isKeyed(value) ? value.$key[prefix.length]! : decodeKey(key.subarray(depth, stop))[0]!;
        next = afterPrefix(key.subarray(0, stop));
        break;
      }
      if (next === undefined || name === undefined) return;
      yield name;
      start = next;
    }
  }
}

class LmdbWriteTransaction extends LmdbReadTransaction implements WriteTransaction {
  readonly #reserve: DiskReserve;
  readonly #work: Work;
  readonly #done: (() => void)[];

  constructor(db: RootDatabase<Value, Buffer>, reserve: DiskReserve, work: Work, done: (() => void)[]) {
    super(db);
    this.#reserve = reserve;
    this.#work = work;
    this.#done = done;
  }

  put(key: Key, value: Value): void {
    const { bytes, hashed } = encodeKey(key);
    const encoded = (this.db as unknown as { encoder: { encode(value: Value): Buffer } }).encoder.encode(
      hashed ? ({ $key: [...key], $value: value } satisfies Keyed) : value,
    );
    const adds = () => (this.db.getBinary(bytes)?.length ?? -slightly) + slightly < encoded.length;
    this.#reserve.charge(this.#work, { put: true, bytes: bytes.length + encoded.length }, adds);
    this.db.putSync(bytes, asBinary(encoded));
  }

  remove(key: Key): boolean {
    const { bytes } = encodeKey(key);
    this.#reserve.charge(this.#work, { put: false, bytes: 0 }, () => false);
    return this.db.removeSync(bytes);
  }

  removeAll(prefix: Key): void {
    for (const { key } of [...this.list(prefix)]) this.remove(key);
  }

  afterCommit(fn: () => void): void {
    this.#done.push(fn);
  }
}

/** A record that is noted anew with so many bytes more (a time, a label) does not count as added. */
const slightly = 64;

const ignore = (): void => undefined;

function isKeyed(value: Value): value is Keyed {
  return typeof value === 'object' && value !== null && '$key' in value;
}
