import {
  CgroupDriver,
  ListContainersResponseSchema,
  ListPodSandboxResponseSchema,
  type RuntimeService,
  StreamContainersResponseSchema,
  StreamPodSandboxesResponseSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { version } from '@gantry/daemon';
import { encodedMessage, type Implementation } from '@gantry/rpc';
import type { Cri } from './cri.ts';
import { usesSystemdCgroups } from './run/runtime-handlers.ts';
import { checkpointContainer } from './verbs/checkpoint-container.ts';
import { containerStatus } from './verbs/container-status.ts';
import { createContainer } from './verbs/create-container.ts';
import { execSync } from './verbs/exec-sync.ts';
import { listContainers } from './verbs/list-containers.ts';
import { listPodSandboxes } from './verbs/list-pod-sandbox.ts';
import { podSandboxStatus } from './verbs/pod-sandbox-status.ts';
import { removeContainer } from './verbs/remove-container.ts';
import { removePodSandbox } from './verbs/remove-pod-sandbox.ts';
import { reopenContainerLog } from './verbs/reopen-container-log.ts';
import { runPodSandbox } from './verbs/run-pod-sandbox.ts';
import { startContainer } from './verbs/start-container.ts';
import { containerStats, listContainerStats, listPodMetrics, listPodStats, podSandboxStats } from './verbs/stats.ts';
import { status } from './verbs/status.ts';
import { stopContainer } from './verbs/stop-container.ts';
import { stopPodSandbox } from './verbs/stop-pod-sandbox.ts';
import { attachUrl, execUrl, portForwardUrl } from './verbs/streaming-urls.ts';
import { updateContainerResources } from './verbs/update-container-resources.ts';
import { updatePodSandboxResources } from './verbs/update-pod-sandbox-resources.ts';

/** Things in one message of a streamed list. */
const batch = 100;

function* batches<T>(items: readonly T[]): Generator<T[]> {
  for (let at = 0; at < items.length; at += batch) yield items.slice(at, at + batch);
}

/** runtime.v1.RuntimeService. */
export function runtimeService(cri: Cri): Implementation<typeof RuntimeService> {
  const { metrics } = cri;
  const ofPod = (id: string): string => runtimeOf(cri, id);
  const ofContainer = (id: string): string => runtimeOf(cri, cri.containers.find(id)?.metadata.sandboxId ?? '');
  return {
    async version() {
      return {
        version: '0.1.0',
        runtimeName: 'containerd',
        runtimeVersion: version.version,
        runtimeApiVersion: 'v1',
      };
    },
    runPodSandbox: (request, { signal }) => runPodSandbox(cri, request, signal),
    stopPodSandbox: (request) =>
      metrics.timeOf('sandbox_runtime_stop', ofPod(request.podSandboxId), () => stopPodSandbox(cri, request)),
    removePodSandbox: (request) =>
      metrics.timeOf('sandbox_remove', ofPod(request.podSandboxId), () => removePodSandbox(cri, request)),
    podSandboxStatus: (request) => podSandboxStatus(cri, request),
    listPodSandbox: ({ filter }) =>
      metrics.time('sandbox_list', async () =>
        encodedMessage(ListPodSandboxResponseSchema, listPodSandboxes(cri, filter)),
      ),
    async *streamPodSandboxes({ filter }) {
      for (const some of batches(listPodSandboxes(cri, filter)))
        yield encodedMessage(StreamPodSandboxesResponseSchema, some);
    },
    createContainer: (request, { signal }) =>
      metrics.timeOf('container_create', ofPod(request.podSandboxId), () => createContainer(cri, request, signal)),
    startContainer: (request) =>
      metrics.timeOf('container_start', ofContainer(request.containerId), () => startContainer(cri, request)),
    stopContainer: (request, { signal }) =>
      metrics.timeOf('container_stop', ofContainer(request.containerId), () => stopContainer(cri, request, signal)),
    removeContainer: (request) =>
      metrics.timeOf('container_remove', ofContainer(request.containerId), () => removeContainer(cri, request)),
    listContainers: ({ filter }) =>
      metrics.time('container_list', async () =>
        encodedMessage(ListContainersResponseSchema, listContainers(cri, filter)),
      ),
    async *streamContainers({ filter }) {
      for (const some of batches(listContainers(cri, filter)))
        yield encodedMessage(StreamContainersResponseSchema, some);
    },
    containerStatus: (request) => containerStatus(cri, request),
    updateContainerResources: (request) => updateContainerResources(cri, request),
    updatePodSandboxResources: (request) => updatePodSandboxResources(cri, request),
    checkpointContainer: (request, { signal }) =>
      metrics.timeOf('container_checkpoint', ofContainer(request.containerId), () =>
        checkpointContainer(cri, request, signal),
      ),
    reopenContainerLog: (request) => reopenContainerLog(cri, request),
    execSync: (request, { signal }) => execSync(cri, request, signal),
    ...streamingMethods(cri),
    ...statsMethods(cri),
    async updateRuntimeConfig({ runtimeConfig }) {
      const cidr = runtimeConfig?.networkConfig?.podCidr ?? '';
      if (cidr !== '') await cri.network.updatePodCidr(cidr);
      return {};
    },
    status: (request) => status(cri, request),
    async *getContainerEvents(_request, { signal }) {
      yield* cri.events.subscribe(signal);
    },
    async runtimeConfig() {
      const systemd = usesSystemdCgroups(cri.handlers.get(''));
      return { linux: { cgroupDriver: systemd ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS } };
    },
  };
}

/** The runtime of a pod, by which times are told; '' for one that is not there. */
function runtimeOf(cri: Cri, sandboxId: string): string {
  const handler = cri.sandboxes.find(sandboxId)?.metadata.runtimeHandler;
  return handler !== undefined && cri.handlers.has(handler) ? cri.handlers.get(handler).runtime_type : '';
}

/** Those that answer with a URL at which a client finds its streams. */
function streamingMethods(cri: Cri): Pick<Implementation<typeof RuntimeService>, 'exec' | 'attach' | 'portForward'> {
  return {
    exec: async (request) => execUrl(cri, request),
    attach: async (request) => attachUrl(cri, request),
    portForward: async (request) => portForwardUrl(cri, request),
  };
}

/** Statistics and metrics. */
function statsMethods(cri: Cri): Partial<Implementation<typeof RuntimeService>> {
  return {
    containerStats: (request) => containerStats(cri, request),
    listContainerStats: async ({ filter }) => ({ stats: await listContainerStats(cri, filter) }),
    async *streamContainerStats({ filter }) {
      for (const stats of batches(await listContainerStats(cri, filter))) yield { containerStats: stats };
    },
    podSandboxStats: (request) => podSandboxStats(cri, request),
    listPodSandboxStats: async ({ filter }) => ({ stats: await listPodStats(cri, filter) }),
    async *streamPodSandboxStats({ filter }) {
      for (const stats of batches(await listPodStats(cri, filter))) yield { podSandboxStats: stats };
    },
    listMetricDescriptors: async () => ({ descriptors: cri.stats.metricDescriptors() }),
    listPodSandboxMetrics: async () => ({ podMetrics: await listPodMetrics(cri) }),
    async *streamPodSandboxMetrics() {
      for (const metrics of batches(await listPodMetrics(cri))) yield { podSandboxMetrics: metrics };
    },
  };
}
