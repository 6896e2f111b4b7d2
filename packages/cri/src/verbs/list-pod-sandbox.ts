import { create } from '@bufbuild/protobuf';
import {
  type PodSandboxFilter,
  PodSandboxSchema,
  type PodSandbox as WirePodSandbox,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { hasLabels } from './filters.ts';
import { wireState } from './pod-sandbox-status.ts';

export function listPodSandboxes(cri: Cri, filter: PodSandboxFilter | undefined): WirePodSandbox[] {
  return cri.sandboxes
    .list()
    .filter((sandbox) => matches(sandbox, filter))
    .map(wirePodSandbox);
}

/** Kubelets list all pods every second: what they were told stays until a pod has another status. */
const told = new WeakMap<PodSandbox['status'], WirePodSandbox>();

function wirePodSandbox(sandbox: PodSandbox): WirePodSandbox {
  const { id, metadata, status } = sandbox;
  let message = told.get(status);
  if (message?.id === id) return message;
  message = create(PodSandboxSchema, {
    id,
    ...(metadata.config.metadata && { metadata: metadata.config.metadata }),
    state: wireState(sandbox),
    createdAt: status.createdAt,
    labels: metadata.config.labels,
    annotations: metadata.config.annotations,
    runtimeHandler: metadata.runtimeHandler,
  });
  told.set(status, message);
  return message;
}

function matches(sandbox: PodSandbox, filter: PodSandboxFilter | undefined): boolean {
  if (!filter) return true;
  if (filter.id !== '' && !sandbox.id.startsWith(filter.id)) return false;
  if (filter.state && filter.state.state !== wireState(sandbox)) return false;
  return hasLabels(sandbox.metadata.config.labels, filter.labelSelector);
}
