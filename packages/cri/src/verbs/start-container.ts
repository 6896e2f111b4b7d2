import { failedPrecondition, now, StatusError } from '@gantry/api';
import { ContainerEventType, ContainerState, type StartContainerRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import { type Cri, criContext, dirs } from '../cri.ts';
import { containerFifos, openContainerIo } from '../run/container-io.ts';
import { noteExit, watchContainer } from '../run/exit-watch.ts';
import { publishContainerEvent } from '../run/publish-event.ts';
import { stateOf, writeStatus } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';

/** Starts a container that was made and not started yet. One that cannot be started has ended then. */
export async function startContainer(cri: Cri, { containerId }: StartContainerRequest): Promise<object> {
  const container = cri.containers.get(containerId);
  const { status } = container;
  const state = stateOf(status);
  if (state !== ContainerState.CONTAINER_CREATED) {
    throw failedPrecondition(`container is in ${ContainerState[state]} state`);
  }
  if (status.removing) throw failedPrecondition("container is in removing state, can't be started");
  if (status.starting) throw failedPrecondition('container is already in starting state');
  const sandbox = cri.sandboxes.get(container.metadata.sandboxId);
  if (sandbox.status.state !== 'ready') throw failedPrecondition(`sandbox container "${sandbox.id}" is not running`);
  container.status = { ...status, starting: true };
  try {
    await run(cri, sandbox, container);
  } catch (error) {
    container.status = {
      ...container.status,
      starting: false,
      reason: 'StartError',
      message: StatusError.from(error).message,
    };
    await noteExit(cri, container, 128, nanosOf(now()));
    throw StatusError.wrap(error, `failed to start containerd task "${container.id}"`);
  }
  publishContainerEvent(cri, container.id, sandbox.id, ContainerEventType.CONTAINER_STARTED_EVENT);
  return {};
}

async function run(cri: Cri, sandbox: PodSandbox, container: CriContainer): Promise<void> {
  const { id, metadata } = container;
  const { config } = metadata;
  const ctx = criContext();
  const record = await cri.records.containers.get(ctx, id);
  const rootfs = await cri.snapshotters.get(ctx, record.snapshotter).mounts(ctx, record.snapshotKey);
  const fifos = await containerFifos(cri, container);
  const io = await openContainerIo(cri, container, fifos, false);
  const task = await cri.tasks.create(ctx, id, {
    spec: record.spec!,
    rootfs,
    io: { ...fifos, terminal: config.tty },
    runtime: record.runtime.name,
    runtimeOptions: record.runtime.options,
    sandboxId: metadata.sandboxId,
  });
  await cri.hooks.startContainer(sandbox, container);
  const pid = await task.start('');
  io.started();
  container.status = { ...container.status, pid, startedAt: nanosOf(now()), starting: false };
  await writeStatus(dirs.containerRoot(cri, id), container.status);
  watchContainer(cri, container, task);
  await cri.hooks.postStartContainer(sandbox, container).catch((error) => cri.log.warn('hook', { error, id }));
}
