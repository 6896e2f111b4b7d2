import { alreadyExists, failedPrecondition, notFound } from '@gantry/api';
import {
  NamespaceCreateSchema,
  NamespaceDeleteSchema,
  NamespaceUpdateSchema,
} from '@gantry/api/gen/events/namespace_pb.js';
import type { EventExchange } from '../events/exchange.ts';
import { applyLabelMask } from '../metadata/label-mask.ts';
import type { MetadataStore, ReadTransaction, WriteTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import { validateIdentifier } from '../validation/identifier.ts';
import { validateLabels } from '../validation/labels.ts';
import type { NamespaceStore } from './namespace-store.ts';

export interface NamespaceRecord {
  labels: Record<string, string>;
}

/** Default labels a namespace may set for its clients. */
export const defaultLabels = {
  snapshotter: 'containerd.io/defaults/snapshotter',
  runtime: 'containerd.io/defaults/runtime',
  sandboxer: 'containerd.io/defaults/sandboxer',
} as const;

export class MetadataNamespaces implements NamespaceStore {
  readonly #store: MetadataStore;
  readonly #events: EventExchange;
  readonly #removed: ((name: string) => Promise<void>) | undefined;

  /** `removed` is called for every namespace that was deleted, to clear away what outside the store bears its name. */
  constructor(store: MetadataStore, events: EventExchange, removed?: (name: string) => Promise<void>) {
    this.#store = store;
    this.#events = events;
    this.#removed = removed;
  }

  async labels(name: string): Promise<Record<string, string>> {
    // One that nobody made has no labels, as with containerd: its clients ask for the default labels of a namespace before it is there.
    return this.#store.view((tx) => tx.get<NamespaceRecord>(keys.namespace(name)))?.labels ?? {};
  }

  async list(): Promise<string[]> {
    return this.#store.view((tx) => [...tx.children(keys.namespaces())]);
  }

  async create(name: string, labels: Record<string, string>): Promise<void> {
    validateIdentifier(name);
    validateLabels(labels);
    await this.#store.update((tx) => {
      if (tx.has(keys.namespace(name))) throw alreadyExists(`namespace "${name}": already exists`);
      tx.put(keys.namespace(name), { labels } satisfies NamespaceRecord);
      tx.afterCommit(() =>
        this.#events.publishMessage(name, '/namespaces/create', NamespaceCreateSchema, { name, labels }),
      );
    });
  }

  async update(name: string, labels: Record<string, string>, paths: string[]): Promise<Record<string, string>> {
    return this.#store.update((tx) => {
      // containerd makes a namespace that is labelled before it is there.
      if (!tx.has(keys.namespace(name))) validateIdentifier(name);
      const record = tx.get<NamespaceRecord>(keys.namespace(name)) ?? { labels: {} };
      // Without a mask the given labels are set beside those present: containerd's services do the same.
      const mask = paths.length > 0 ? paths : Object.keys(labels).map((label) => `labels.${label}`);
      const next =
        mask.length === 0 ? record.labels : applyLabelMask(record.labels, labels, mask, `namespace "${name}"`);
      validateLabels(next);
      tx.put(keys.namespace(name), { labels: next } satisfies NamespaceRecord);
      tx.afterCommit(() =>
        this.#events.publishMessage(name, '/namespaces/update', NamespaceUpdateSchema, { name, labels: next }),
      );
      return next;
    });
  }

  async delete(name: string): Promise<void> {
    await this.#store.update((tx) => {
      if (!tx.has(keys.namespace(name))) throw missing(name);
      const left = contents(tx, name);
      if (left.length > 0) {
        throw failedPrecondition(
          `namespace "${name}" must be empty, but it still has ${left.join(', ')}: failed precondition`,
        );
      }
      tx.remove(keys.namespace(name));
      tx.removeAll(keys.leases(name));
      tx.removeAll(['lease-resource', name]);
      tx.afterCommit(() => this.#events.publishMessage(name, '/namespaces/delete', NamespaceDeleteSchema, { name }));
    });
    await this.#removed?.(name);
  }

  ensure(tx: WriteTransaction, name: string): void {
    if (!tx.has(keys.namespace(name))) tx.put(keys.namespace(name), { labels: {} } satisfies NamespaceRecord);
  }
}

/** What is left in a namespace, in words. */
function contents(tx: ReadTransaction, name: string): string[] {
  const left: string[] = [];
  const has = (prefix: readonly string[]): boolean => {
    for (const _ of tx.list(prefix)) return true;
    return false;
  };
  if (has(keys.images(name))) left.push('images');
  if (has(keys.blobs(name)) || has(keys.ingests(name))) left.push('blobs');
  if (has(keys.containers(name))) left.push('containers');
  if (has(keys.sandboxes(name))) left.push('sandboxes');
  for (const snapshotter of tx.children(keys.snapshotsOf(name))) left.push(`snapshots on "${snapshotter}" snapshotter`);
  return left;
}

function missing(name: string): Error {
  return notFound(`namespace "${name}": not found`);
}
