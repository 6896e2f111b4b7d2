// Everything this executable is made of, in the order in which containerd lists it.
import { criGrpcPlugin, criImagesPlugin, criRuntimePlugin, nriPlugin, podSandboxControllerPlugin } from '@gantry/cri';
import {
  callMetricsPlugin,
  debugServerPlugin,
  deprecationsPlugin,
  grpcServerPlugin,
  grpcTcpServerPlugin,
  healthcheckPlugin,
  introspectionPlugin,
  introspectionServicePlugin,
  metricsServerPlugin,
  optPlugin,
  otelGrpcPlugin,
  otelTtrpcPlugin,
  otlpPlugin,
  type Plugin,
  tracingPlugin,
  ttrpcServerPlugin,
  versionPlugin,
} from '@gantry/daemon';
import { localContentPlugin } from '@gantry/daemon/plugins/content-local/content-plugin.ts';
import { credentialsPlugin } from '@gantry/daemon/plugins/credentials/plugin.ts';
import { erofsDifferPlugin } from '@gantry/daemon/plugins/diff-erofs/plugin.ts';
import { walkingDifferPlugin } from '@gantry/daemon/plugins/diff-walking/plugin.ts';
import { livePlugin } from '@gantry/daemon/plugins/live/live-plugin.ts';
import {
  contentServicePlugin,
  exchangePlugin,
  gcSchedulerPlugin,
  leaseManagerPlugin,
  sandboxStorePlugin,
  snapshotsServicePlugin,
} from '@gantry/daemon/plugins/metadata/metadata-faces.ts';
import { metadataPlugin } from '@gantry/daemon/plugins/metadata/metadata-plugin.ts';
import {
  erofsMountHandler,
  loopMountHandler,
  mountManagerPlugin,
} from '@gantry/daemon/plugins/mount-manager/plugin.ts';
import { restartMonitorPlugin } from '@gantry/daemon/plugins/restart-monitor/restart-plugin.ts';
import { shimManager, taskRuntime } from '@gantry/daemon/plugins/runtime-v2/plugin.ts';
import { shimSandboxControllerPlugin } from '@gantry/daemon/plugins/sandbox-shim/plugin.ts';
import { devmapperPlugin, zfsPlugin } from '@gantry/daemon/plugins/skipped-snapshotters.ts';
import { blockfilePlugin } from '@gantry/daemon/plugins/snapshot-blockfile/blockfile-plugin.ts';
import { btrfsPlugin } from '@gantry/daemon/plugins/snapshot-btrfs/btrfs-plugin.ts';
import { erofsPlugin } from '@gantry/daemon/plugins/snapshot-erofs/erofs-plugin.ts';
import { nativePlugin } from '@gantry/daemon/plugins/snapshot-native/native-plugin.ts';
import { overlayfsPlugin } from '@gantry/daemon/plugins/snapshot-overlayfs/overlay-plugin.ts';
import { streamingManager } from '@gantry/daemon/plugins/streaming/streaming-plugin.ts';
import { taskMonitorPlugin } from '@gantry/daemon/plugins/task-monitor/task-monitor-plugin.ts';
import { localTransfer } from '@gantry/daemon/plugins/transfer-local/transfer-plugin.ts';
import { shimTransferPlugin } from '@gantry/daemon/plugins/transfer-shim/plugin.ts';
import { bindirVerifierPlugin } from '@gantry/daemon/plugins/verify-bindir/plugin.ts';
import { moduleVerifierPlugin } from '@gantry/daemon/plugins/verify-module/plugin.ts';
import { policyVerifierPlugin } from '@gantry/daemon/plugins/verify-policy/plugin.ts';
import { containersGrpc, containersServicePlugin } from '@gantry/daemon/services/containers.ts';
import { contentGrpc } from '@gantry/daemon/services/content.ts';
import { diffGrpc, diffServicePlugin } from '@gantry/daemon/services/diff.ts';
import { eventsGrpc } from '@gantry/daemon/services/events.ts';
import { imagesGrpc, imagesServicePlugin } from '@gantry/daemon/services/images.ts';
import { leasesGrpc } from '@gantry/daemon/services/leases.ts';
import { mountsGrpc } from '@gantry/daemon/services/mounts.ts';
import { namespacesGrpc, namespacesServicePlugin } from '@gantry/daemon/services/namespaces.ts';
import { sandboxControllersGrpc } from '@gantry/daemon/services/sandbox-controllers.ts';
import { sandboxesGrpc } from '@gantry/daemon/services/sandbox-store.ts';
import { snapshotsGrpc } from '@gantry/daemon/services/snapshots.ts';
import { streamingService } from '@gantry/daemon/services/streaming.ts';
import { tasksGrpc, tasksService } from '@gantry/daemon/services/tasks.ts';
import { transferService } from '@gantry/daemon/services/transfer.ts';

/** The plugins of `gantryd`. An embedder may take them all, or leave some out. */
export const builtinPlugins: readonly Plugin[] = [
  localContentPlugin,
  bindirVerifierPlugin,
  moduleVerifierPlugin,
  policyVerifierPlugin,
  credentialsPlugin,
  optPlugin,
  deprecationsPlugin,
  exchangePlugin,
  blockfilePlugin,
  btrfsPlugin,
  devmapperPlugin,
  erofsPlugin,
  nativePlugin,
  overlayfsPlugin,
  zfsPlugin,
  metadataPlugin,
  gcSchedulerPlugin,
  otlpPlugin,
  tracingPlugin,
  otelTtrpcPlugin,
  containersServicePlugin,
  contentServicePlugin,
  erofsMountHandler,
  loopMountHandler,
  mountManagerPlugin,
  erofsDifferPlugin,
  walkingDifferPlugin,
  diffServicePlugin,
  imagesServicePlugin,
  introspectionServicePlugin,
  namespacesServicePlugin,
  snapshotsServicePlugin,
  shimManager,
  taskRuntime,
  tasksService,
  containersGrpc,
  contentGrpc,
  diffGrpc,
  eventsGrpc,
  imagesGrpc,
  introspectionPlugin,
  leaseManagerPlugin,
  leasesGrpc,
  mountsGrpc,
  namespacesGrpc,
  sandboxStorePlugin,
  shimSandboxControllerPlugin,
  localTransfer,
  shimTransferPlugin,
  nriPlugin,
  criImagesPlugin,
  criRuntimePlugin,
  podSandboxControllerPlugin,
  sandboxControllersGrpc,
  sandboxesGrpc,
  snapshotsGrpc,
  streamingManager,
  streamingService,
  tasksGrpc,
  transferService,
  versionPlugin,
  healthcheckPlugin,
  criGrpcPlugin,
  ttrpcServerPlugin,
  restartMonitorPlugin,
  callMetricsPlugin,
  otelGrpcPlugin,
  taskMonitorPlugin,
  metricsServerPlugin,
  grpcServerPlugin,
  grpcTcpServerPlugin,
  debugServerPlugin,
  livePlugin,
];
