import { Code, failedPrecondition, hasCode } from '@gantry/api';
import { ContainerEventType, ContainerState, type RemoveContainerRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import { removeAllBeneath } from '@gantry/mount';
import { type Cri, criContext, dirs } from '../cri.ts';
import { publishContainerEvent } from '../run/publish-event.ts';
import { together } from '../run/together.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { stopRunningContainer } from './stop-container.ts';

/** Removes a container, killing it if it runs. One that is not there is well. */
export async function removeContainer(cri: Cri, { containerId }: RemoveContainerRequest): Promise<object> {
  const container = cri.containers.find(containerId);
  if (container) await removeOneContainer(cri, container);
  return {};
}

export async function removeOneContainer(cri: Cri, container: CriContainer): Promise<void> {
  const { id, metadata } = container;
  await cri.locks.run(`container ${id}`, async () => {
    if (cri.containers.find(id) !== container) return;
    await stopRunningContainer(cri, container, 0);
    if (container.status.starting) throw failedPrecondition(`container "${id}" is in starting state, can't be removed`);
    const state = stateOf(container.status);
    if (state === ContainerState.CONTAINER_RUNNING) throw failedPrecondition('container is still running');
    container.status = { ...container.status, removing: true };
    try {
      await remove(cri, container);
    } catch (error) {
      container.status = { ...container.status, removing: false };
      throw error;
    }
    publishContainerEvent(cri, id, metadata.sandboxId, ContainerEventType.CONTAINER_DELETED_EVENT);
  });
}

async function remove(cri: Cri, container: CriContainer): Promise<void> {
  const { id, metadata } = container;
  const sandbox = cri.sandboxes.find(metadata.sandboxId);
  if (sandbox)
    await cri.hooks.removeContainer(sandbox, container).catch((error) => cri.log.warn('hook', { error, id }));
  await container.io?.close();
  await together(removeRecords(cri, id), removeAllBeneath(dirs.containerState(cri, id)));
  await removeAllBeneath(dirs.containerRoot(cri, id));
  cri.containers.delete(id);
  if (metadata.processLabel !== sandbox?.metadata.processLabel) cri.selinux.release(metadata.processLabel);
  cri.containerNames.release(metadata.name, id);
}

/** The snapshot's and the container's, of which the latter is durable and comes after the other: written together, for one wait. */
async function removeRecords(cri: Cri, id: string): Promise<void> {
  const ctx = criContext();
  const unlessGone = (error: unknown): void => {
    if (!hasCode(error, Code.NotFound)) throw error;
  };
  const record = await cri.records.containers.get(ctx, id).catch(unlessGone);
  if (!record) return;
  const removeSnapshot = async () =>
    cri.snapshotters.get(ctx, record.snapshotter).remove({ ...ctx, step: true }, record.snapshotKey);
  await together(removeSnapshot().catch(unlessGone), cri.records.containers.delete(ctx, id).catch(unlessGone));
}
