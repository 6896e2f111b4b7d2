import type { MessageInitShape } from '@bufbuild/protobuf';
import { notFound } from '@gantry/api';
import {
  ContainerState,
  type ContainerStats,
  type ContainerStatsFilter,
  type ContainerStatsRequest,
  type ContainerStatsResponseSchema,
  type PodSandboxMetrics,
  type PodSandboxStats,
  type PodSandboxStatsFilter,
  type PodSandboxStatsRequest,
  type PodSandboxStatsResponseSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { hasLabels } from './filters.ts';

/** Statistics and metrics: which containers and pods are asked about is decided here, what is said of them by the collector. */

export async function containerStats(
  cri: Cri,
  { containerId }: ContainerStatsRequest,
): Promise<MessageInitShape<typeof ContainerStatsResponseSchema>> {
  const container = cri.containers.get(containerId);
  // What does not run has a place on the disk only, which lists tell.
  const runs = stateOf(container.status) === ContainerState.CONTAINER_RUNNING;
  const stats = runs ? await cri.stats.containerStats(container) : undefined;
  if (!stats) throw notFound(`no statistics of container "${container.id}": not found`);
  return { stats };
}

export async function listContainerStats(
  cri: Cri,
  filter: ContainerStatsFilter | undefined,
): Promise<ContainerStats[]> {
  const chosen = cri.containers.list().filter(({ id, metadata }) => {
    if (filter && !id.startsWith(filter.id)) return false;
    if (filter && !metadata.sandboxId.startsWith(filter.podSandboxId)) return false;
    return hasLabels(metadata.config.labels, filter?.labelSelector ?? {});
  });
  return present(await Promise.all(chosen.map((container) => cri.stats.containerStats(container))));
}

export async function podSandboxStats(
  cri: Cri,
  { podSandboxId }: PodSandboxStatsRequest,
): Promise<MessageInitShape<typeof PodSandboxStatsResponseSchema>> {
  const sandbox = cri.sandboxes.get(podSandboxId);
  const stats = await cri.stats.podStats(sandbox, membersOf(cri, sandbox.id));
  if (!stats) throw notFound(`no statistics of sandbox "${sandbox.id}": not found`);
  return { stats };
}

export async function listPodStats(cri: Cri, filter: PodSandboxStatsFilter | undefined): Promise<PodSandboxStats[]> {
  const chosen = cri.sandboxes
    .list()
    .filter(
      ({ id, metadata }) =>
        (!filter || id.startsWith(filter.id)) && hasLabels(metadata.config.labels, filter?.labelSelector ?? {}),
    );
  return present(await Promise.all(chosen.map((sandbox) => cri.stats.podStats(sandbox, membersOf(cri, sandbox.id)))));
}

export async function listPodMetrics(cri: Cri): Promise<PodSandboxMetrics[]> {
  const all = cri.sandboxes.list();
  return present(await Promise.all(all.map((sandbox) => cri.stats.podMetrics(sandbox, membersOf(cri, sandbox.id)))));
}

function membersOf(cri: Cri, sandboxId: string): CriContainer[] {
  return cri.containers.list().filter(({ metadata }) => metadata.sandboxId === sandboxId);
}

function present<T>(items: readonly (T | undefined)[]): T[] {
  return items.filter((item) => item !== undefined);
}
