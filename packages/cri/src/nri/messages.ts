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
import { fromSpecResources, toSpecResources } from '@gantry/nri/runtime/spec-resources.ts';
import { parseJson, type RuntimeSpec, type SpecResources } from '@gantry/oci';
import { type Cri, criContext } from '../cri.ts';
import { CriLabel } from '../labels.ts';
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

/** What the kubelet asks for. As under containerd what it does not say is 0, and there: plugins in Go look into it. */
export function toldLimits(limits: LinuxContainerResources | undefined): LinuxResources {
  if (!limits) return create(LinuxResourcesSchema);
  const { memoryLimitInBytes, memorySwapLimitInBytes, hugepageLimits, unified } = limits;
  return create(LinuxResourcesSchema, {
    memory: {
      limit: { value: memoryLimitInBytes },
      ...(memorySwapLimitInBytes !== 0n && { swap: { value: memorySwapLimitInBytes } }),
    },
    cpu: {
      shares: { value: BigInt.asUintN(64, limits.cpuShares) },
      quota: { value: limits.cpuQuota },
      period: { value: BigInt.asUintN(64, limits.cpuPeriod) },
      cpus: limits.cpusetCpus,
      mems: limits.cpusetMems,
    },
    hugepageLimits: hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit })),
    unified: { ...unified },
  });
}

/** Limits that plugins want of a container that is there: devices are given when it is made, and 0 is no word on a limit, as in CRI. */
export function wantedLimits(resources: LinuxResources): SpecResources {
  const { devices: _, cpu, memory, ...limits } = toSpecResources(resources);
  const said = <T extends object>(table: T | undefined, names: readonly (keyof T)[]): T | undefined =>
    table &&
    (Object.fromEntries(
      Object.entries(table).filter(([name, value]) => value !== 0 || !names.includes(name as keyof T)),
    ) as T);
  const wantedCpu = said(cpu, ['shares', 'quota', 'period']);
  const wantedMemory = said(memory, ['limit']);
  // What was left of swap beyond the memory goes by the old limit.
  if (wantedMemory?.limit !== undefined) wantedMemory.swap ??= wantedMemory.limit;
  return {
    ...limits,
    ...(wantedCpu && { cpu: wantedCpu }),
    ...(wantedMemory && { memory: wantedMemory }),
  };
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
    labels: { ...config.labels, [CriLabel.containerKind]: 'sandbox', ...runtimeLabel(cri, runtimeHandler) },
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

/** As containerd tells it; its own labels do not have it. */
function runtimeLabel(cri: Cri, handler: string): { oci_runtime_type?: string } {
  try {
    return { oci_runtime_type: cri.handlers.get(handler).runtime_type };
  } catch {
    // The configuration may have changed since the pod was made.
    return {};
  }
}

const states = {
  [CriState.CONTAINER_CREATED]: ContainerState.CONTAINER_CREATED,
  [CriState.CONTAINER_RUNNING]: ContainerState.CONTAINER_RUNNING,
  [CriState.CONTAINER_EXITED]: ContainerState.CONTAINER_STOPPED,
  [CriState.CONTAINER_UNKNOWN]: ContainerState.CONTAINER_UNKNOWN,
} as const;

/** @param given its specification, of one that is not kept yet; `pid` the process of one that has just ended */
export async function containerMessage(
  cri: Cri,
  container: CriContainer,
  given?: RuntimeSpec,
  pid?: number,
): Promise<Container> {
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
    pid: pid ?? (status.starting ? await startingPid(cri, id) : status.pid),
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
