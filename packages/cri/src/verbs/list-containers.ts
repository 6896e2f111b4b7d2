import { create } from '@bufbuild/protobuf';
import {
  type ContainerFilter,
  ContainerSchema,
  type Container as WireContainer,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { EncodedList } from '../encoded-list.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { hasLabels } from './filters.ts';

/** Those that the filter lets through, as entries of the answer. */
export function listContainers(cri: Cri, filter: ContainerFilter | undefined): Uint8Array[] {
  const entries: Uint8Array[] = [];
  for (const container of cri.containers.values()) {
    if (!matches(container, filter)) continue;
    entries.push(told.entry(container.id, container.status, () => wireContainer(container)));
  }
  return entries;
}

const told = new EncodedList<CriContainer['status'], typeof ContainerSchema>(ContainerSchema);

function wireContainer({ id, metadata, status }: CriContainer): WireContainer {
  return create(ContainerSchema, {
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
}

function matches({ id, metadata, status }: CriContainer, filter: ContainerFilter | undefined): boolean {
  if (!filter) return true;
  if (filter.id !== '' && !id.startsWith(filter.id)) return false;
  if (filter.podSandboxId !== '' && !metadata.sandboxId.startsWith(filter.podSandboxId)) return false;
  if (filter.state && filter.state.state !== stateOf(status)) return false;
  return hasLabels(metadata.config.labels, filter.labelSelector);
}
