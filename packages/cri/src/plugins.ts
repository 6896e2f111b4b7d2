import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { ImageService, RuntimeService } from '@gantry/api/gen/cri/v1/api_pb.js';
import { CniNetwork } from '@gantry/cni/cni-network.ts';
import { definePlugin, PluginTypes, pluginType, type ServiceSet } from '@gantry/daemon';
import { KeyedLock } from '@gantry/daemon/core/content/keyed-lock.ts';
import type { Differ } from '@gantry/daemon/core/diff/differ.ts';
import type { MetricsRegistry } from '@gantry/daemon/core/metrics/metrics-registry.ts';
import { parseDuration } from '@gantry/daemon/core/plugin/duration.ts';
import type { SandboxStore } from '@gantry/daemon/core/sandboxes/sandbox-store.ts';
import type { TaskRuntime } from '@gantry/daemon/core/tasks/task-runtime.ts';
import type { TaskService } from '@gantry/daemon/core/tasks/task-service.ts';
import { warnOf } from '@gantry/daemon/core/warnings/deprecations.ts';
import { CdiDirectories } from '@gantry/oci/cdi/cdi-directories.ts';
import { ContainerRoots } from './checkpoint/container-roots.ts';
import { checkRuntimePlatforms, type ImagesConfig, imagesConfig } from './config/images-config.ts';
import { runtimeConfig } from './config/runtime-config.ts';
import { serverConfig } from './config/server-config.ts';
import type { Cri } from './cri.ts';
import { imageService } from './image-service.ts';
import { CriImages } from './images/cri-images.ts';
import { followImages } from './images/follow-images.ts';
import { ImageUnpacker } from './images/image-unpacker.ts';
import { ImageUserFiles } from './images/user-files.ts';
import { WorkerLogs } from './logs/worker-logs.ts';
import { CriMetrics } from './metrics/cri-metrics.ts';
import { timedNetwork } from './metrics/timed-network.ts';
import { NriHooks } from './nri/nri-hooks.ts';
import { nriType } from './nri/nri-plugin.ts';
import { noHooks } from './nri/pod-hooks.ts';
import { VolumeCopies } from './run/container-volumes.ts';
import { watchMemory } from './run/exit-watch.ts';
import { takeDownUnfinished } from './run/half-made.ts';
import { FeatureLookup } from './run/handler-features.ts';
import { ImageVolumes } from './run/image-volumes.ts';
import { lookAtMachine, type Machine } from './run/machine.ts';
import { recover } from './run/recover.ts';
import { RuntimeHandlers } from './run/runtime-handlers.ts';
import { streamingRuntime } from './run/streaming-runtime.ts';
import { runtimeService } from './runtime-service.ts';
import { PodSandboxController } from './sandbox/pod-sandbox-controller.ts';
import { Selinux } from './selinux/selinux.ts';
import { CgroupStats } from './stats/cgroup-stats.ts';
import { SnapshotDisk } from './stats/disk-usage.ts';
import { CriEvents } from './store/cri-events.ts';
import { IdMap } from './store/id-map.ts';
import { NameIndex } from './store/name-index.ts';
import { HttpStreamingServer } from './streaming/http-streaming-server.ts';

/** What the plugins `cri.v1` give each other. */
export interface CriImagesInstance {
  images: CriImages;
  unpacker: ImageUnpacker;
  userFiles: ImageUserFiles;
  config: ImagesConfig;
}

export interface CriRuntimeInstance {
  config: Cri['config']['runtime'];
  handlers: RuntimeHandlers;
  machine: Machine;
  selinux: Selinux;
  root: string;
  state: string;
}

export const criType = pluginType<unknown>('io.containerd.cri.v1');

/** `io.containerd.cri.v1.images`. */
export const criImagesPlugin = definePlugin({
  type: criType,
  id: 'images',
  requires: [
    PluginTypes.Metadata,
    PluginTypes.Transfer,
    PluginTypes.MountManager,
    PluginTypes.Event,
    PluginTypes.Differ,
  ],
  config: imagesConfig,
  init(context): CriImagesInstance {
    checkRuntimePlatforms(context.config);
    const { content, images: records, snapshotters, gc, store } = context.get(PluginTypes.Metadata);
    const transfer = context.get(PluginTypes.Transfer, 'local');
    const images = new CriImages({
      config: context.config,
      images: records,
      content,
      transfer,
      collect: () => gc.collect(),
      flush: () => store.flush(),
      log: context.log,
    });
    context.onClose(followImages(images, context.get(PluginTypes.Event), context.log));
    const mounts = [...context.all(PluginTypes.MountManager).values()][0];
    const differs = context.all(PluginTypes.Differ) as ReadonlyMap<string, Differ>;
    return {
      images,
      unpacker: new ImageUnpacker(content, snapshotters, differs, !context.config.disable_snapshot_annotations),
      userFiles: new ImageUserFiles(snapshotters, mounts, context.daemon.temp),
      config: context.config,
    };
  },
});

