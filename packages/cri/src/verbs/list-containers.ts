import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ContainerFilter, ContainerSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { hasLabels } from './filters.ts';

export function listContainers(
  cri: Cri,
  filter: ContainerFilter | undefined,
): MessageInitShape<typeof ContainerSchema>[] {
  return cri.containers
    .list()
    .filter((container) => matches(container, filter))
    .map(({ id, metadata, status }) => ({
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
    }));
}

function matches({ id, metadata, status }: CriContainer, filter: ContainerFilter | undefined): boolean {
  if (!filter) return true;
  if (filter.id !== '' && !id.startsWith(filter.id)) return false;
  if (filter.podSandboxId !== '' && !metadata.sandboxId.startsWith(filter.podSandboxId)) return false;
  if (filter.state && filter.state.state !== stateOf(status)) return false;
  return hasLabels(metadata.config.labels, filter.labelSelector);
}
