import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode, StatusError } from '@gantry/api';
import type { StopPodSandboxRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import { netnsAlive, removeNetns } from '@gantry/cni/netns.ts';
import { type Cri, criContext } from '../cri.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { stopRunningContainer } from './stop-container.ts';

/** Ends all of a pod and gives back its network. One that is stopped, or not there, is well. */
export async function stopPodSandbox(cri: Cri, { podSandboxId }: StopPodSandboxRequest): Promise<object> {
  const sandbox = cri.sandboxes.find(podSandboxId);
  if (sandbox) await stopSandbox(cri, sandbox);
  return {};
}

export async function stopSandbox(cri: Cri, sandbox: PodSandbox): Promise<void> {
  const { id } = sandbox;
  // From here on nothing is started in it that would go on without it.
  sandbox.ending = true;
  const members = cri.containers.list().filter(({ metadata }) => metadata.sandboxId === id);
  try {
    await Promise.all(members.map((container) => stopMember(cri, container)));
  } catch (error) {
    sandbox.ending = sandbox.status.state !== 'ready';
    throw error;
  }
  await cri.locks.run(`sandbox ${id}`, async () => {
    const controller = cri.controllers.get(sandbox.sandboxer);
    try {
      await controller?.stop(criContext(), id);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) throw StatusError.wrap(error, `failed to stop sandbox "${id}"`);
    }
    await sandbox.exited;
    await cri.hooks.stopPodSandbox(sandbox).catch((error) => cri.log.warn('hook', { error, id }));
    const handler = cri.handlers.forPod(sandbox.metadata.config, sandbox.metadata.runtimeHandler);
    await cri.imageVolumes.release(id, handler.snapshotter || cri.config.images.snapshotter);
    await disconnect(cri, sandbox);
  });
}

/** How long a container under way to its start is waited for; one that takes longer ends itself when it sees that its pod has. */
const startWaitMs = 10_000;

async function stopMember(cri: Cri, container: CriContainer): Promise<void> {
  if (container.starting) await Promise.race([container.starting, sleep(startWaitMs, undefined, { ref: false })]);
  try {
    await stopRunningContainer(cri, container, 0);
  } catch (error) {
    throw StatusError.wrap(error, `failed to stop container "${container.id}"`);
  }
}

/** Gives back what the network's plugins gave, and the namespace. */
async function disconnect(cri: Cri, { metadata }: PodSandbox): Promise<void> {
  const { id, netnsPath, config, runtimeHandler, cniResult: result } = metadata;
  if (netnsPath === '') return;
  // A namespace that is gone was taken down before, or by a restart of the machine: then plugins free addresses only.
  const alive = netnsAlive(netnsPath);
  await cri.network
    .tearDown({ id, netnsPath: alive ? netnsPath : '', config, runtimeHandler, result })
    .catch((error) => {
      if (result) throw error;
      // It never had a network. What its plugins hold nevertheless is noted, and freed when the daemon starts again.
      cri.log.warn('network of a pod that was never connected cannot be taken down', { error, id });
    });
  await removeNetns(netnsPath);
  metadata.cniResult = undefined;
}
