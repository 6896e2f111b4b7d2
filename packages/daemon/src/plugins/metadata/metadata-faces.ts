import { Exchange } from '../../core/events/event-exchange.ts';
import type { EventExchange } from '../../core/events/exchange.ts';
import type { GarbageCollector } from '../../core/gc/garbage-collector.ts';
import { GcScheduler } from '../../core/gc/scheduler.ts';
import type { LeaseManager } from '../../core/leases/lease-manager.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { MetadataSandboxes } from '../../core/sandboxes/metadata-sandboxes.ts';
import type { SandboxStore } from '../../core/sandboxes/sandbox-store.ts';

/** The smaller plugins around the metadata: what other plugins ask for by containerd's types. */

/** `io.containerd.event.v1.exchange`: the daemon's event bus. */
export const exchangePlugin = definePlugin({
  type: PluginTypes.Event,
  id: 'exchange',
  init: (): EventExchange => new Exchange(),
});

/** `io.containerd.gc.v1.scheduler`: lets the collector run by itself, with containerd's settings. */
export const gcSchedulerPlugin = definePlugin({
  type: PluginTypes.Gc,
  id: 'scheduler',
  requires: [PluginTypes.Metadata],
  config: schema({
    pause_threshold: field.float(0.02),
    deletion_threshold: field.integer(0),
    mutation_threshold: field.integer(100),
    schedule_delay: field.duration('0s'),
    startup_delay: field.duration('100ms'),
  }),
  init(context): GarbageCollector {
    const { config } = context;
    const { gc } = context.get(PluginTypes.Metadata);
    if (gc instanceof GcScheduler) {
      gc.start({
        pauseThreshold: config.pause_threshold,
        deletionThreshold: config.deletion_threshold,
        mutationThreshold: config.mutation_threshold,
        scheduleDelayMs: config.schedule_delay,
        startupDelayMs: config.startup_delay,
      });
    }
    return gc;
  },
});

/** `io.containerd.lease.v1.manager`. */
export const leaseManagerPlugin = definePlugin({
  type: PluginTypes.Lease,
  id: 'manager',
  requires: [PluginTypes.Metadata],
  init: (context): LeaseManager => context.get(PluginTypes.Metadata).leases,
});

/** `io.containerd.sandbox.store.v1.local`. */
export const sandboxStorePlugin = definePlugin({
  type: PluginTypes.SandboxStore,
  id: 'local',
  requires: [PluginTypes.Metadata],
  init(context): SandboxStore {
    const { store, namespaces, gc } = context.get(PluginTypes.Metadata);
    return new MetadataSandboxes(store, namespaces, gc);
  },
});

/** `io.containerd.service.v1.content-service` and `snapshots-service`: containerd lists them, so we do. */
export const contentServicePlugin = definePlugin({
  type: PluginTypes.Service,
  id: 'content-service',
  requires: [PluginTypes.Event, PluginTypes.Metadata],
  init: (context) => context.get(PluginTypes.Metadata).content,
});

export const snapshotsServicePlugin = definePlugin({
  type: PluginTypes.Service,
  id: 'snapshots-service',
  requires: [PluginTypes.Event, PluginTypes.Metadata],
  init: (context) => context.get(PluginTypes.Metadata).snapshotters,
});
