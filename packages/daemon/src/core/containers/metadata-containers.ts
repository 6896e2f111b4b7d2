import { alreadyExists, invalidArgument, notFound, now, StatusError, type Time } from '@gantry/api';
import {
  ContainerCreateSchema,
  ContainerDeleteSchema,
  ContainerUpdateSchema,
} from '@gantry/api/gen/events/container_pb.js';
import type { EventExchange } from '../events/exchange.ts';
import { containerLookup } from '../filters/lookups.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import type { GarbageCollector } from '../gc/garbage-collector.ts';
import { type AnyRecord, fromAnyRecord, toAnyRecord } from '../metadata/any-record.ts';
import { applyLabelMask } from '../metadata/label-mask.ts';
import type { MetadataStore } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { RequestContext } from '../request-context.ts';
import { validateIdentifier } from '../validation/identifier.ts';
import { validateLabels } from '../validation/labels.ts';
import type { Container, ContainerInput, ContainerStore } from './container-store.ts';

export interface ContainerRecord {
  labels: Record<string, string>;
  image: string;
  runtime: { name: string; options?: AnyRecord };
  spec?: AnyRecord;
  snapshotter: string;
  snapshotKey: string;
  createdAt: Time;
  updatedAt: Time;
  extensions: Record<string, AnyRecord>;
  sandboxId: string;
}

export class MetadataContainers implements ContainerStore {
  readonly #store: MetadataStore;
  readonly #events: EventExchange;
  readonly #namespaces: Pick<NamespaceStore, 'ensure'>;
  readonly #gc: GarbageCollector;

  constructor(
    store: MetadataStore,
    events: EventExchange,
    namespaces: Pick<NamespaceStore, 'ensure'>,
    gc: GarbageCollector,
  ) {
    this.#store = store;
    this.#events = events;
    this.#namespaces = namespaces;
    this.#gc = gc;
  }

  async get(ctx: RequestContext, id: string): Promise<Container> {
    const record = this.#store.view((tx) => tx.get<ContainerRecord>(keys.container(ctx.namespace, id)));
    if (!record) throw missing(ctx, id);
    return fromRecord(id, record);
  }

  async list(ctx: RequestContext, filters: string[] = []): Promise<Container[]> {
    const filter = parseFilters(filters);
    return this.#store.view((tx) => {
      const containers: Container[] = [];
      for (const { key, value } of tx.list<ContainerRecord>(keys.containers(ctx.namespace))) {
        const container = fromRecord(key[2]!, value);
        if (filter.matches(containerLookup(container))) containers.push(container);
      }
      return containers;
    });
  }

  async create(ctx: RequestContext, input: ContainerInput): Promise<Container> {
    validate(input, 'create container failed validation');
    return this.#store.update((tx) => {
      const key = keys.container(ctx.namespace, input.id);
      if (tx.has(key)) throw alreadyExists(`container "${input.id}": already exists`);
      this.#namespaces.ensure(tx, ctx.namespace);
      const at = now();
      const container: Container = { ...input, createdAt: at, updatedAt: at };
      tx.put(key, toRecord(container));
      tx.afterCommit(() =>
        this.#events.publishMessage(ctx.namespace, '/containers/create', ContainerCreateSchema, {
          id: input.id,
          image: input.image,
          runtime: { name: input.runtime.name, ...(input.runtime.options && { options: input.runtime.options }) },
        }),
      );
      return container;
    });
  }

  async update(ctx: RequestContext, input: ContainerInput, paths: string[]): Promise<Container> {
    if (input.id === '') throw invalidArgument('must specify a container id: invalid argument');
    const updated = await this.#store.update((tx) => {
      const key = keys.container(ctx.namespace, input.id);
      const record = tx.get<ContainerRecord>(key);
      if (!record) throw missing(ctx, input.id);
      const container = fromRecord(input.id, record);
      applyPaths(container, input, paths);
      validate(container, 'update failed validation');
      container.updatedAt = now();
      tx.put(key, toRecord(container));
      tx.afterCommit(() =>
        this.#events.publishMessage(ctx.namespace, '/containers/update', ContainerUpdateSchema, {
          id: container.id,
          image: container.image,
          labels: container.labels,
          snapshotKey: container.snapshotKey,
        }),
      );
      return container;
    });
    this.#gc.mutated(true);
    return updated;
  }

  async delete(ctx: RequestContext, id: string): Promise<void> {
    await this.#store.update((tx) => {
      if (!tx.remove(keys.container(ctx.namespace, id))) throw missing(ctx, id);
      tx.afterCommit(() =>
        this.#events.publishMessage(ctx.namespace, '/containers/delete', ContainerDeleteSchema, { id }),
      );
    }, ctx);
    this.#gc.mutated(true);
  }
}

