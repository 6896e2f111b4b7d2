import type { MessageInitShape } from '@bufbuild/protobuf';
import { now } from '@gantry/api';
import {
  type LinuxContainerResources,
  LinuxContainerResourcesSchema,
  PodSandboxConfigSchema,
  PodSandboxState,
  type PodSandboxStatusRequest,
  type PodSandboxStatusResponseSchema,
  type PodSandboxStatusSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { netnsAlive } from '@gantry/cni/netns.ts';
import { type Cri, criContext } from '../cri.ts';
import { Extension } from '../labels.ts';
import { runtimeName, toldOptions } from '../run/runtime-handlers.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';
import { jsonWith, toJson } from '../wire-json.ts';
import { wireContainerStatus } from './container-status.ts';

export async function podSandboxStatus(
  cri: Cri,
  { podSandboxId, verbose }: PodSandboxStatusRequest,
): Promise<MessageInitShape<typeof PodSandboxStatusResponseSchema>> {
  const sandbox = cri.sandboxes.get(podSandboxId);
  // The newest first: a kubelet with EventedPLEG takes the first of a name for the one that counts.
  const members = cri.containers
    .list()
    .filter(({ metadata }) => metadata.sandboxId === sandbox.id)
    .sort((one, other) => Number(other.status.createdAt - one.status.createdAt));
  return {
    status: wireSandboxStatus(sandbox),
    timestamp: nanosOf(now()),
    // Only those who follow events take part in the status of containers this way.
    containersStatuses: await Promise.all(members.map((member) => wireContainerStatus(cri, member))),
    ...(verbose && { info: { info: await verboseInfo(cri, sandbox) } }),
  };
}

export function wireState({ status }: PodSandbox): PodSandboxState {
  return status.state === 'ready' ? PodSandboxState.SANDBOX_READY : PodSandboxState.SANDBOX_NOTREADY;
}

export function wireSandboxStatus(sandbox: PodSandbox): MessageInitShape<typeof PodSandboxStatusSchema> {
  const { id, metadata, status } = sandbox;
  const { config } = metadata;
  const options = config.linux?.securityContext?.namespaceOptions;
  const alive = status.state === 'ready';
  return {
    id,
    ...(config.metadata && { metadata: config.metadata }),
    state: wireState(sandbox),
    createdAt: status.createdAt,
    network: {
      ip: alive ? metadata.ip : '',
      additionalIps: alive ? metadata.additionalIps.map((ip) => ({ ip })) : [],
    },
    linux: {
      namespaces: { ...(options && { options }) },
    },
    labels: config.labels,
    annotations: config.annotations,
    runtimeHandler: metadata.runtimeHandler,
  };
}

async function verboseInfo(cri: Cri, sandbox: PodSandbox): Promise<string> {
  const { id, metadata, status } = sandbox;
  const handler = cri.handlers.get(metadata.runtimeHandler);
  const record = await cri.records.containers.get(criContext(), id).catch(() => undefined);
  const stored = await cri.records.sandboxes.get(criContext(), id).catch(() => undefined);
  const extension = stored?.extensions[Extension.sandbox];
  const info = {
    pid: status.pid,
    processStatus: status.state === 'ready' ? 'running' : 'deleted',
    netNamespaceClosed: metadata.netnsPath !== '' && !netnsAlive(metadata.netnsPath),
    image: record?.image ?? '',
    snapshotKey: record?.snapshotKey ?? '',
    snapshotter: record?.snapshotter ?? '',
    runtimeType: runtimeName(handler),
    runtimeOptions: toldOptions(handler),
    config: toJson(PodSandboxConfigSchema, metadata.config),
    cniResult: metadata.cniResult ?? null,
    ...inForce('overhead', metadata.config.linux?.overhead),
    ...inForce('resources', metadata.config.linux?.resources),
  };
  return jsonWith(info, { runtimeSpec: record?.spec?.value, sandboxMetadata: extension?.value });
}

/** As the pod was made with, or updated to. */
function inForce(name: string, limits: LinuxContainerResources | undefined): object {
  return limits ? { [name]: { linux: toJson(LinuxContainerResourcesSchema, limits) } } : {};
}
