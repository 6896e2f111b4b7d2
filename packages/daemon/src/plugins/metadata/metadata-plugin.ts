import path from 'node:path';
import { removeEmptyCgroup } from '@gantry/cgroups';
import { MetadataContainers } from '../../core/containers/metadata-containers.ts';
import { KeyedLock } from '../../core/content/keyed-lock.ts';
import { MetadataContentStore } from '../../core/content/metadata-content-store.ts';
import { Collector } from '../../core/gc/collector.ts';
import { GcScheduler } from '../../core/gc/scheduler.ts';
import { MetadataImages } from '../../core/images/metadata-images.ts';
import { MetadataLeases } from '../../core/leases/metadata-leases.ts';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { dropLostSnapshots, endOwnLeases } from '../../core/metadata/recover.ts';
import { MetadataNamespaces } from '../../core/namespaces/metadata-namespaces.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { type Metadata, PluginTypes } from '../../core/plugin/plugin-types.ts';
import { MetadataSnapshotter } from '../../core/snapshots/metadata-snapshotter.ts';
import { LoadedSnapshotters } from '../../core/snapshots/snapshotter-registry.ts';

const policies = ['shared', 'isolated'];

/**
 * `io.containerd.metadata.v1.bolt`: every namespaced store over one database. The id is containerd's, for those who
 * configure it; the database is lmdb, in `meta.lmdb`.
 */
export const metadataPlugin = definePlugin({
  type: PluginTypes.Metadata,
  id: 'bolt',
  requires: [PluginTypes.Content, PluginTypes.Event, PluginTypes.Snapshotter],
  config: schema({
    content_sharing_policy: field.string('shared', (value) =>
      policies.includes(value) ? undefined : 'shared or isolated',
    ),
    no_sync: field.boolean(false),
  }),
  async init(context): Promise<Metadata> {
    const { config, log, meta } = context;
    const policy = config.content_sharing_policy === 'isolated' ? 'isolated' : 'shared';
    meta.exports['path'] = path.join(context.root, 'meta.lmdb');
    const store = await LmdbStore.open({
      path: meta.exports['path'],
      noSync: config.no_sync,
      reserve: 4 << 20,
    });
    await endOwnLeases(store);
    const events = context.get(PluginTypes.Event);
    const backend = context.get(PluginTypes.Content);
    const gc = new GcScheduler(log);
    const namespaces = new MetadataNamespaces(store, events, async (name) => {
      // Its containers' groups were under it; an empty one is nobody's.
      await removeEmptyCgroup(name).catch((error) =>
        log.warn('cgroup of a namespace is left', { error, namespace: name }),
      );
    });
    const locks = new KeyedLock();
    const mutated = (deletion: boolean): void => gc.mutated(deletion);
    const snapshotters = new Map<string, MetadataSnapshotter>();
    for (const [id, snapshotter] of context.all(PluginTypes.Snapshotter)) {
      const namespaced = new MetadataSnapshotter(id, snapshotter, { store, namespaces, events, log, mutated });
      snapshotters.set(id, namespaced);
      await dropLostSnapshots(store, namespaced, log);
    }
    const sweepers: (() => Promise<void>)[] = [];
    const collector = new Collector({
      store,
      backend,
      locks,
      snapshotters: () => snapshotters.values(),
      sweepers: () => sweepers,
      events,
      log,
    });
    gc.use(() => collector.run());
    context.onClose(async () => {
      collector.stop();
      await gc.close();
      for (const snapshotter of snapshotters.values()) {
        await snapshotter
          .close()
          .catch((error) => log.warn('snapshots cannot be brought to disk', { error, snapshotter: snapshotter.name }));
      }
      await store.close();
    });
    return {
      store,
      content: new MetadataContentStore({ store, backend, namespaces, events, policy, locks, mutated }),
      snapshotters: new LoadedSnapshotters(store, snapshotters),
      namespaces,
      images: new MetadataImages(store, events, namespaces, gc),
      containers: new MetadataContainers(store, events, namespaces, gc),
      leases: new MetadataLeases(store, namespaces, gc),
      gc,
      onSweep: (sweep) => void sweepers.push(sweep),
    };
  },
});