function applyPaths(container: Container, input: ContainerInput, paths: string[]): void {
  const fields = paths.length > 0 ? paths : ['labels', 'spec', 'extensions', 'image', 'snapshotkey'];
  if (paths.length === 0) {
    // What cannot change must be given as it is, or not at all.
    if (input.snapshotter !== '' && input.snapshotter !== container.snapshotter) throw immutable('Snapshotter');
    if (input.runtime.name !== '' && input.runtime.name !== container.runtime.name) throw immutable('Runtime.Name');
  }
  for (const path of fields) {
    if (path.startsWith('extensions.')) {
      const name = path.slice('extensions.'.length);
      const value = input.extensions[name];
      if (value) container.extensions[name] = value;
      else delete container.extensions[name];
      continue;
    }
    switch (path) {
      case 'spec':
        container.spec = input.spec;
        break;
      case 'extensions':
        container.extensions = input.extensions;
        break;
      case 'image':
        container.image = input.image;
        break;
      case 'snapshotkey':
        container.snapshotKey = input.snapshotKey;
        break;
      default:
        container.labels = applyLabelMask(container.labels, input.labels, [path], `container ${container.id}`);
    }
  }
}

function immutable(name: string): Error {
  return invalidArgument(`container.${name} field is immutable: invalid argument`);
}

function validate(container: ContainerInput, prefix: string): void {
  try {
    try {
      validateIdentifier(container.id);
    } catch (error) {
      throw StatusError.wrap(error, 'container.ID');
    }
    validateLabels(container.labels);
    if (container.runtime.name === '') throw invalidArgument('container.Runtime.Name must be set: invalid argument');
    if (!container.spec) throw invalidArgument('container.Spec must be set: invalid argument');
    if (container.snapshotKey !== '' && container.snapshotter === '') {
      throw invalidArgument('container.Snapshotter must be set if container.SnapshotKey is set: invalid argument');
    }
    for (const [name, value] of Object.entries(container.extensions)) {
      if (name === '') throw invalidArgument('container.Extensions keys must not be zero-length: invalid argument');
      if (value.typeUrl === '') {
        throw invalidArgument(`container.Extensions["${name}"] type url must be set: invalid argument`);
      }
    }
  } catch (error) {
    throw StatusError.wrap(error, prefix);
  }
}

function toRecord(container: Container): ContainerRecord {
  const { id: _, runtime, spec, extensions, ...rest } = container;
  return {
    ...rest,
    runtime: { name: runtime.name, ...(runtime.options && { options: toAnyRecord(runtime.options) }) },
    ...(spec && { spec: toAnyRecord(spec) }),
    extensions: Object.fromEntries(Object.entries(extensions).map(([name, value]) => [name, toAnyRecord(value)])),
  };
}

function fromRecord(id: string, record: ContainerRecord): Container {
  return {
    id,
    ...record,
    runtime: { name: record.runtime.name, options: fromAnyRecord(record.runtime.options) },
    spec: fromAnyRecord(record.spec),
    extensions: Object.fromEntries(
      Object.entries(record.extensions).map(([name, value]) => [name, fromAnyRecord(value)]),
    ),
  };
}

function missing(ctx: RequestContext, id: string): Error {
  return notFound(`container "${id}" in namespace "${ctx.namespace}": not found`);
}
