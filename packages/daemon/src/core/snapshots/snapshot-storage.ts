import {
  alreadyExists,
  failedPrecondition,
  invalidArgument,
  notFound,
  now,
  type StatusError,
  type Time,
} from '@gantry/api';
import type { MetadataStore, ReadTransaction, WriteTransaction } from '../metadata/metadata-store.ts';
import type { SnapshotInfo, SnapshotKind, SnapshotUsage } from './snapshotter.ts';

/** What a snapshotter's own database knows of one snapshot. */
interface Row {
  /** Number of its directory; grows with every snapshot and is never used again. */
  id: number;
  kind: SnapshotKind;
  parent: string;
  labels: Record<string, string>;
  createdAt: Time;
  updatedAt: Time;
  inodes: number;
  size: number;
  /** Its files are not known to be on disk; the boot in which it was committed. */
  unsynced?: string;
  /** Where its directory is if that is another daemon's (absolute): it is used there, and never deleted. */
  at?: string;
  /** It came from another daemon's root, with `take`. */
  taken?: true;
}

/** A snapshot of another daemon, under its name there. */
export interface TakenSnapshot extends SnapshotInfo, SnapshotUsage {
  /** Number of a directory of ours that holds a copy; absent for one that stays where it is. */
  copy?: number | undefined;
  /** Its directory over there, absolute; '' if it has none. */
  at: string;
}

/** A snapshot and the directories it is made of. */
export interface StoredSnapshot {
  id: number;
  info: SnapshotInfo;
  /** Ids of its parents, nearest first. */
  parents: number[];
  /** As counted at the commit; zeros before. */
  usage: SnapshotUsage;
}

const rowKey = (name: string) => ['v1', 'snapshots', name];
const childKey = (parent: string, name: string) => ['v1', 'children', parent, name];
const sequenceKey = ['v1', 'sequence'];

/**
 * The tree of snapshots of one snapshotter, durable: every change is one transaction. What lies on disk under an id is
 * the snapshotter's business: it makes directories before it calls `create`, and deletes them after `remove`.
 */
export class SnapshotStorage {
  readonly #store: MetadataStore;
  #lastId: number;
  /** Ids of the rows that are `unsynced`, by name: of this boot, and of an earlier one that ended before they were synced. */
  readonly #unsynced = new Map<string, number>();
  readonly #suspects = new Map<string, number>();
  /** Those whose files may be lost: bringing them to disk has failed. */
  readonly #doubtful = new Map<number, unknown>();
  readonly #boot: string;

  /**
   * @param highestId the highest number of a directory on disk, so that what a killed daemon left is never reused
   * @param boot names the time for which the kernel has kept what was written; see `thisBoot`
   */
  constructor(store: MetadataStore, highestId = 0, boot = '') {
    this.#store = store;
    this.#boot = boot;
    store.view((tx) => {
      for (const { key, value } of tx.list<Row>(['v1', 'snapshots'])) {
        if (value.unsynced === undefined) continue;
        (value.unsynced === boot ? this.#unsynced : this.#suspects).set(key.at(-1) ?? '', value.id);
      }
    });
    this.#lastId = Math.max(
      highestId,
      store.view((tx) => tx.get<number>(sequenceKey) ?? 0),
    );
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  /** A number for a new snapshot's directory. It counts as used only when `create` has it. */
  nextId(): number {
    return ++this.#lastId;
  }

  /** @throws NotFound */
  get(name: string): StoredSnapshot {
    return this.#store.view((tx) => stored(tx, name, mustHave(tx, name)));
  }

  /** Like `get`, for what is about to be committed. @throws FailedPrecondition if it is not active */
  getActive(name: string): StoredSnapshot {
    const snapshot = this.get(name);
    if (snapshot.info.kind !== 'active') throw notActive(name);
    return snapshot;
  }

  list(): SnapshotInfo[] {
    return this.#store.view((tx) =>
      [...tx.list<Row>(['v1', 'snapshots'])].map(({ key, value }) => infoOf(key.at(-1) ?? '', value)),
    );
  }

  /** Ids of all snapshots: whatever else is on disk is garbage. */
  ids(): Set<number> {
    return this.#store.view((tx) => new Set([...tx.list<Row>(['v1', 'snapshots'])].map(({ value }) => value.id)));
  }

