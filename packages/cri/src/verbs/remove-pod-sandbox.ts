import { Code, hasCode } from '@gantry/api';
import { ContainerEventType, type RemovePodSandboxRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import { removeAllBeneath } from '@gantry/mount';
import { type Cri, criContext, dirs } from '../cri.ts';
import { publishContainerEvent } from '../run/publish-event.ts';
import { together } from '../run/together.ts';
import { removeOneContainer } from './remove-container.ts';
import { stopSandbox } from './stop-pod-sandbox.ts';

/** Removes a pod with all its containers, running or not. One that is not there is well. */
export async function removePodSandbox(cri: Cri, { podSandboxId }: RemovePodSandboxRequest): Promise<object> {
  const sandbox = cri.sandboxes.find(podSandboxId);
  if (!sandbox) return {};
  const { id } = sandbox;
  await stopSandbox(cri, sandbox);
  const members = cri.containers.list().filter(({ metadata }) => metadata.sandboxId === id);
  for (const container of members) await removeOneContainer(cri, container);
  await cri.locks.run(`sandbox ${id}`, async () => {
    if (cri.sandboxes.find(id) !== sandbox) return;
    const ctx = criContext();
    await cri.hooks.removePodSandbox(sandbox).catch((error) => cri.log.warn('hook', { error, id }));
    // The end of the sandbox's record, which is durable, comes last.
    const step = { ...ctx, step: true };
    await ifThere(cri.controllers.get(sandbox.sandboxer)?.shutdown(step, id));
    await removeAllBeneath(dirs.sandboxRoot(cri, id));
    await removeAllBeneath(dirs.sandboxState(cri, id));
    await together(ifThere(cri.records.leases.delete(step, id)), ifThere(cri.records.sandboxes.delete(ctx, id)));
    publishContainerEvent(cri, id, id, ContainerEventType.CONTAINER_DELETED_EVENT);
    cri.sandboxes.delete(id);
    cri.selinux.release(sandbox.metadata.processLabel);
    cri.sandboxNames.release(sandbox.metadata.name, id);
  });
  return {};
}

async function ifThere(work: Promise<unknown> | undefined): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
  }
}
