import { alreadyExists, invalidArgument, notFound, now, StatusError, type Time } from '@gantry/api';
import type { FieldLookup } from '../filters/filter.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import type { GarbageCollector } from '../gc/garbage-collector.ts';
import { type AnyRecord, fromAnyRecord, toAnyRecord } from '../metadata/any-record.ts';
import { applyLabelMask } from '../metadata/label-mask.ts';
import type { MetadataStore } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import { defaultLabels, type NamespaceRecord } from '../namespaces/metadata-namespaces.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { RequestContext } from '../request-context.ts';
import { validateIdentifier } from '../validation/identifier.ts';
import { validateLabels } from '../validation/labels.ts';
import type { Sandbox, SandboxInput, SandboxStore } from './sandbox-store.ts';

export interface SandboxRecord {
  labels: Record<string, string>;
  runtime: { name: string; options?: AnyRecord };
  spec?: AnyRecord;
  sandboxer: string;
  createdAt: Time;
  updatedAt: Time;
  extensions: Record<string, AnyRecord>;
}

export class MetadataSandboxes implements SandboxStore {
  readonly #store: MetadataStore;
  readonly #namespaces: Pick<NamespaceStore, 'ensure'>;
  readonly #gc: Pick<GarbageCollector, 'mutated'>;

  constructor(store: MetadataStore, namespaces: Pick<NamespaceStore, 'ensure'>, gc: Pick<GarbageCollector, 'mutated'>) {
    this.#store = store;
    this.#namespaces = namespaces;
    this.#gc = gc;
  }

  async get(ctx: RequestContext, id: string): Promise<Sandbox> {
    const record = this.#store.view((tx) => tx.get<SandboxRecord>(keys.sandbox(ctx.namespace, id)));
    if (!record) throw missing(id);
    return fromRecord(id, record);
  }

  async list(ctx: RequestContext, filters: string[] = []): Promise<Sandbox[]> {
    const filter = parseFilters(filters);
    return this.#store.view((tx) => {
      const sandboxes: Sandbox[] = [];
      for (const { key, value } of tx.list<SandboxRecord>(keys.sandboxes(ctx.namespace))) {
        const sandbox = fromRecord(key[2]!, value);
        if (filter.matches(sandboxLookup(sandbox))) sandboxes.push(sandbox);
      }
      return sandboxes;
    });
  }

  async create(ctx: RequestContext, input: SandboxInput): Promise<Sandbox> {
    validate(input);
    const created = await this.#store.update((tx) => {
      const key = keys.sandbox(ctx.namespace, input.id);
      if (tx.has(key)) throw alreadyExists(`sandbox "${input.id}": already exists`);
      this.#namespaces.ensure(tx, ctx.namespace);
      const defaults = tx.get<NamespaceRecord>(keys.namespace(ctx.namespace))?.labels ?? {};
      const sandboxer = input.sandboxer || defaults[defaultLabels.sandboxer] || '';
      const at = now();
      const sandbox: Sandbox = { ...input, sandboxer, createdAt: at, updatedAt: at };
      tx.put(key, toRecord(sandbox));
      return sandbox;
    });
    this.#gc.mutated(false);
    return created;
  }

  async update(ctx: RequestContext, input: SandboxInput, paths: string[]): Promise<Sandbox> {
    const updated = await this.#store.update((tx) => {
      const key = keys.sandbox(ctx.namespace, input.id);
      const record = tx.get<SandboxRecord>(key);
      if (!record) throw missing(input.id);
      const sandbox = fromRecord(input.id, record);
      applyPaths(sandbox, input, paths.length > 0 ? paths : ['labels', 'extensions', 'runtime', 'spec']);
      validate(sandbox);
      sandbox.updatedAt = now();
      tx.put(key, toRecord(sandbox));
      return sandbox;
    });
    this.#gc.mutated(true);
    return updated;
  }

  async delete(ctx: RequestContext, id: string): Promise<void> {
    await this.#store.update((tx) => {
      if (!tx.remove(keys.sandbox(ctx.namespace, id))) throw missing(id);
    }, ctx);
    this.#gc.mutated(true);
  }
}

function applyPaths(sandbox: Sandbox, input: SandboxInput, paths: readonly string[]): void {
  for (const path of paths) {
    if (path.startsWith('extensions.')) {
      const name = path.slice('extensions.'.length);
      const value = input.extensions[name];
      if (value) sandbox.extensions[name] = value;
      else delete sandbox.extensions[name];
    } else if (path === 'extensions') sandbox.extensions = { ...input.extensions };
    else if (path === 'runtime') sandbox.runtime = input.runtime;
    else if (path === 'spec') sandbox.spec = input.spec;
    else sandbox.labels = applyLabelMask(sandbox.labels, input.labels, [path], `sandbox ${sandbox.id}`);
  }
}

function validate(sandbox: SandboxInput): void {
  try {
    validateIdentifier(sandbox.id);
  } catch (error) {
    throw StatusError.wrap(error, 'sandbox.ID');
  }
  validateLabels(sandbox.labels);
  if (sandbox.runtime.name === '') throw invalidArgument('sandbox.Runtime.Name must be set: invalid argument');
  for (const [name, value] of Object.entries(sandbox.extensions)) {
    if (name === '') throw invalidArgument('sandbox.Extensions keys must not be zero-length: invalid argument');
    if (value.typeUrl === '') {
      throw invalidArgument(`sandbox.Extensions["${name}"] type url must be set: invalid argument`);
    }
  }
}

/** What filters see of a sandbox. */
export function sandboxLookup(sandbox: Sandbox): FieldLookup {
  return ([field, ...rest]) => {
    switch (field) {
      case 'id':
        return sandbox.id;
      case 'sandboxer':
        return sandbox.sandboxer || undefined;
      case 'runtime':
        return rest[0] === 'name' ? sandbox.runtime.name : undefined;
      case 'labels':
        return sandbox.labels[rest.join('.')];
      default:
        return undefined;
    }
  };
}

function toRecord(sandbox: Sandbox): SandboxRecord {
  const { id: _, runtime, spec, extensions, ...rest } = sandbox;
  return {
    ...rest,
    runtime: { name: runtime.name, ...(runtime.options && { options: toAnyRecord(runtime.options) }) },
    ...(spec && { spec: toAnyRecord(spec) }),
    extensions: Object.fromEntries(Object.entries(extensions).map(([name, value]) => [name, toAnyRecord(value)])),
  };
}

function fromRecord(id: string, record: SandboxRecord): Sandbox {
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

function missing(id: string): Error {
  return notFound(`sandbox "${id}" not found: not found`);
}