/** `io.containerd.cri.v1.runtime`. */
export const criRuntimePlugin = definePlugin({
  type: criType,
  id: 'runtime',
  requires: [PluginTypes.Warning],
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: runtimeConfig,
  async init(context): Promise<CriRuntimeInstance> {
    const { config, daemon } = context;
    const machine = lookAtMachine(config);
    if (!machine.unified) await warnOf(context.get(PluginTypes.Warning, 'deprecations'), 'cgroup-v1');
    const selinux = new Selinux({ enabled: config.enable_selinux, categoryRange: config.selinux_category_range });
    if (config.enable_selinux && !selinux.supported) context.log.warn('Selinux is not supported');
    const state = path.join(daemon.state, 'io.containerd.grpc.v1.cri');
    // What pods share with each other is nobody else's.
    await mkdir(state, { recursive: true, mode: 0o700 });
    return {
      config,
      handlers: new RuntimeHandlers(config.containerd),
      machine,
      selinux,
      root: path.join(daemon.root, 'io.containerd.grpc.v1.cri'),
      state,
    };
  },
});

/** `io.containerd.podsandbox.controller.v1.podsandbox`. */
export const podSandboxControllerPlugin = definePlugin({
  type: PluginTypes.PodSandboxController,
  id: 'podsandbox',
  requires: [criType, PluginTypes.Metadata, PluginTypes.Runtime],
  init(context): PodSandboxController {
    const { images, unpacker, userFiles, config } = context.get(criType, 'images') as CriImagesInstance;
    const runtime = context.get(criType, 'runtime') as CriRuntimeInstance;
    const { containers, snapshotters } = context.get(PluginTypes.Metadata);
    runtime.handlers.setPlatforms(config.runtime_platforms ?? {});
    return new PodSandboxController({
      images,
      unpacker,
      userFiles,
      imagesConfig: config,
      settings: runtime.config,
      handlers: runtime.handlers,
      selinux: runtime.selinux,
      containers,
      snapshotters,
      tasks: context.get(PluginTypes.Runtime, 'task') as TaskRuntime,
      root: runtime.root,
      state: runtime.state,
      log: context.log,
    });
  },
});

/** How long the kubelet may take to listen for events again after a start of the daemon. */
const firstSubscriberMs = 60_000;