  /** The same with the kind of each. */
  kinds(): Map<number, SnapshotKind> {
    return this.#store.view(
      (tx) => new Map([...tx.list<Row>(['v1', 'snapshots'])].map(({ value }) => [value.id, value.kind])),
    );
  }

  /** Directories that are another daemon's, by the number of their snapshot. */
  foreign(): Map<number, string> {
    return this.#store.view((tx) => {
      const found = new Map<number, string>();
      for (const { value } of tx.list<Row>(['v1', 'snapshots'])) if (value.at) found.set(value.id, value.at);
      return found;
    });
  }

  /**
   * Has these and no other snapshots of another daemon, in one transaction. One that was taken before and is not among them stays while
   * snapshots of our own build on it. Answers the names of such.
   */
  take(snapshots: readonly TakenSnapshot[]): Promise<string[]> {
    return this.#store.update((tx) => {
      const names = new Set(snapshots.map(({ name }) => name));
      const before = [...tx.list<Row>(['v1', 'snapshots'])].filter(({ value }) => value.taken);
      for (const { key, value } of before) drop(tx, key.at(-1)!, value);
      for (const { name, copy, at, ...rest } of snapshots) {
        const row: Row = { ...rest, id: copy ?? this.nextId(), taken: true };
        put(tx, name, copy === undefined && at !== '' ? { ...row, at } : row);
      }
      const kept: string[] = [];
      const old = new Map(before.map(({ key, value }) => [key.at(-1)!, value]));
      const keep = (name: string): void => {
        const row = old.get(name);
        if (!row || names.has(name) || tx.has(rowKey(name))) return;
        put(tx, name, row);
        kept.push(name);
        keep(row.parent);
      };
      for (const name of old.keys()) if (hasChildren(tx, name)) keep(name);
      tx.put(sequenceKey, this.#lastId);
      return kept;
    });
  }

  /** The parent's id and those above it, nearest first; none for ''. @throws NotFound, InvalidArgument if it is not committed */
  parentChain(parent: string): number[] {
    return this.#store.view((tx) => (parent ? [checkParent(tx, parent).id, ...ancestors(tx, parent)] : []));
  }

  create(
    id: number,
    kind: 'view' | 'active',
    key: string,
    parent: string,
    labels: Record<string, string> = {},
    step = false,
  ): Promise<StoredSnapshot> {
    if (!key) throw invalidArgument('snapshot key must not be empty: invalid argument');
    return this.#store.update(
      (tx) => {
        if (parent) checkParent(tx, parent);
        if (tx.has(rowKey(key))) throw alreadyExists(`snapshot ${key}: already exists`);
        const at = now();
        const row: Row = { id, kind, parent, labels, createdAt: at, updatedAt: at, inodes: 0, size: 0 };
        put(tx, key, row);
        tx.put(sequenceKey, Math.max(id, tx.get<number>(sequenceKey) ?? 0));
        return stored(tx, key, row);
      },
      { step },
    );
  }

  /** Settles when the steps so far are on disk. */
  flush(): Promise<void> {
    return this.#store.flush();
  }

  /**
   * Settles when the files of all committed snapshots are on disk, where `sync` brings them, and that is noted.
   * @throws while there is one whose files could not be brought there
   */
  async settle(sync: () => Promise<void>): Promise<void> {
    const names = new Map(this.#unsynced);
    if (names.size === 0) return;
    try {
      await sync();
    } catch (error) {
      // The kernel tells it once and then counts the pages as clean.
      for (const id of names.values()) this.#doubtful.set(id, error);
      throw error;
    }
    for (const id of names.values()) if (this.#doubtful.has(id)) throw this.#doubtful.get(id);
    await this.#store.update((tx) => {
      for (const [name, id] of names) {
        const row = tx.get<Row>(rowKey(name));
        if (row?.id !== id) continue;
        const { unsynced: _, ...rest } = row;
        tx.put(rowKey(name), rest);
      }
    });
    for (const [name, id] of names) if (this.#unsynced.get(name) === id) this.#unsynced.delete(name);
  }

  /** Committed snapshots whose files may have been lost with an earlier boot; parents first. */
  suspects(): string[] {
    const depth = new Map([...this.#suspects.keys()].map((name) => [name, this.get(name).parents.length]));
    return [...depth.keys()].sort((a, b) => depth.get(a)! - depth.get(b)!);
  }

  /** A suspect's files were made again: they are to be synced like those of a new one. */
  remade(name: string): void {
    const id = this.#suspects.get(name);
    if (id === undefined) return;
    this.#suspects.delete(name);
    this.#unsynced.set(name, id);
  }

  /** @throws FailedPrecondition if a snapshot, or one it builds on, is suspect */
  mustBeWhole(name: string): void {
    if (this.#suspects.size === 0 || !name) return;
    this.#store.view((tx) => {
      for (let at = name; at; at = tx.get<Row>(rowKey(at))?.parent ?? '') {
        if (!this.#suspects.has(at)) continue;
        throw failedPrecondition(
          `snapshot ${at} was not on disk when the machine stopped, and is not made again yet: failed precondition`,
        );
      }
    });
  }

  /**
   * Turns an active snapshot into a committed one under another name. Labels replace those it had, as containerd does. `unsynced`: its files
   * are not on disk yet, and can be made again.
   */
  async commit(
    name: string,
    key: string,
    usage: SnapshotUsage,
    options: { labels?: Record<string, string>; parent?: string; unsynced?: boolean } = {},
    step = false,
  ): Promise<void> {
    if (!name) throw invalidArgument('committed snapshot name must not be empty: invalid argument');
    const id = await this.#store.update(
      (tx) => {
        const row = mustHave(tx, key);
        if (row.kind !== 'active') throw notActive(key);
        if (tx.has(rowKey(name))) throw alreadyExists(`committed snapshot ${name}: already exists`);
        let { parent } = row;
        if (options.parent && options.parent !== parent) {
          if (parent) {
            throw invalidArgument(
              `cannot commit ${key} onto ${options.parent}, it was prepared on ${parent}: invalid argument`,
            );
          }
          checkParent(tx, options.parent);
          parent = options.parent;
        }
        drop(tx, key, row);
        const at = now();
        put(tx, name, {
          ...row,
          ...usage,
          kind: 'committed',
          parent,
          labels: options.labels ?? {},
          createdAt: at,
          updatedAt: at,
          ...(options.unsynced && { unsynced: this.#boot }),
        });
        return row.id;
      },
      { step },
    );
    if (options.unsynced) this.#unsynced.set(name, id);
  }

  /** Answers the id whose directory is now nobody's. @throws FailedPrecondition if other snapshots build on it. */
  async remove(key: string, step = false): Promise<number> {
    const id = await this.#store.update(
      (tx) => {
        const row = mustHave(tx, key);
        if (hasChildren(tx, key)) throw failedPrecondition('cannot remove snapshot with child: failed precondition');
        drop(tx, key, row);
        return row.id;
      },
      { step },
    );
    for (const names of [this.#unsynced, this.#suspects]) if (names.get(key) === id) names.delete(key);
    this.#doubtful.delete(id);
    return id;
  }

  /** Changes labels: `labels`, `labels.<key>`, or all if no path is given. @throws InvalidArgument for any other path */
  update(info: { name: string; labels: Record<string, string> }, paths: string[]): Promise<SnapshotInfo> {
    return this.#store.update((tx) => {
      const row = mustHave(tx, info.name);
      let labels = { ...row.labels };
      for (const path of paths.length > 0 ? paths : ['labels']) {
        if (path === 'labels') {
          labels = { ...info.labels };
        } else if (path.startsWith('labels.')) {
          const label = path.slice('labels.'.length);
          const value = info.labels[label];
          if (value) labels[label] = value;
          else delete labels[label];
        } else {
          throw invalidArgument(
            `cannot update ${JSON.stringify(path)} field on snapshot ${JSON.stringify(info.name)}: invalid argument`,
          );
        }
      }
      const changed: Row = { ...row, labels, updatedAt: now() };
      tx.put(rowKey(info.name), changed);
      return infoOf(info.name, changed);
    });
  }
}

function notActive(name: string): StatusError {
  return failedPrecondition(`snapshot ${name} is not active: failed precondition`);
}

function mustHave(tx: ReadTransaction, name: string): Row {
  const row = name ? tx.get<Row>(rowKey(name)) : undefined;
  if (!row) throw notFound(`snapshot ${name} does not exist: not found`);
  return row;
}

function checkParent(tx: ReadTransaction, parent: string): Row {
  const row = tx.get<Row>(rowKey(parent));
  if (!row) throw notFound(`missing parent ${JSON.stringify(parent)}: not found`);
  if (row.kind !== 'committed') {
    throw invalidArgument(`parent ${JSON.stringify(parent)} is not committed snapshot: invalid argument`);
  }
  return row;
}

function ancestors(tx: ReadTransaction, name: string): number[] {
  const ids: number[] = [];
  for (let { parent } = mustHave(tx, name); parent; ) {
    const row = mustHave(tx, parent);
    ids.push(row.id);
    parent = row.parent;
  }
  return ids;
}

function put(tx: WriteTransaction, name: string, row: Row): void {
  tx.put(rowKey(name), row);
  if (row.parent) tx.put(childKey(row.parent, name), true);
}

function drop(tx: WriteTransaction, name: string, row: Row): void {
  tx.remove(rowKey(name));
  if (row.parent) tx.remove(childKey(row.parent, name));
}

function hasChildren(tx: ReadTransaction, name: string): boolean {
  for (const _ of tx.children(['v1', 'children', name])) return true;
  return false;
}

function stored(tx: ReadTransaction, name: string, row: Row): StoredSnapshot {
  return {
    id: row.id,
    info: infoOf(name, row),
    parents: ancestors(tx, name),
    usage: { inodes: row.inodes, size: row.size },
  };
}

function infoOf(name: string, row: Row): SnapshotInfo {
  const { kind, parent, labels, createdAt, updatedAt } = row;
  return { name, kind, parent, labels: { ...labels }, createdAt, updatedAt };
}
