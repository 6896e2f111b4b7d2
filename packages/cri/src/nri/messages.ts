import { existsSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import { ContainerState as CriState, type LinuxContainerResources } from '@gantry/api/gen/cri/v1/api_pb.js';
import {
  type Container,
  ContainerState,
  type LinuxResources,
  LinuxResourcesSchema,
  type PodSandbox as PodMessage,
  PodSandboxSchema,
  SecurityProfileSchema,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { containerFromSpec } from '@gantry/nri/runtime/from-spec.ts';
import { fromSpecResources } from '@gantry/nri/runtime/spec-resources.ts';
import { parseJson, type RuntimeSpec } from '@gantry/oci';
import { type Cri, criContext } from '../cri.ts';
import { CriLabel } from '../labels.ts';
import { specResources } from '../spec/resources.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';

/** Pods and containers as plugins of the Node Resource Interface are told of them. */

/** The specification that is kept with a container or with a pod's process; an empty one if there is none. */
async function keptSpec(cri: Cri, id: string): Promise<RuntimeSpec> {
  try {
    const { spec } = await cri.records.containers.get(criContext(), id);
    return spec ? parseJson<RuntimeSpec>(spec.value) : { ociVersion: '' };
  } catch (error) {
    if (hasCode(error, Code.NotFound)) return { ociVersion: '' };
    throw error;
  }
}

export function toldLimits(limits: LinuxContainerResources | undefined): LinuxResources {
  return limits ? fromSpecResources(specResources(limits, true, true)) : create(LinuxResourcesSchema);
}

export async function podMessage(cri: Cri, { id, metadata, status }: PodSandbox): Promise<PodMessage> {
  const { config, runtimeHandler, ip, additionalIps } = metadata;
  const { annotations, linux } = await keptSpec(cri, id);
  const namespaces = (linux?.namespaces ?? []).map(({ type, path = '' }) => ({ type, path }));
  return create(PodSandboxSchema, {
    id,
    name: config.metadata?.name ?? '',
    uid: config.metadata?.uid ?? '',
    namespace: config.metadata?.namespace ?? '',
    labels: { ...config.labels, [CriLabel.containerKind]: 'sandbox' },
    annotations: { ...config.annotations, ...annotations },
    runtimeHandler,
    linux: {
      ...(config.linux?.overhead && { podOverhead: toldLimits(config.linux.overhead) }),
      ...(config.linux?.resources && { podResources: toldLimits(config.linux.resources) }),
      cgroupParent: config.linux?.cgroupParent ?? '',
      cgroupsPath: linux?.cgroupsPath ?? '',
      // That of a pod that was stopped is gone.
      namespaces: namespaces.filter(({ type, path }) => type !== 'network' || (path !== '' && existsSync(path))),
      ...(linux?.resources && { resources: fromSpecResources(linux.resources) }),
    },
    pid: status.pid,
    ips: ip === '' ? [] : [ip, ...additionalIps],
  });
}

const states = {
  [CriState.CONTAINER_CREATED]: ContainerState.CONTAINER_CREATED,
  [CriState.CONTAINER_RUNNING]: ContainerState.CONTAINER_RUNNING,
  [CriState.CONTAINER_EXITED]: ContainerState.CONTAINER_STOPPED,
  [CriState.CONTAINER_UNKNOWN]: ContainerState.CONTAINER_UNKNOWN,
} as const;

/** @param given its specification, of one that is not kept yet */
export async function containerMessage(cri: Cri, container: CriContainer, given?: RuntimeSpec): Promise<Container> {
  const { id, metadata, status } = container;
  const { config, sandboxId } = metadata;
  const spec = given ?? (await keptSpec(cri, id));
  const seccomp = config.linux?.securityContext?.seccomp;
  const message = containerFromSpec(spec, {
    id,
    podSandboxId: sandboxId,
    name: config.metadata?.name ?? '',
    state: states[stateOf(status)],
    labels: { ...config.labels, [CriLabel.containerKind]: 'container' },
    annotations: { ...spec.annotations, ...config.annotations },
    pid: status.starting ? await startingPid(cri, id) : status.pid,
    createdAt: status.createdAt,
    startedAt: status.startedAt,
    finishedAt: status.finishedAt,
    exitCode: status.exitCode,
    statusReason: status.reason,
    statusMessage: status.message,
    CDIDevices: config.CDIDevices.map(({ name }) => ({ name })),
  });
  if (seccomp && message.linux) {
    const { profileType, localhostRef } = seccomp;
    message.linux.seccompProfile = create(SecurityProfileSchema, { profileType: profileType as number, localhostRef });
  }
  return message;
}

/** A container that is just being started has its process already. */
async function startingPid(cri: Cri, id: string): Promise<number> {
  try {
    return await cri.tasks.get(criContext(), id).pid();
  } catch {
    return 0;
  }
}
