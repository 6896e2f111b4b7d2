import { invalidArgument } from '@gantry/api';
import type { MetadataStore } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import { defaultLabels, type NamespaceRecord } from '../namespaces/metadata-namespaces.ts';
import type { RequestContext } from '../request-context.ts';
import type { MetadataSnapshotter } from './metadata-snapshotter.ts';
import type { SnapshotterRegistry } from './snapshot-service.ts';

const fallback = 'overlayfs';

/** The snapshotters that started, by name. */
export class LoadedSnapshotters implements SnapshotterRegistry {
  readonly #store: MetadataStore;
  readonly #snapshotters: ReadonlyMap<string, MetadataSnapshotter>;

  constructor(store: MetadataStore, snapshotters: ReadonlyMap<string, MetadataSnapshotter>) {
    this.#store = store;
    this.#snapshotters = snapshotters;
  }

  get(ctx: RequestContext, name: string): MetadataSnapshotter {
    const wanted = name || this.#defaultOf(ctx.namespace);
    const snapshotter = this.#snapshotters.get(wanted);
    if (!snapshotter) throw invalidArgument(`snapshotter not loaded: ${wanted}: invalid argument`);
    return snapshotter;
  }

  #defaultOf(namespace: string): string {
    const record = this.#store.view((tx) => tx.get<NamespaceRecord>(keys.namespace(namespace)));
    return record?.labels[defaultLabels.snapshotter] || fallback;
  }

  names(): string[] {
    return [...this.#snapshotters.keys()];
  }

  all(): Iterable<MetadataSnapshotter> {
    return this.#snapshotters.values();
  }
}
