import { alreadyExists, invalidArgument, notFound, now, type Time } from '@gantry/api';
import { leaseLookup } from '../filters/lookups.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import type { GarbageCollector } from '../gc/garbage-collector.ts';
import type { MetadataStore, WriteTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { RequestContext } from '../request-context.ts';
import { validateLabels } from '../validation/labels.ts';
import type { Lease, LeaseManager, LeaseResource } from './lease-manager.ts';
import { endLeaseKeepingIngests, leaseResources } from './lease-records.ts';

export interface LeaseRecord {
  createdAt: Time;
  labels: Record<string, string>;
}

export class MetadataLeases implements LeaseManager {
  readonly #store: MetadataStore;
  readonly #namespaces: Pick<NamespaceStore, 'ensure'>;
  readonly #gc: GarbageCollector;

  constructor(store: MetadataStore, namespaces: Pick<NamespaceStore, 'ensure'>, gc: GarbageCollector) {
    this.#store = store;
    this.#namespaces = namespaces;
    this.#gc = gc;
  }

  async create(ctx: RequestContext, lease: { id: string; labels: Record<string, string> }): Promise<Lease> {
    if (lease.id === '') throw invalidArgument('lease id must be provided: invalid argument');
    validateLabels(lease.labels);
    return this.#store.update((tx) => {
      const key = keys.lease(ctx.namespace, lease.id);
      if (tx.has(key)) throw alreadyExists(`lease "${lease.id}": already exists`);
      this.#namespaces.ensure(tx, ctx.namespace);
      const record: LeaseRecord = { createdAt: now(), labels: lease.labels };
      tx.put(key, record);
      return { id: lease.id, ...record };
    }, ctx);
  }

  async delete(
    ctx: RequestContext,
    id: string,
    options: { synchronous?: boolean; keepIngests?: boolean } = {},
  ): Promise<void> {
    await this.#store.update((tx) => {
      if (!tx.has(keys.lease(ctx.namespace, id))) throw missing(id);
      if (options.keepIngests) return endLeaseKeepingIngests(tx, ctx.namespace, id);
      tx.remove(keys.lease(ctx.namespace, id));
      tx.removeAll(keys.leaseResources(ctx.namespace, id));
    }, ctx);
    this.#gc.mutated(true);
    if (options.synchronous) await this.#gc.collect();
  }

  async list(ctx: RequestContext, filters: string[] = []): Promise<Lease[]> {
    const filter = parseFilters(filters);
    return this.#store.view((tx) => {
      const leases: Lease[] = [];
      for (const { key, value } of tx.list<LeaseRecord>(keys.leases(ctx.namespace))) {
        const lease = { id: key[2]!, ...value };
        if (filter.matches(leaseLookup(lease))) leases.push(lease);
      }
      return leases;
    });
  }

  async addResource(ctx: RequestContext, lease: string, resource: LeaseResource): Promise<void> {
    validateResource(resource);
    await this.#store.update((tx) => {
      this.#assertLease(tx, ctx, lease);
      tx.put(keys.leaseResource(ctx.namespace, lease, resource.type, resource.id), {});
    });
  }

  async deleteResource(ctx: RequestContext, lease: string, resource: LeaseResource): Promise<void> {
    validateResource(resource);
    await this.#store.update((tx) => {
      this.#assertLease(tx, ctx, lease);
      tx.remove(keys.leaseResource(ctx.namespace, lease, resource.type, resource.id));
    });
    this.#gc.mutated(true);
  }

  async listResources(ctx: RequestContext, lease: string): Promise<LeaseResource[]> {
    return this.#store.view((tx) => {
      if (!tx.has(keys.lease(ctx.namespace, lease))) throw missing(lease);
      return [...leaseResources(tx, ctx.namespace, lease)];
    });
  }

  #assertLease(tx: WriteTransaction, ctx: RequestContext, lease: string): void {
    if (!tx.has(keys.lease(ctx.namespace, lease))) throw missing(lease);
  }
}

function validateResource({ type, id }: LeaseResource): void {
  const [kind, snapshotter, ...rest] = type.split('/');
  const ok =
    kind === 'snapshots'
      ? snapshotter !== undefined && snapshotter !== '' && rest.length === 0
      : ['content', 'ingests', 'images', 'mounts'].includes(kind ?? '') && snapshotter === undefined;
  if (!ok) throw invalidArgument(`invalid resource type "${type}": invalid argument`);
  if (id === '') throw invalidArgument('resource id must be provided: invalid argument');
}

function missing(id: string): Error {
  return notFound(`lease "${id}": not found`);
}
