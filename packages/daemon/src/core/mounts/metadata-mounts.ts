import { mkdir } from 'node:fs/promises';
import { alreadyExists, invalidArgument, notFound, now, StatusError, unimplemented } from '@gantry/api';
import {
  type ActiveMount,
  AllowedRoots,
  formatMount,
  type Mount,
  type MountHandler,
  type MountTransformer,
  mkdirTransformer,
  mkfsTransformer,
  mountAll,
} from '@gantry/mount';
import { readMountInfoAsync } from '@gantry/sys';
import { KeyedLock } from '../content/keyed-lock.ts';
import { activationLookup } from '../filters/lookups.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import { addToLease, ResourceType } from '../leases/lease-records.ts';
import type { Logger } from '../log/logger.ts';
import type { MetadataStore } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { RequestContext } from '../request-context.ts';
import { validateLabels } from '../validation/labels.ts';
import { type ActivationPlan, planActivation, transform } from './activation-plan.ts';
import { type ActivationRecord, activationOf, allActivations, removeActivation } from './activation-records.ts';
import type { ActivateOptions, Activation, MountManager } from './mount-manager.ts';
import { TargetDirectories } from './target-directories.ts';

export interface MetadataMountsSettings {
  store: MetadataStore;
  namespaces: Pick<NamespaceStore, 'ensure'>;
  /** By mount type. */
  handlers: ReadonlyMap<string, MountHandler>;
  /** Where mounts are made; gone after a reboot, as they are. */
  targets: string;
  /** Directories that `mkdir/` and `mkfs/` may make things in, besides the mounts themselves. */
  roots: readonly string[];
  log: Logger;
  mutated(deletion: boolean): void;
}

/** The mount manager with its activations in the metadata: a record is there before the first mount, and until after the last. */
export class MetadataMounts implements MountManager {
  readonly #settings: MetadataMountsSettings;
  readonly #targets: TargetDirectories;
  readonly #transformers: ReadonlyMap<string, MountTransformer>;
  readonly #locks = new KeyedLock();
  /** Activations under way or being undone: not the sweeper's business. */
  readonly #busy = new Set<number>();

