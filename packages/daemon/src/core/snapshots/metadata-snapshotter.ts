import {
  alreadyExists,
  Code,
  failedPrecondition,
  hasCode,
  invalidArgument,
  notFound,
  now,
  type StatusError,
} from '@gantry/api';
import {
  SnapshotCommitSchema,
  SnapshotPrepareSchema,
  SnapshotRemoveSchema,
} from '@gantry/api/gen/events/snapshot_pb.js';
import type { Mount } from '@gantry/mount';
import type { EventExchange } from '../events/exchange.ts';
import { snapshotLookup } from '../filters/lookups.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import { addToLease, ResourceType, removeFromLease } from '../leases/lease-records.ts';
import type { Logger } from '../log/logger.ts';
import { applyLabelMask } from '../metadata/label-mask.ts';
import type { MetadataStore, WriteTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { RequestContext } from '../request-context.ts';
import { validateLabels } from '../validation/labels.ts';
import type { SnapshotRecord } from './snapshot-record.ts';
import type { NamespacedSnapshotter } from './snapshot-service.ts';
import { SnapshotSettling } from './snapshot-settling.ts';
import type {
  CommitSnapshotOptions,
  SnapshotInfo,
  SnapshotKind,
  SnapshotOptions,
  Snapshotter,
  SnapshotUsage,
} from './snapshotter.ts';

/** Names the committed snapshot that a prepared one is to become, so that a lazy-pulling snapshotter may have it already. */
export const targetLabel = 'containerd.io/snapshot.ref';
/** Milliseconds until a snapshotter of another process that does not answer is left to the collector. */
const dropPatience = 60_000;
const inheritedPrefix = 'containerd.io/snapshot/';

export interface MetadataSnapshotterSettings {
  store: MetadataStore;
  namespaces: Pick<NamespaceStore, 'ensure'>;
  events: EventExchange;
  log: Logger;
  mutated(deletion: boolean): void;
}

export class MetadataSnapshotter implements NamespacedSnapshotter {
  readonly name: string;
  readonly backend: Snapshotter;
  /** Keys of the backend that an operation is making: no record names them yet, and the collector must not take them. */
  readonly inFlight = new Set<string>();
  /** Keys of the backend that were there without a record and got one since the collector last looked. */
  readonly adopted = new Set<string>();
  /** Keys of the backend that the collector is removing. */
  readonly leaving = new Set<string>();
  readonly #settings: MetadataSnapshotterSettings;
  /** Backend keys are `<namespace>/<start of this process>-<number>/<key>`: never given twice, without a write to say so. */
  readonly #start = `${Date.now().toString(36)}-${process.pid.toString(36)}`;
  #number = 0;
  readonly #settling: SnapshotSettling;
  /** Removals below that are under way. */
  readonly #drops = new Set<Promise<void>>();

  constructor(name: string, backend: Snapshotter, settings: MetadataSnapshotterSettings) {
    this.name = name;
    this.backend = backend;
    this.#settings = settings;
    this.#settling = new SnapshotSettling(name, backend, settings);
  }

  #newKey(ctx: RequestContext, key: string): string {
    return `${ctx.namespace}/${this.#start}-${++this.#number}/${key}`;
  }

  #find(ctx: RequestContext, key: string): SnapshotRecord | undefined {
    return this.#settings.store.view((tx) => tx.get<SnapshotRecord>(keys.snapshot(ctx.namespace, this.name, key)));
  }

  #get(ctx: RequestContext, key: string): SnapshotRecord {
    const record = this.#find(ctx, key);
    if (!record) throw missing(key);
    return record;
  }

  async stat(ctx: RequestContext, key: string): Promise<SnapshotInfo> {
    return infoOf(key, this.#get(ctx, key));
  }

  async hold(ctx: RequestContext, key: string): Promise<boolean> {
    return await this.#settings.store.update((tx) => {
      if (!tx.has(keys.snapshot(ctx.namespace, this.name, key))) return false;
      addToLease(tx, ctx, ResourceType.snapshot(this.name), key);
      return true;
    }, ctx);
  }

  async update(
    ctx: RequestContext,
    info: { name: string; labels: Record<string, string> },
    paths: string[],
  ): Promise<SnapshotInfo> {
    const { store, mutated } = this.#settings;
    const record = await store.update((tx) => {
      const key = keys.snapshot(ctx.namespace, this.name, info.name);
      const found = tx.get<SnapshotRecord>(key);
      if (!found) throw missing(info.name);
      found.labels = applyLabelMask(found.labels, info.labels, paths, `snapshot ${info.name}`);
      validateLabels(found.labels);
      found.updatedAt = now();
      tx.put(key, found);
      return found;
    });
    mutated(false);
    await this.backend.update({ name: record.backendKey, labels: inheritedLabels(record.labels) }, [], ctx);
    return infoOf(info.name, record);
  }

  async usage(ctx: RequestContext, key: string): Promise<SnapshotUsage> {
    const { backendKey } = this.#get(ctx, key);
    return this.backend.usage(backendKey, ctx).catch((error) => rethrow(error, key));
  }

  async mounts(ctx: RequestContext, key: string): Promise<Mount[]> {
    const { backendKey, kind } = this.#get(ctx, key);
    if (kind === 'committed') {
      throw failedPrecondition(`requested snapshot ${key} not active or view: failed precondition`);
    }
    return this.backend.mounts(backendKey, ctx).catch((error) => rethrow(error, key));
  }

  prepare(ctx: RequestContext, key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create(ctx, 'active', key, parent, options);
  }

  view(ctx: RequestContext, key: string, parent: string, options?: SnapshotOptions): Promise<Mount[]> {
    return this.#create(ctx, 'view', key, parent, options);
  }

  async #create(
    ctx: RequestContext,
    kind: 'active' | 'view',
    key: string,
    parent: string,
    options: SnapshotOptions = {},
  ): Promise<Mount[]> {
    if (key === '') throw invalidArgument('snapshot key must not be empty: invalid argument');
    const labels = options.labels ?? {};
    validateLabels(labels);
    if (this.#find(ctx, key)) throw taken(key);
    const target = labels[targetLabel];
    if (target && this.#find(ctx, target)) throw alreadyExists(`target snapshot "${target}": already exists`);
    const backendParent = parent === '' ? '' : this.#parentKey(ctx, parent);
    const backendKey = this.#newKey(ctx, key);
    this.inFlight.add(backendKey);
    // Its database and this one go to disk at the same time: of a power cut in between nothing is left (dropLostSnapshots, the collector).
    const within = this.backend.flush ? { ...ctx, step: true } : ctx;
    try {
      const backendOptions = { labels: inheritedLabels(labels) };
      const prepared = (
        kind === 'active'
          ? this.backend.prepare(backendKey, backendParent, backendOptions, within)
          : this.backend.view(backendKey, backendParent, backendOptions, within)
      ).catch(async (error) => {
        if (target && hasCode(error, Code.AlreadyExists))
          await this.#takeRemote(ctx, target, parent, backendParent, labels);
        throw error;
      });
      const record = () =>
        this.#settings.store.update((tx) => this.#record(tx, ctx, kind, key, parent, backendKey, labels), ctx);
      const mounts =
        ctx.step && this.backend.flush && !target
          ? await this.#both(ctx, { key, parent, backendKey }, prepared, record())
          : await this.#oneByOne(ctx, backendKey, prepared, record);
      if (kind === 'active') {
        const event = { key, parent, snapshotter: this.name };
        this.#settings.events.publishMessage(ctx.namespace, '/snapshot/prepare', SnapshotPrepareSchema, event);
      }
      return mounts;
    } finally {
      this.inFlight.delete(backendKey);
    }
  }

  async #oneByOne(
    ctx: RequestContext,
    backendKey: string,
    prepared: Promise<Mount[]>,
    record: () => Promise<void>,
  ): Promise<Mount[]> {
    const mounts = await prepared;
    try {
      await Promise.all([ctx.step ? undefined : this.backend.flush?.(), record()]);
    } catch (error) {
      await this.#drop(ctx, backendKey);
      throw error;
    }
    return mounts;
  }

  /** A step that has a database of its own below is noted in both at once. One without the other is taken back, at the next start too. */
  async #both(
    ctx: RequestContext,
    { key, parent, backendKey }: { key: string; parent: string; backendKey: string },
    preparing: Promise<Mount[]>,
    recording: Promise<void>,
  ): Promise<Mount[]> {
    const [prepared, recorded] = await Promise.allSettled([preparing, recording]);
    if (prepared.status === 'fulfilled' && recorded.status === 'fulfilled') return prepared.value;
    if (recorded.status === 'fulfilled')
      await this.#settings.store.update((tx) => this.#forget(tx, ctx, key, parent), { step: true });
    if (prepared.status === 'fulfilled') await this.#drop(ctx, backendKey);
    throw prepared.status === 'rejected' ? prepared.reason : (recorded as PromiseRejectedResult).reason;
  }

  #record(
    tx: WriteTransaction,
    ctx: RequestContext,
    kind: SnapshotKind,
    key: string,
    parent: string,
    backendKey: string,
    labels: Record<string, string>,
  ): void {
    const { namespaces } = this.#settings;
    const where = keys.snapshot(ctx.namespace, this.name, key);
    if (tx.has(where)) throw taken(key);
    if (parent !== '' && !tx.has(keys.snapshot(ctx.namespace, this.name, parent))) throw missingParent(parent);
    namespaces.ensure(tx, ctx.namespace);
    addToLease(tx, ctx, ResourceType.snapshot(this.name), key);
    const at = now();
    tx.put(where, { backendKey, kind, parent, labels, createdAt: at, updatedAt: at } satisfies SnapshotRecord);
    if (parent !== '') tx.put(keys.snapshotChild(ctx.namespace, this.name, parent, key), {});
  }

  #parentKey(ctx: RequestContext, parent: string): string {
    const record = this.#find(ctx, parent);
    if (!record) throw missingParent(parent);
    if (record.kind !== 'committed') {
      throw invalidArgument(`parent "${parent}" is not committed snapshot: invalid argument`);
    }
    return record.backendKey;
  }

  /** A lazy-pulling snapshotter answered that it has the target already: note it as committed in this namespace. */
  async #takeRemote(
    ctx: RequestContext,
    target: string,
    parent: string,
    backendParent: string,
    labels: Record<string, string>,
  ): Promise<void> {
    for await (const info of this.backend.list(ctx)) {
      if (info.kind !== 'committed' || info.parent !== backendParent || info.labels[targetLabel] !== target) continue;
      if (this.leaving.has(info.name)) continue;
      this.inFlight.add(info.name);
      this.adopted.add(info.name);
      try {
        await this.#settings.store.update((tx) => {
          if (tx.has(keys.snapshot(ctx.namespace, this.name, target))) return;
          this.#record(tx, ctx, 'committed', target, parent, info.name, labels);
        });
      } finally {
        this.inFlight.delete(info.name);
      }
      return;
    }
  }

  measure(ctx: RequestContext, key: string): void {
    const record = this.#find(ctx, key);
    if (record?.kind === 'active') this.backend.measure?.(record.backendKey);
  }

  async commit(ctx: RequestContext, name: string, key: string, options: CommitSnapshotOptions = {}): Promise<void> {
    if (name === '') throw invalidArgument('snapshot name must not be empty: invalid argument');
    const { store, events, mutated } = this.#settings;
    const active = this.#get(ctx, key);
    if (active.kind !== 'active') throw failedPrecondition(`snapshot ${key} is not active: failed precondition`);
    if (this.#find(ctx, name)) throw taken(name);
    const parent = options.parent ?? active.parent;
    const backendParent = options.parent === undefined ? undefined : this.#parentKey(ctx, options.parent);
    const labels = options.labels ?? {};
    validateLabels(labels);
    const layer = ctx.step && this.backend.settle ? options.layer : undefined;
    const backendName = this.#newKey(ctx, name);
    this.inFlight.add(backendName);
    if (layer) this.#settling.expect();
    try {
      await this.backend
        .commit(
          backendName,
          active.backendKey,
          {
            labels: inheritedLabels(labels),
            ...(backendParent === undefined ? {} : { parent: backendParent }),
            ...(layer && { layer }),
          },
          ctx,
        )
        .catch((error) => rethrow(error, key));
      await store.update((tx) => {
        const where = keys.snapshot(ctx.namespace, this.name, name);
        if (tx.has(where)) throw taken(name);
        this.#forget(tx, ctx, key, active.parent);
        addToLease(tx, ctx, ResourceType.snapshot(this.name), name);
        const at = now();
        tx.put(where, {
          backendKey: backendName,
          kind: 'committed',
          parent,
          labels,
          createdAt: at,
          updatedAt: at,
          ...(layer && { layer }),
        } satisfies SnapshotRecord);
        if (parent !== '') tx.put(keys.snapshotChild(ctx.namespace, this.name, parent, name), {});
        tx.afterCommit(() =>
          events.publishMessage(ctx.namespace, '/snapshot/commit', SnapshotCommitSchema, {
            key,
            name,
            snapshotter: this.name,
          }),
        );
      }, ctx);
    } finally {
      this.inFlight.delete(backendName);
    }
    mutated(false);
    if (layer) this.#settling.soon();
  }

  /** As `SnapshotSettling.settle`. */
  settle(): Promise<boolean> {
    return this.#settling.settle();
  }

  /** As `SnapshotSettling.remake`. */
  remake(...args: Parameters<SnapshotSettling['remake']>): Promise<void> {
    return this.#settling.remake(...args);
  }

  /** The store is about to be closed. */
  async close(): Promise<void> {
    await Promise.all(this.#drops);
    await this.#settling.close();
  }

  #forget(tx: WriteTransaction, ctx: RequestContext, key: string, parent: string): void {
    tx.remove(keys.snapshot(ctx.namespace, this.name, key));
    if (parent !== '') tx.remove(keys.snapshotChild(ctx.namespace, this.name, parent, key));
    removeFromLease(tx, ctx, ResourceType.snapshot(this.name), key);
  }

  async remove(ctx: RequestContext, key: string): Promise<void> {
    const { store, events, mutated } = this.#settings;
    const removed = await store.update((tx) => {
      const record = tx.get<SnapshotRecord>(keys.snapshot(ctx.namespace, this.name, key));
      if (!record) throw missing(key);
      for (const _ of tx.list(keys.snapshotChildren(ctx.namespace, this.name, key))) {
        throw failedPrecondition(`cannot remove snapshot with child: failed precondition`);
      }
      this.#forget(tx, ctx, key, record.parent);
      tx.afterCommit(() =>
        events.publishMessage(ctx.namespace, '/snapshot/remove', SnapshotRemoveSchema, { key, snapshotter: this.name }),
      );
      return record;
    }, ctx);
    mutated(true);
    if (ctx.step) this.#dropOnceOnDisk(ctx, removed.backendKey);
    else await this.#drop(ctx, removed.backendKey);
  }

  /** What is below goes after its record: never would a record come back that names what is gone. Nobody waits for it but the end. */
  #dropOnceOnDisk({ namespace }: RequestContext, backendKey: string): void {
    const { store, log } = this.#settings;
    const drop = store.flush().then(
      () => this.#drop({ namespace }, backendKey),
      (error) =>
        log.warn('snapshot left for the garbage collector', { error, snapshotter: this.name, key: backendKey }),
    );
    this.#drops.add(drop);
    void drop.finally(() => this.#drops.delete(drop));
  }

  /** Takes a snapshot that no record names out of the backend; what does not go now, the collector takes. */
  async #drop(ctx: RequestContext, backendKey: string): Promise<void> {
    try {
      // Also for a caller who has given up.
      const signal = AbortSignal.timeout(dropPatience);
      await this.backend.remove(backendKey, { namespace: ctx.namespace, signal });
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) {
        this.#settings.log.warn('snapshot left for the garbage collector', {
          error,
          snapshotter: this.name,
          key: backendKey,
        });
      }
    }
  }

  async *list(ctx: RequestContext, filters: string[] = []): AsyncIterable<SnapshotInfo> {
    const filter = parseFilters(filters);
    yield* this.#settings.store.view((tx) => {
      const infos: SnapshotInfo[] = [];
      for (const { key, value } of tx.list<SnapshotRecord>(keys.snapshots(ctx.namespace, this.name))) {
        const info = infoOf(key[3]!, value);
        if (filter.matches(snapshotLookup(info))) infos.push(info);
      }
      return infos;
    });
  }

  async flush(): Promise<void> {
    await this.backend.flush?.();
  }

  async cleanup(ctx: RequestContext): Promise<void> {
    await this.backend.cleanup?.(ctx);
  }
}

function infoOf(key: string, record: SnapshotRecord): SnapshotInfo {
  const { kind, parent, labels, createdAt, updatedAt } = record;
  return { kind, name: key, parent, labels, createdAt, updatedAt };
}

/** The labels that are handed down to the snapshotter. */
function inheritedLabels(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(labels).filter(([name]) => name === targetLabel || name.startsWith(inheritedPrefix)),
  );
}

function missing(key: string): StatusError {
  return notFound(`snapshot ${key} does not exist: not found`);
}

function missingParent(parent: string): StatusError {
  return notFound(`parent snapshot ${parent} does not exist: not found`);
}

function taken(key: string): StatusError {
  return alreadyExists(`snapshot "${key}": already exists`);
}

/** The backend speaks of its own keys: a missing one is told by the client's. */
function rethrow(error: unknown, key: string): never {
  throw hasCode(error, Code.NotFound) ? missing(key) : error;
}
