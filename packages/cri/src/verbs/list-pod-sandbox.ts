import type { MessageInitShape } from '@bufbuild/protobuf';
import type { PodSandboxFilter, PodSandboxSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { hasLabels } from './filters.ts';
import { wireState } from './pod-sandbox-status.ts';

export function listPodSandboxes(
  cri: Cri,
  filter: PodSandboxFilter | undefined,
): MessageInitShape<typeof PodSandboxSchema>[] {
  return cri.sandboxes
    .list()
    .filter((sandbox) => matches(sandbox, filter))
    .map((sandbox) => ({
      id: sandbox.id,
      ...(sandbox.metadata.config.metadata && { metadata: sandbox.metadata.config.metadata }),
      state: wireState(sandbox),
      createdAt: sandbox.status.createdAt,
      labels: sandbox.metadata.config.labels,
      annotations: sandbox.metadata.config.annotations,
      runtimeHandler: sandbox.metadata.runtimeHandler,
    }));
}

function matches(sandbox: PodSandbox, filter: PodSandboxFilter | undefined): boolean {
  if (!filter) return true;
  if (filter.id !== '' && !sandbox.id.startsWith(filter.id)) return false;
  if (filter.state && filter.state.state !== wireState(sandbox)) return false;
  return hasLabels(sandbox.metadata.config.labels, filter.labelSelector);
}
