import type { PodNetwork } from '@gantry/cni/pod-network.ts';
import type { ContainerStore } from '@gantry/daemon/core/containers/container-store.ts';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import type { KeyedLock } from '@gantry/daemon/core/content/keyed-lock.ts';
import type { EventExchange } from '@gantry/daemon/core/events/exchange.ts';
import type { LeaseManager } from '@gantry/daemon/core/leases/lease-manager.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { ResourceClasses } from '@gantry/daemon/core/resource-classes/resource-classes.ts';
import type { SandboxController } from '@gantry/daemon/core/sandboxes/sandbox-controller.ts';
import type { SandboxStore } from '@gantry/daemon/core/sandboxes/sandbox-store.ts';
import type { SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import type { TaskRuntime } from '@gantry/daemon/core/tasks/task-runtime.ts';
import type { WarningService } from '@gantry/daemon/core/warnings/warning-service.ts';
import type { CdiRegistry } from '@gantry/oci/cdi/cdi-registry.ts';
import type { ContainerRoots } from './checkpoint/container-roots.ts';
import type { ImagesConfig } from './config/images-config.ts';
import type { RuntimeConfig } from './config/runtime-config.ts';
import type { CriImages } from './images/cri-images.ts';
import type { ImageUnpacker } from './images/image-unpacker.ts';
import type { ImageUserFiles } from './images/user-files.ts';
import { kubernetesNamespace } from './labels.ts';
import type { ContainerLogs } from './logs/container-logs.ts';
import type { CriMetrics } from './metrics/cri-metrics.ts';
import type { PodHooks } from './nri/pod-hooks.ts';
import type { VolumeCopies } from './run/container-volumes.ts';
import type { FeatureLookup } from './run/handler-features.ts';
import type { ImageVolumes } from './run/image-volumes.ts';
import type { Machine } from './run/machine.ts';
import type { RuntimeHandlers } from './run/runtime-handlers.ts';
import type { Selinux } from './selinux/selinux.ts';
import type { StatsCollector } from './stats/stats-collector.ts';
import type { CriContainer } from './store/cri-container.ts';
import type { CriEvents } from './store/cri-events.ts';
import type { IdMap } from './store/id-map.ts';
import type { NameIndex } from './store/name-index.ts';
import type { PodSandbox } from './store/pod-sandbox.ts';
import type { StreamingServer } from './streaming/streaming-server.ts';

/** Everything that verbs work on. Each verb is one function of this and a request. */
export interface Cri {
  readonly config: { readonly images: ImagesConfig; readonly runtime: RuntimeConfig };
  /** `<root>/io.containerd.grpc.v1.cri`: what outlives the machine's start. */
  readonly root: string;
  /** `<state>/io.containerd.grpc.v1.cri`. */
  readonly state: string;
  readonly log: Logger;
  /** Aborted when the daemon ends. */
  readonly closing: AbortSignal;
  readonly records: {
    readonly containers: ContainerStore;
    readonly sandboxes: SandboxStore;
    readonly leases: LeaseManager;
    readonly content: ContentStore;
  };
  readonly snapshotters: SnapshotterRegistry;
  readonly tasks: TaskRuntime;
  readonly bus: EventExchange;
  readonly warnings: WarningService;
  readonly controllers: ReadonlyMap<string, SandboxController>;
  readonly handlers: RuntimeHandlers;
  readonly features: FeatureLookup;
  readonly images: CriImages;
  readonly unpacker: ImageUnpacker;
  readonly sandboxes: IdMap<PodSandbox>;
  readonly sandboxNames: NameIndex;
  readonly containers: IdMap<CriContainer>;
  readonly containerNames: NameIndex;
  /** Held by id while something is changed that may not be changed twice at once. */
  readonly locks: KeyedLock;
  readonly events: CriEvents;
  readonly network: PodNetwork;
  readonly logs: ContainerLogs;
  readonly streaming: StreamingServer;
  readonly stats: StatsCollector;
  readonly hooks: PodHooks;
  readonly cdi: CdiRegistry;
  readonly userFiles: ImageUserFiles;
  readonly volumes: VolumeCopies;
  readonly imageVolumes: ImageVolumes;
  readonly roots: ContainerRoots;
  readonly machine: Machine;
  readonly selinux: Selinux;
  readonly metrics: CriMetrics;
  readonly classes: ResourceClasses;
}

/** The context of a call: CRI has one namespace. */
export function criContext(signal?: AbortSignal, lease?: string): RequestContext {
  return { namespace: kubernetesNamespace, lease, signal };
}

/** Directories of a sandbox or container. */
export const dirs = {
  sandboxRoot: (cri: Pick<Cri, 'root'>, id: string) => `${cri.root}/sandboxes/${id}`,
  sandboxState: (cri: Pick<Cri, 'state'>, id: string) => `${cri.state}/sandboxes/${id}`,
  containerRoot: (cri: Pick<Cri, 'root'>, id: string) => `${cri.root}/containers/${id}`,
  containerState: (cri: Pick<Cri, 'state'>, id: string) => `${cri.state}/containers/${id}`,
};
