import type { MountHandler } from '@gantry/mount';
import type { SpanProcessor } from '@gantry/tracing/open-telemetry.ts';
import type { ContainerStore } from '../containers/container-store.ts';
import type { ContentBackend, ContentStore } from '../content/content-store.ts';
import type { CredentialProvider } from '../credentials/credential-provider.ts';
import type { Differ } from '../diff/differ.ts';
import type { EventExchange } from '../events/exchange.ts';
import type { GarbageCollector } from '../gc/garbage-collector.ts';
import type { ImageStore } from '../images/image-store.ts';
import type { LeaseManager } from '../leases/lease-manager.ts';
import type { MetadataStore } from '../metadata/metadata-store.ts';
import type { MountManager } from '../mounts/mount-manager.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { SandboxController } from '../sandboxes/sandbox-controller.ts';
import type { SnapshotterRegistry } from '../snapshots/snapshot-service.ts';
import type { Snapshotter } from '../snapshots/snapshotter.ts';
import type { StreamManager } from '../streaming/stream-manager.ts';
import type { Transferrer } from '../transfer/transferrer.ts';
import type { ImageVerifier } from '../verification/image-verifier.ts';
import type { WarningService } from '../warnings/warning-service.ts';
import { pluginType } from './plugin.ts';
import type { ServiceSet } from './service-set.ts';

/** What the metadata plugin (`io.containerd.metadata.v1.bolt`) gives: every namespaced store over one durable database. */
export interface Metadata {
  readonly store: MetadataStore;
  readonly content: ContentStore;
  readonly snapshotters: SnapshotterRegistry;
  readonly namespaces: NamespaceStore;
  readonly images: ImageStore;
  readonly containers: ContainerStore;
  readonly leases: LeaseManager;
  readonly gc: GarbageCollector;
  /** Has `sweep` called by every collection once records are gone: it undoes what only they named. */
  onSweep(sweep: () => Promise<void>): void;
}

/** containerd's plugin types, and what Gantry's instances of each are. */
export const PluginTypes = {
  Content: pluginType<ContentBackend>('io.containerd.content.v1'),
  Snapshotter: pluginType<Snapshotter>('io.containerd.snapshotter.v1'),
  Metadata: pluginType<Metadata>('io.containerd.metadata.v1'),
  Event: pluginType<EventExchange>('io.containerd.event.v1'),
  Differ: pluginType<Differ>('io.containerd.differ.v1'),
  Gc: pluginType<GarbageCollector>('io.containerd.gc.v1'),
  Lease: pluginType<LeaseManager>('io.containerd.lease.v1'),
  Internal: pluginType<unknown>('io.containerd.internal.v1'),
  /** Helper objects that several gRPC faces share, as containerd's `-service` plugins. */
  Service: pluginType<unknown>('io.containerd.service.v1'),
  /** gRPC faces: each gives the services it serves. */
  Grpc: pluginType<ServiceSet>('io.containerd.grpc.v1'),
  Ttrpc: pluginType<ServiceSet>('io.containerd.ttrpc.v1'),
  Server: pluginType<unknown>('io.containerd.server.v1'),
  Runtime: pluginType<unknown>('io.containerd.runtime.v2'),
  Shim: pluginType<unknown>('io.containerd.shim.v1'),
  TaskMonitor: pluginType<unknown>('io.containerd.monitor.task.v1'),
  ContainerMonitor: pluginType<unknown>('io.containerd.monitor.container.v1'),
  Transfer: pluginType<Transferrer>('io.containerd.transfer.v1'),
  Streaming: pluginType<StreamManager>('io.containerd.streaming.v1'),
  /** Gantry's own: containerd has planned credential plugins and not built them. */
  Credentials: pluginType<CredentialProvider>('io.gantry.credentials.v1'),
  ImageVerifier: pluginType<ImageVerifier>('io.containerd.image-verifier.v1'),
  MountManager: pluginType<MountManager>('io.containerd.mount-manager.v1'),
  MountHandler: pluginType<MountHandler>('io.containerd.mount-handler.v1'),
  SandboxStore: pluginType<unknown>('io.containerd.sandbox.store.v1'),
  PodSandboxController: pluginType<SandboxController>('io.containerd.podsandbox.controller.v1'),
  SandboxController: pluginType<SandboxController>('io.containerd.sandbox.controller.v1'),
  Warning: pluginType<WarningService>('io.containerd.warning.v1'),
  Metrics: pluginType<unknown>('io.containerd.metrics.v1'),
  /** What takes spans when they have ended: OpenTelemetry's own interface of that name. */
  TracingProcessor: pluginType<SpanProcessor>('io.containerd.tracing.processor.v1'),
} as const;
