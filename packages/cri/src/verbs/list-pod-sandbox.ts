import { create } from '@bufbuild/protobuf';
import {
  type PodSandboxFilter,
  PodSandboxSchema,
  type PodSandbox as WirePodSandbox,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { EncodedList } from '../encoded-list.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { hasLabels } from './filters.ts';
import { wireState } from './pod-sandbox-status.ts';

/** Those that the filter lets through, as entries of the answer. */
export function listPodSandboxes(cri: Cri, filter: PodSandboxFilter | undefined): Uint8Array[] {
  const entries: Uint8Array[] = [];
  for (const sandbox of cri.sandboxes.values()) {
    if (!matches(sandbox, filter)) continue;
    entries.push(told.entry(sandbox.id, sandbox.status, () => wirePodSandbox(sandbox)));
  }
  return entries;
}

const told = new EncodedList<PodSandbox['status'], typeof PodSandboxSchema>(PodSandboxSchema);

function wirePodSandbox(sandbox: PodSandbox): WirePodSandbox {
  const { id, metadata, status } = sandbox;
  return create(PodSandboxSchema, {
    id,
    ...(metadata.config.metadata && { metadata: metadata.config.metadata }),
    state: wireState(sandbox),
    createdAt: status.createdAt,
    labels: metadata.config.labels,
    annotations: metadata.config.annotations,
    runtimeHandler: metadata.runtimeHandler,
  });
}

function matches(sandbox: PodSandbox, filter: PodSandboxFilter | undefined): boolean {
  if (!filter) return true;
  if (filter.id !== '' && !sandbox.id.startsWith(filter.id)) return false;
  if (filter.state && filter.state.state !== wireState(sandbox)) return false;
  return hasLabels(sandbox.metadata.config.labels, filter.labelSelector);
}
