import { Code, canceled, hasCode } from '@gantry/api';
import { ImageDeleteSchema } from '@gantry/api/gen/events/image_pb.js';
import { SnapshotRemoveSchema } from '@gantry/api/gen/events/snapshot_pb.js';
import type { IngestRecord } from '../content/content-records.ts';
import type { ContentBackend } from '../content/content-store.ts';
import type { KeyedLock } from '../content/keyed-lock.ts';
import type { EventExchange } from '../events/exchange.ts';
import type { Logger } from '../log/logger.ts';
import type { MetadataStore, ReadTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { RequestContext } from '../request-context.ts';
import type { MetadataSnapshotter } from '../snapshots/metadata-snapshotter.ts';
import type { SnapshotRecord } from '../snapshots/snapshot-record.ts';
import type { CollectionStats } from './garbage-collector.ts';
import { markAndSweep } from './mark-and-sweep.ts';

export interface CollectorSettings {
  store: MetadataStore;
  backend: ContentBackend;
  /** The locks that content writers take. */
  locks: KeyedLock;
  snapshotters: () => Iterable<MetadataSnapshotter>;
  /** What else undoes things whose records are gone; called before snapshots are swept, which they may lie on. */
  sweepers?: () => Iterable<() => Promise<void>>;
  events: EventExchange;
  log: Logger;
}

/** Milliseconds that all of a backend in another process may take in one collection. */
const remotePatience = 300_000;

/**
 * One collection: records first, in one transaction; then the bytes that no record names any more, whoever left them
 * there (a record just swept, or an operation that died half-way).
 */
export class Collector {
  readonly #settings: CollectorSettings;
  readonly #stopping = new AbortController();

  constructor(settings: CollectorSettings) {
    this.#settings = settings;
  }

  /** Gives up calls to other processes that do not answer, for good: the daemon is ending. */
  stop(): void {
    this.#stopping.abort(canceled('the garbage collector is being stopped'));
  }

  async run(): Promise<CollectionStats> {
    const startedAt = performance.now();
    let lockMs = await this.#sweepRecords();
    // What was not on disk yet has kept its layers. Only now: what has just been swept need not get there.
    if (await this.#settle()) lockMs = Math.max(lockMs, await this.#sweepRecords());
    const [removedContent, , removedSnapshots] = await allEnded([
      this.#unlessAway('content', () => this.#sweepContent()),
      this.#unlessAway('ingests', () => this.#sweepIngests()),
      this.#sweepMountsAndSnapshots(),
    ]);
    return { lockMs, totalMs: performance.now() - startedAt, removedContent, removedSnapshots };
  }

  async #sweepMountsAndSnapshots(): Promise<number> {
    for (const sweep of this.#settings.sweepers?.() ?? []) await sweep();
    const removed = await allEnded(
      [...this.#settings.snapshotters()].map((snapshotter) =>
        this.#unlessAway(snapshotter.name, () => this.#sweepSnapshots(snapshotter)),
      ),
    );
    return removed.reduce((sum, count) => sum + count, 0);
  }

  /** Answers for how many milliseconds nobody else could write. */
  async #sweepRecords(): Promise<number> {
    const { store, events } = this.#settings;
    let lockMs = 0;
    await store.update((tx) => {
      const locked = performance.now();
      const result = markAndSweep(tx);
      lockMs = performance.now() - locked;
      tx.afterCommit(() => {
        for (const { namespace, snapshotter, key } of result.snapshots) {
          events.publishMessage(namespace, '/snapshot/remove', SnapshotRemoveSchema, { key, snapshotter });
        }
        for (const { namespace, name } of result.images) {
          events.publishMessage(namespace, '/images/delete', ImageDeleteSchema, { name });
        }
      });
    });
    return lockMs;
  }

  /** Brings to disk what snapshots hold. Answers whether there was anything. */
  async #settle(): Promise<boolean> {
    let settled = false;
    for (const snapshotter of this.#settings.snapshotters()) {
      try {
        if (await snapshotter.settle()) settled = true;
      } catch (error) {
        this.#settings.log.error('snapshots cannot be brought to disk', { error });
      }
    }
    return settled;
  }

  /** What runs in another process and is away is swept by a later collection; the others do not wait for it. */
  async #unlessAway(name: string, sweep: () => Promise<number>): Promise<number> {
    try {
      return await sweep();
    } catch (error) {
      if (!hasCode(error, Code.Unavailable) && !hasCode(error, Code.DeadlineExceeded)) throw error;
      this.#settings.log.warn('not collected, as it cannot be reached', { backend: name, error });
      return 0;
    }
  }

  /** For whom a backend is asked what it has: once for all of it, or, where it may keep namespaces apart, for each. */
  #askedFor(backend: { remote?: boolean }): (RequestContext | undefined)[] {
    if (!backend.remote) return [undefined];
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(remotePatience)]);
    const names = this.#settings.store.view((tx) => [...tx.children(keys.namespaces())]);
    return names.map((namespace) => ({ namespace, signal }));
  }

  async #sweepContent(): Promise<number> {
    const { store, backend, locks } = this.#settings;
    const removed = new Set<string>();
    const remove = (digest: string, ctx: RequestContext | undefined): Promise<void> =>
      locks.run(digest, async () => {
        // A writer may have committed it since: asked again while nobody can.
        if (store.view((tx) => isReferenced(tx, digest))) return;
        await backend.delete(digest, ctx).catch(ignoreNotFound);
        removed.add(digest);
      });
    const wanted = store.view(referencedDigests);
    for (const ctx of this.#askedFor(backend)) {
      let removals: Promise<void>[] = [];
      for await (const digest of digestsOf(backend, ctx)) {
        if (wanted.has(digest)) continue;
        removals.push(remove(digest, ctx));
        if (removals.length < sideBySide) continue;
        await allEnded(removals);
        removals = [];
      }
      await allEnded(removals);
    }
    return removed.size;
  }

  async #sweepIngests(): Promise<number> {
    const { store, backend } = this.#settings;
    let removed = 0;
    const found: { ref: string; ctx: RequestContext | undefined }[] = [];
    for (const ctx of this.#askedFor(backend)) {
      for (const { ref } of await backend.listStatuses(ctx)) found.push({ ref, ctx });
    }
    // Records are written before ingests are opened, so one without a record has none to come.
    const known = new Set<string>();
    store.view((tx) => {
      for (const namespace of tx.children(keys.namespaces())) {
        for (const { value } of tx.list<IngestRecord>(keys.ingests(namespace))) known.add(value.backendRef);
      }
    });
    for (const { ref, ctx } of found) {
      if (known.has(ref)) continue;
      await backend.abort(ref, ctx).catch((error) => {
        // Its writer is still at it: it will be gone, or recorded, by the next collection.
        if (!hasCode(error, Code.NotFound) && !hasCode(error, Code.Unavailable)) throw error;
      });
      removed++;
    }
    return removed;
  }

  async #sweepSnapshots(snapshotter: MetadataSnapshotter): Promise<number> {
    const { store } = this.#settings;
    const { backend } = snapshotter;
    const present = new Map<string, Found>();
    const askedFor = this.#askedFor(backend);
    for (const ctx of askedFor) {
      for await (const { name, parent } of backend.list(ctx)) present.set(name, { parent, ctx });
    }
    const known = new Set<string>();
    store.view((tx) => {
      for (const namespace of tx.children(keys.namespaces())) {
        for (const { value } of tx.list<SnapshotRecord>(keys.snapshots(namespace, snapshotter.name))) {
          known.add(value.backendKey);
        }
      }
    });
    snapshotter.adopted.clear();
    let orphans = leavesFirst(present).filter((key) => !known.has(key) && !snapshotter.inFlight.has(key));
    let removed = 0;
    // In another process they may overtake each other, and then a parent has to be asked for once more.
    const width = backend.remote ? 1 : sideBySide;
    for (let progress = true; progress && orphans.length > 0; ) {
      const left: string[] = [];
      for (let at = 0; at < orphans.length; at += width) {
        const some = orphans.slice(at, at + width);
        const outcomes = await Promise.all(some.map((key) => this.#removeSnapshot(snapshotter, key, present.get(key))));
        for (const [index, outcome] of outcomes.entries()) {
          if (outcome === 'removed') removed++;
          else if (outcome === 'has children') left.push(some[index]!);
        }
      }
      progress = left.length < orphans.length;
      orphans = left;
    }
    for (const ctx of askedFor) await backend.cleanup?.(ctx);
    return removed;
  }

  async #removeSnapshot(
    snapshotter: MetadataSnapshotter,
    key: string,
    found: Found | undefined,
  ): Promise<'removed' | 'has children' | 'left'> {
    // A lazy-pulling snapshotter's snapshot may have been taken over since.
    if (snapshotter.adopted.has(key)) return 'left';
    const { backend, name } = snapshotter;
    snapshotter.leaving.add(key);
    try {
      // No record names it, and that is on disk: should this not get there, the next collection finds it again.
      await backend.remove(key, found?.ctx ?? { namespace: '', step: true });
      return 'removed';
    } catch (error) {
      if (hasCode(error, Code.FailedPrecondition)) return 'has children';
      if (!hasCode(error, Code.NotFound)) {
        this.#settings.log.warn('snapshot cannot be removed', { error, snapshotter: name, key });
      }
      return 'left';
    } finally {
      snapshotter.leaving.delete(key);
    }
  }
}