/** `io.containerd.grpc.v1.cri`: runtime.v1.RuntimeService and ImageService. */
export const criGrpcPlugin = definePlugin({
  type: PluginTypes.Grpc,
  id: 'cri',
  requires: [
    criType,
    PluginTypes.PodSandboxController,
    PluginTypes.SandboxController,
    PluginTypes.SandboxStore,
    PluginTypes.Metadata,
    PluginTypes.Lease,
    PluginTypes.Runtime,
    PluginTypes.Event,
    PluginTypes.Warning,
    PluginTypes.MountManager,
    PluginTypes.Differ,
    PluginTypes.Service,
    PluginTypes.Metrics,
    nriType,
  ],
  config: serverConfig,
  async init(context): Promise<ServiceSet> {
    const { images, unpacker, userFiles, config } = context.get(criType, 'images') as CriImagesInstance;
    const runtime = context.get(criType, 'runtime') as CriRuntimeInstance;
    const { content, containers, snapshotters } = context.get(PluginTypes.Metadata);
    const pods = context.get(PluginTypes.PodSandboxController, 'podsandbox') as PodSandboxController;
    const mounts = [...context.all(PluginTypes.MountManager).values()][0];
    const { temp, root } = context.daemon;
    const bus = context.get(PluginTypes.Event);
    const tasks = context.get(PluginTypes.Runtime, 'task') as TaskRuntime;
    const closing = new AbortController();
    const { settings } = context.all(nriType).get('nri') ?? {};
    const nri = settings && new NriHooks(settings, () => cri, context.log);
    const events = new CriEvents();
    const logs = new WorkerLogs(context.log);
    const prometheus = context.all(PluginTypes.Metrics).get('grpc-prometheus') as
      | { registry: MetricsRegistry }
      | undefined;
    const metrics = new CriMetrics(
      () => events.dropped,
      () => logs.counts(),
      prometheus?.registry,
    );
    const cri: Cri = {
      config: { images: config, runtime: runtime.config },
      root: runtime.root,
      state: runtime.state,
      log: context.log,
      closing: closing.signal,
      records: {
        containers,
        sandboxes: context.get(PluginTypes.SandboxStore) as SandboxStore,
        leases: context.get(PluginTypes.Lease),
        content,
      },
      snapshotters,
      tasks,
      bus,
      warnings: context.get(PluginTypes.Warning, 'deprecations'),
      controllers: new Map([...context.all(PluginTypes.SandboxController), ['podsandbox', pods]]),
      handlers: runtime.handlers,
      features: new FeatureLookup(tasks, context.log),
      images,
      unpacker,
      sandboxes: new IdMap('sandbox'),
      sandboxNames: new NameIndex(),
      containers: new IdMap('container'),
      containerNames: new NameIndex(),
      locks: new KeyedLock(),
      events,
      metrics,
      network: timedNetwork(
        new CniNetwork({
          settings: runtime.config.cni,
          runtimes: runtime.config.containerd.runtimes,
          ledger: path.join(runtime.root, 'networks'),
          log: context.log,
        }),
        metrics,
      ),
      logs,
      streaming: new HttpStreamingServer(context.config, () => streamingRuntime(cri), context.log),
      stats: new CgroupStats({
        tasks,
        containers,
        disk: new SnapshotDisk(snapshotters, config.snapshotter, config.stats_collect_period * 1000),
        collectMs: parseDuration(runtime.config.stats_collect_period),
        retentionMs: parseDuration(runtime.config.stats_retention_period),
        running: () => ({
          containers: cri.containers.list().filter(({ status }) => status.pid > 0),
          sandboxes: cri.sandboxes.list().filter(({ status }) => status.state === 'ready'),
        }),
        // One with a `root_path`, or a proxied one, says where it is.
        // One with a `root_path`, or a proxied one, says where it is.
        snapshotterRoot: (name) =>
          context.statuses().find(({ type, id }) => type === PluginTypes.Snapshotter && id === name)?.meta.exports[
            'root'
          ] || `${root}/${PluginTypes.Snapshotter}.${name}`,
        snapshotters: () => runtime.handlers.names().flatMap((name) => runtime.handlers.get(name).snapshotter || []),
        log: context.log,
      }),
      hooks: nri ?? noHooks,
      cdi: new CdiDirectories(runtime.config.cdi_spec_dirs, (file, problem) =>
        context.log.warn('CDI: a specification is not used', { file, problem }),
      ),
      userFiles,
      volumes: new VolumeCopies(temp, mounts),
      imageVolumes: new ImageVolumes({
        images,
        unpacker,
        content,
        snapshotters,
        state: runtime.state,
      }),
      roots: new ContainerRoots({
        content,
        snapshotters,
        leases: context.get(PluginTypes.Lease),
        differ: context.all(PluginTypes.Differ).get('walking') as Differ | undefined,
        mounts,
        temp,
      }),
      machine: runtime.machine,
      selinux: runtime.selinux,
      classes: (context.get(PluginTypes.Service, 'tasks-service') as TaskService).classes,
    };
    context.onClose(() => cri.roots.close());
    context.onClose(() => cri.volumes.close());
    context.onClose(() => cri.stats.close());
    context.onClose(() => cri.logs.close());
    context.onClose(() => cri.network.close());
    context.onClose(() => cri.cdi.close());
    context.onClose(() => cri.streaming.close());
    context.onClose(watchMemory(cri));
    context.onClose(() => {
      closing.abort();
      pods.close();
    });
    events.keepForFirst(firstSubscriberMs);
    const unfinished = await recover(cri, (metadata) => pods.recover({ namespace: 'k8s.io' }, metadata));
    const known = new Set(cri.sandboxes.list().map(({ id }) => id));
    void cri.network.sweep(known).catch((error) => context.log.warn('networks of pods that are gone', { error }));
    await cri.streaming.start();
    if (nri) {
      context.onClose(() => nri.stop());
      await nri.start();
    }
    void takeDownUnfinished(cri, unfinished);
    return {
      unixOnly: context.config.disable_tcp_service,
      register(grpc): void {
        grpc.add(RuntimeService, runtimeService(cri));
        grpc.add(ImageService, imageService(cri));
      },
    };
  },
});