  private constructor(settings: MetadataMountsSettings) {
    this.#settings = settings;
    this.#targets = new TargetDirectories(settings.targets, settings.handlers);
    const roots = new AllowedRoots([settings.targets, ...settings.roots]);
    this.#transformers = new Map<string, MountTransformer>([
      ['format', formatMount],
      ['mkfs', mkfsTransformer(roots)],
      ['mkdir', mkdirTransformer(roots)],
    ]);
  }

  /** Undoes what a killed daemon left half-made, and forgets what did not outlive a reboot, before it answers. */
  static async open(settings: MetadataMountsSettings): Promise<MetadataMounts> {
    const mounts = new MetadataMounts(settings);
    await mounts.#targets.prepare();
    await mounts.#reconcile();
    await mounts.sweep();
    return mounts;
  }

  async activate(
    ctx: RequestContext,
    name: string,
    mounts: readonly Mount[],
    options: ActivateOptions = {},
  ): Promise<Activation> {
    if (name === '') throw invalidArgument('activation name must be provided: invalid argument');
    const labels = options.labels ?? {};
    validateLabels(labels);
    const { handlers } = this.#settings;
    const plan = planActivation(mounts, { handlers, transformers: this.#transformers }, options);
    if (!plan) throw unimplemented('no mounts for the mount manager: not implemented');
    return await this.#locks.run(`${ctx.namespace}/${name}`, () => this.#activate(ctx, name, plan, labels, options));
  }

  async #activate(
    ctx: RequestContext,
    name: string,
    plan: ActivationPlan,
    labels: Record<string, string>,
    { temporary = false, transient = false }: ActivateOptions,
  ): Promise<Activation> {
    const record = await this.#reserve(ctx, name, labels, transient);
    try {
      await this.#targets.make(record.id);
      const active = await this.#perform(record.id, plan);
      const next = plan.mounts[plan.performed];
      const system = plan.mounts.slice(plan.performed).map(({ mount }) => mount);
      if (next) system[0] = await transform(next, active);
      const last = active.at(-1);
      // Whoever looks at what is left has to find the file system, also if nothing is left to be done.
      if (last && (temporary || system.length === 0)) {
        system.push({ type: 'bind', source: last.mountPoint, target: '', options: ['rbind'] });
      }
      const complete: ActivationRecord = { ...record, complete: true, active, system };
      await this.#settings.store.update((tx) => {
        addToLease(tx, ctx, ResourceType.mount, name);
        tx.put(keys.mount(ctx.namespace, name), complete);
      });
      this.#settings.mutated(false);
      return activationOf(name, complete);
    } catch (error) {
      await this.#rollBack(ctx, name, record);
      throw error;
    } finally {
      this.#busy.delete(record.id);
    }
  }

  /** Notes that there will be an activation, and gives it its number. */
  async #reserve(
    ctx: RequestContext,
    name: string,
    labels: Record<string, string>,
    transient: boolean,
  ): Promise<ActivationRecord> {
    return await this.#settings.store.update((tx) => {
      const key = keys.mount(ctx.namespace, name);
      if (tx.has(key)) throw alreadyExists(`mount "${name}": already exists`);
      this.#settings.namespaces.ensure(tx, ctx.namespace);
      addToLease(tx, ctx, ResourceType.mount, name);
      const id = (tx.get<number>(keys.sequence('mounts')) ?? 0) + 1;
      tx.put(keys.sequence('mounts'), id);
      const record: ActivationRecord = {
        id,
        complete: false,
        transient,
        lease: ctx.lease ?? '',
        labels,
        createdAt: now(),
        active: [],
        system: [],
      };
      tx.put(key, record);
      this.#busy.add(id);
      return record;
    });
  }

  async #perform(id: number, plan: ActivationPlan): Promise<ActiveMount[]> {
    const active: ActiveMount[] = [];
    for (const [index, planned] of plan.mounts.slice(0, plan.performed).entries()) {
      const mount = await transform(planned, active);
      const place = await this.#targets.place(id, plan.performed - index, plan.performed, mount.type);
      try {
        if (planned.handler) active.push(await planned.handler.mount(mount, place, active));
        else {
          await mkdir(place, { mode: 0o700 });
          await mountAll([{ ...mount, target: '' }], place);
          active.push({ mount, mountPoint: place, mountedAt: now() });
        }
      } catch (error) {
        const what = `${mount.type} ${mount.source} [${mount.options.join(' ')}]`;
        throw StatusError.wrap(error, planned.handler ? `mount handler failed ${what}` : `mount failed ${what}`);
      }
    }
    return active;
  }

  async #rollBack(ctx: RequestContext, name: string, record: ActivationRecord): Promise<void> {
    const { store, log } = this.#settings;
    try {
      await this.#targets.undo(record.id);
      await store.update((tx) => removeActivation(tx, ctx.namespace, name, record));
    } catch (error) {
      log.error('failed to cleanup mount after failed activation', { error, name, namespace: ctx.namespace });
      await store.update((tx) => removeActivation(tx, ctx.namespace, name, record)).catch(() => undefined);
    }
  }

  deactivate(ctx: RequestContext, name: string): Promise<void> {
    return this.#locks.run(`${ctx.namespace}/${name}`, async () => {
      // Asked without a transaction first: every task that ends asks, and most have none.
      if (!this.#settings.store.view((tx) => tx.has(keys.mount(ctx.namespace, name)))) throw missing(name);
      const { id } = await this.#settings.store.update((tx) => {
        const found = tx.get<ActivationRecord>(keys.mount(ctx.namespace, name));
        if (!found) throw missing(name);
        removeActivation(tx, ctx.namespace, name, found);
        return found;
      });
      this.#settings.mutated(true);
      // What cannot be unmounted now, the next collection tries again.
      await this.#undo(id);
    });
  }

  async #undo(id: number): Promise<void> {
    if (this.#busy.has(id)) return;
    this.#busy.add(id);
    try {
      await this.#targets.undo(id);
    } finally {
      this.#busy.delete(id);
    }
  }

  async info(ctx: RequestContext, name: string): Promise<Activation> {
    const record = this.#settings.store.view((tx) => tx.get<ActivationRecord>(keys.mount(ctx.namespace, name)));
    if (!record?.complete) throw missing(name);
    return activationOf(name, record);
  }

  async list(ctx: RequestContext, filters: string[] = []): Promise<Activation[]> {
    const filter = parseFilters(filters);
    return this.#settings.store.view((tx) => {
      const found: Activation[] = [];
      for (const { key, value } of tx.list<ActivationRecord>(keys.mounts(ctx.namespace))) {
        const activation = activationOf(key[2]!, value);
        if (value.complete && filter.matches(activationLookup(activation))) found.push(activation);
      }
      return found;
    });
  }

  /** Undoes every activation that no record names: those the collector took, and those that could not be unmounted before. */
  async sweep(): Promise<void> {
    const { store, log } = this.#settings;
    const present = await this.#targets.ids();
    const known = new Set<number>();
    store.view((tx) => {
      for (const { record } of allActivations(tx)) known.add(record.id);
    });
    for (const id of present) {
      if (known.has(id) || this.#busy.has(id)) continue;
      await this.#undo(id).catch((error) => log.warn('mounts of a removed activation are left', { error, id }));
    }
  }

  /** Forgets activations that are half-made, of the last daemon's own calls, or whose mounts are gone; `sweep` undoes what is left of them. */
  async #reconcile(): Promise<void> {
    const { store, log } = this.#settings;
    const activations = store.view((tx) => [...allActivations(tx)]);
    if (activations.length === 0) return;
    const points = new Set((await readMountInfoAsync()).map(({ mountPoint }) => mountPoint));
    for (const { namespace, name, record } of activations) {
      if (record.complete && !record.transient && (await this.#isWhole(record, points))) continue;
      log.info('activation of an earlier daemon is dropped', { name, namespace });
      await store.update((tx) => removeActivation(tx, namespace, name, record));
    }
  }

  async #isWhole(record: ActivationRecord, points: ReadonlySet<string>): Promise<boolean> {
    for (const { mount, mountPoint } of record.active) {
      const handler = this.#settings.handlers.get(mount.type);
      const mounted = handler ? await handler.isMounted(mountPoint, points) : points.has(mountPoint);
      if (!mounted) return false;
    }
    return true;
  }
}

function missing(name: string): StatusError {
  return notFound(`mount "${name}": not found`);
}
