import { now } from '@gantry/api';
import type { ContainerEventType } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Cri } from '../cri.ts';
import { nanosOf } from '../time.ts';
import { wireContainerStatus } from '../verbs/container-status.ts';
import { wireSandboxStatus } from '../verbs/pod-sandbox-status.ts';

/** Tells subscribers what happened to a container or sandbox, with how its pod is now. */
export function publishContainerEvent(
  cri: Cri,
  containerId: string,
  sandboxId: string,
  type: ContainerEventType,
): void {
  if (!cri.events.wanted) return;
  const createdAt = nanosOf(now());
  void (async () => {
    const sandbox = cri.sandboxes.find(sandboxId);
    const members = cri.containers.list().filter(({ metadata }) => metadata.sandboxId === sandboxId);
    cri.events.publish({
      containerId,
      containerEventType: type,
      createdAt,
      ...(sandbox && { podSandboxStatus: wireSandboxStatus(sandbox) }),
      containersStatuses: await Promise.all(members.map((member) => wireContainerStatus(cri, member))),
    });
  })().catch((error) => cri.log.warn('event cannot be told', { error, id: containerId }));
}
