import { create } from '@bufbuild/protobuf';
import {
  type ContainerFilter,
  ContainerSchema,
  type Container as WireContainer,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { hasLabels } from './filters.ts';

export function listContainers(cri: Cri, filter: ContainerFilter | undefined): WireContainer[] {
  return cri.containers
    .list()
    .filter((container) => matches(container, filter))
    .map(wireContainer);
}

/** As with pods: what was told of a container stays until it has another status. */
const told = new WeakMap<CriContainer['status'], WireContainer>();

function wireContainer({ id, metadata, status }: CriContainer): WireContainer {
  let message = told.get(status);
  if (message?.id === id) return message;
  message = create(ContainerSchema, {
    id,
    podSandboxId: metadata.sandboxId,
    ...(metadata.config.metadata && { metadata: metadata.config.metadata }),
    ...(metadata.config.image && { image: metadata.config.image }),
    imageRef: metadata.imageRef,
    imageId: metadata.imageRef,
    state: stateOf(status),
    createdAt: status.createdAt,
    labels: metadata.config.labels,
    annotations: metadata.config.annotations,
  });
  told.set(status, message);
  return message;
}

function matches({ id, metadata, status }: CriContainer, filter: ContainerFilter | undefined): boolean {
  if (!filter) return true;
  if (filter.id !== '' && !id.startsWith(filter.id)) return false;
  if (filter.podSandboxId !== '' && !metadata.sandboxId.startsWith(filter.podSandboxId)) return false;
  if (filter.state && filter.state.state !== stateOf(status)) return false;
  return hasLabels(metadata.config.labels, filter.labelSelector);
}