/** A snapshot that a backend has, and for whom it was asked. */
interface Found {
  parent: string;
  ctx: RequestContext | undefined;
}

/** Removals under way at once. */
const sideBySide = 32;

/** Each after all that build on it. */
function leavesFirst(snapshots: ReadonlyMap<string, Found>): string[] {
  const depths = new Map<string, number>();
  const depth = (key: string): number => {
    const chain: string[] = [];
    let at = key;
    for (let found = snapshots.get(at); found && !depths.has(at); found = snapshots.get(at)) {
      // Also where a backend tells of a circle.
      depths.set(at, 0);
      chain.push(at);
      at = found.parent;
    }
    let height = depths.get(at) ?? 0;
    for (const one of chain.reverse()) depths.set(one, ++height);
    return height;
  };
  for (const key of snapshots.keys()) depth(key);
  return [...snapshots.keys()].sort((a, b) => depths.get(b)! - depths.get(a)!);
}

async function* digestsOf(backend: ContentBackend, ctx: RequestContext | undefined): AsyncIterable<string> {
  if (backend.digests) yield* backend.digests(ctx);
  else for await (const { digest } of backend.list(ctx)) yield digest;
}

/** What all came to; waits for every one even if one fails, as nothing of a collection may go on after it. */
async function allEnded<T extends readonly Promise<unknown>[]>(
  works: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(works);
  return await Promise.all(works);
}

/** Digests that a record of any namespace names, or an ingest counts on. */
function referencedDigests(tx: ReadTransaction): Set<string> {
  const digests = new Set<string>();
  for (const namespace of tx.children(keys.namespaces())) {
    for (const { key } of tx.list(keys.blobs(namespace))) digests.add(key[2]!);
    for (const { value } of tx.list<IngestRecord>(keys.ingests(namespace)))
      if (value.shared) digests.add(value.expected);
  }
  return digests;
}

function isReferenced(tx: ReadTransaction, digest: string): boolean {
  for (const namespace of tx.children(keys.namespaces())) {
    if (tx.has(keys.blob(namespace, digest))) return true;
    for (const { value } of tx.list<IngestRecord>(keys.ingests(namespace))) {
      if (value.shared && value.expected === digest) return true;
    }
  }
  return false;
}

function ignoreNotFound(error: unknown): void {
  if (!hasCode(error, Code.NotFound)) throw error;
}
