import { alreadyExists, invalidArgument, notFound, now, type Time } from '@gantry/api';
import { ImageCreateSchema, ImageDeleteSchema, ImageUpdateSchema } from '@gantry/api/gen/events/image_pb.js';
import type { Descriptor } from '@gantry/oci';
import type { EventExchange } from '../events/exchange.ts';
import { imageLookup } from '../filters/lookups.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import type { GarbageCollector } from '../gc/garbage-collector.ts';
import { addToLease, ResourceType, removeFromLease } from '../leases/lease-records.ts';
import { applyLabelMask } from '../metadata/label-mask.ts';
import type { MetadataStore } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { RequestContext } from '../request-context.ts';
import { validateDigest } from '../validation/digest.ts';
import { validateLabels } from '../validation/labels.ts';
import type { Image, ImageStore } from './image-store.ts';

export interface ImageRecord {
  labels: Record<string, string>;
  target: Descriptor;
  createdAt: Time;
  updatedAt: Time;
}

export class MetadataImages implements ImageStore {
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

  async get(ctx: RequestContext, name: string): Promise<Image> {
    const image = await this.find(ctx, name);
    if (!image) throw missing(name);
    return image;
  }

  async find(ctx: RequestContext, name: string): Promise<Image | undefined> {
    const record = this.#store.view((tx) => tx.get<ImageRecord>(keys.image(ctx.namespace, name)));
    return record && { name, ...record };
  }

  async list(ctx: RequestContext, filters: string[] = []): Promise<Image[]> {
    const filter = parseFilters(filters);
    return this.#store.view((tx) => {
      const images: Image[] = [];
      for (const { key, value } of tx.list<ImageRecord>(keys.images(ctx.namespace))) {
        const image = { name: key[2]!, ...value };
        if (filter.matches(imageLookup(image))) images.push(image);
      }
      return images;
    });
  }

  async create(
    ctx: RequestContext,
    image: Pick<Image, 'name' | 'labels' | 'target'> & { createdAt?: Time },
  ): Promise<Image> {
    if (image.name === '') throw invalidArgument('image name must not be empty: invalid argument');
    validate(image);
    const created = await this.#store.update((tx) => {
      const key = keys.image(ctx.namespace, image.name);
      if (tx.has(key)) throw alreadyExists(`image "${image.name}": already exists`);
      this.#namespaces.ensure(tx, ctx.namespace);
      addToLease(tx, ctx, ResourceType.image, image.name);
      const at = now();
      const record: ImageRecord = {
        labels: image.labels,
        target: image.target,
        createdAt: image.createdAt ?? at,
        updatedAt: image.createdAt ?? at,
      };
      tx.put(key, record);
      tx.afterCommit(() =>
        this.#events.publishMessage(ctx.namespace, '/images/create', ImageCreateSchema, {
          name: image.name,
          labels: image.labels,
        }),
      );
      return { name: image.name, ...record };
    }, ctx);
    this.#gc.mutated(false);
    return created;
  }

  async update(ctx: RequestContext, image: Pick<Image, 'name' | 'labels' | 'target'>, paths: string[]): Promise<Image> {
    if (image.name === '') throw invalidArgument('image name is required for update: invalid argument');
    const updated = await this.#store.update((tx) => {
      const key = keys.image(ctx.namespace, image.name);
      const record = tx.get<ImageRecord>(key);
      if (!record) throw missing(image.name);
      applyPaths(record, image, paths);
      validate({ name: image.name, ...record });
      record.updatedAt = now();
      tx.put(key, record);
      tx.afterCommit(() =>
        this.#events.publishMessage(ctx.namespace, '/images/update', ImageUpdateSchema, {
          name: image.name,
          labels: record.labels,
        }),
      );
      return { name: image.name, ...record };
    }, ctx);
    this.#gc.mutated(true);
    return updated;
  }

  async delete(
    ctx: RequestContext,
    name: string,
    options: { synchronous?: boolean; target?: string } = {},
  ): Promise<void> {
    await this.#store.update((tx) => {
      const key = keys.image(ctx.namespace, name);
      const record = tx.get<ImageRecord>(key);
      if (!record || (options.target && record.target.digest !== options.target)) throw missing(name);
      removeFromLease(tx, ctx, ResourceType.image, name);
      tx.remove(key);
      tx.afterCommit(() => this.#events.publishMessage(ctx.namespace, '/images/delete', ImageDeleteSchema, { name }));
    }, ctx);
    this.#gc.mutated(true);
    // A collection's own transaction waits for the disk.
    if (options.synchronous) await this.#gc.collect();
  }
}

function applyPaths(record: ImageRecord, image: Pick<Image, 'name' | 'labels' | 'target'>, paths: string[]): void {
  if (paths.length === 0) {
    record.labels = applyLabelMask(record.labels, image.labels, [], `image "${image.name}"`);
    record.target = image.target;
  }
  for (const path of paths) {
    if (path.startsWith('annotations.')) {
      const name = path.slice('annotations.'.length);
      const annotations = { ...record.target.annotations };
      const value = image.target.annotations?.[name];
      if (value === undefined || value === '') delete annotations[name];
      else annotations[name] = value;
      record.target = { ...record.target, annotations };
    } else if (path === 'annotations') {
      record.target = { ...record.target, annotations: image.target.annotations ?? {} };
    } else if (path === 'target') record.target = image.target;
    else record.labels = applyLabelMask(record.labels, image.labels, [path], `image "${image.name}"`);
  }
}

function validate(image: Pick<Image, 'name' | 'labels' | 'target'>): void {
  validateLabels(image.labels);
  try {
    validateDigest(image.target.digest);
  } catch (cause) {
    throw invalidArgument(`image "${image.name}": target digest ${(cause as Error).message}`, cause);
  }
  if (image.target.size <= 0) throw invalidArgument('image size must be greater than zero: invalid argument');
  if (image.target.mediaType === '')
    throw invalidArgument('image target mediatype must be specified: invalid argument');
}

function missing(name: string): Error {
  return notFound(`image "${name}": not found`);
}
