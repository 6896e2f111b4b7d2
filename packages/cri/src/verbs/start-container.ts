import path from 'node:path';
import { Code, failedPrecondition, hasCode, now, StatusError } from '@gantry/api';
import { ContainerEventType, ContainerState, type StartContainerRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import { expectCgroupMove } from '@gantry/cgroups';
import { removeAllBeneath } from '@gantry/mount';
import { ArchiveFile } from '../checkpoint/archive-files.ts';
import { restoreDirectory } from '../checkpoint/restore.ts';
import { type Cri, criContext, dirs } from '../cri.ts';
import { containerFifos, openContainerIo, openStreams } from '../run/container-io.ts';
import { noteExit, watchContainer } from '../run/exit-watch.ts';
import { publishContainerEvent } from '../run/publish-event.ts';
import { taskOptions } from '../run/runtime-handlers.ts';
import { together } from '../run/together.ts';
import { podIdMapping } from '../spec/user-namespace.ts';
import { stateOf, writeStatus } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { type PodSandbox, requireRunning } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';
import { stopRunningContainer } from './stop-container.ts';

const TaskStatus = { running: 2 } as const;
const SIGKILL = 9;

/** Starts a container that was made and not started yet. One that cannot be started has ended then. */
export async function startContainer(cri: Cri, { containerId }: StartContainerRequest): Promise<object> {
  const container = cri.containers.get(containerId);
  const { status } = container;
  const state = stateOf(status);
  if (state !== ContainerState.CONTAINER_CREATED) {
    throw failedPrecondition(
      `failed to set starting state for container "${container.id}": container is in ${ContainerState[state]} state`,
    );
  }
  if (status.removing) throw failedPrecondition("container is in removing state, can't be started");
  if (status.starting) throw failedPrecondition('container is already in starting state');
  const sandbox = cri.sandboxes.get(container.metadata.sandboxId);
  requireRunning(sandbox);
  container.status = { ...status, starting: true };
  expectCgroupMove();
  const starting = Promise.withResolvers<void>();
  container.starting = starting.promise;
  try {
    await runOrNote(cri, sandbox, container);
    // Its pod was stopped meanwhile, by a call that had no time to wait for it.
    if (sandbox.ending) await stopRunningContainer(cri, container, 0);
  } finally {
    container.starting = undefined;
    starting.resolve();
  }
  publishContainerEvent(cri, container.id, sandbox.id, ContainerEventType.CONTAINER_STARTED_EVENT);
  return {};
}

async function runOrNote(cri: Cri, sandbox: PodSandbox, container: CriContainer): Promise<void> {
  try {
    await run(cri, sandbox, container);
  } catch (error) {
    container.status = {
      ...container.status,
      starting: false,
      reason: 'StartError',
      message: StatusError.from(error).message,
    };
    await endTask(cri, container.id).catch((failure) =>
      cri.log.warn('container that could not be started', { error: failure, id: container.id }),
    );
    await noteExit(cri, container, 128, nanosOf(now()));
    throw error;
  }
}

async function run(cri: Cri, sandbox: PodSandbox, container: CriContainer): Promise<void> {
  const { id, metadata } = container;
  const { config } = metadata;
  const ctx = criContext();
  const record = await cri.records.containers.get(ctx, id);
  const rootfs = await cri.snapshotters.get(ctx, record.snapshotter).mounts(ctx, record.snapshotKey);
  const fifos = await containerFifos(cri, container);
  const io = await openContainerIo(cri, container, fifos);
  const streams = await openStreams(cri, sandbox, container, fifos);
  const restored = path.join(dirs.containerRoot(cri, id), restoreDirectory);
  const userNamespace = config.linux?.securityContext?.namespaceOptions?.usernsOptions;
  const creating = cri.tasks.create(ctx, id, {
    spec: record.spec!,
    rootfs,
    io: { ...streams, terminal: config.tty },
    runtime: record.runtime.name,
    runtimeOptions: taskOptions(record.runtime.options, podIdMapping(userNamespace)),
    sandboxId: metadata.sandboxId,
    ...(container.status.restore && { checkpoint: { path: path.join(restored, ArchiveFile.images) } }),
  });
  const task = await creating.catch((error: unknown) => {
    throw StatusError.wrap(error, 'failed to create containerd task');
  });
  await cri.hooks.startContainer(sandbox, container);
  requireRunning(sandbox);
  const running = { ...container.status, startedAt: nanosOf(now()), starting: false };
  const note = (pid: number) => writeStatus(dirs.containerRoot(cri, id), { ...running, pid });
  const startFailed = (error: unknown): never => {
    throw StatusError.wrap(error, `failed to start containerd task "${id}"`);
  };
  let pid: number;
  if (running.restore) {
    pid = await task.start('').catch(startFailed);
    await note(pid);
  } else {
    // Its process is there already, and waits: the disk and it need not wait for each other. The next daemon looks whether it was let go.
    [pid] = await together(task.start('').catch(startFailed), task.pid().then(note));
  }
  io.started();
  // It may have run out of memory by now, which its status says then.
  container.status = { ...container.status, startedAt: running.startedAt, starting: false, pid };
  watchContainer(cri, container, task);
  if (container.status.restore) await removeAllBeneath(restored);
  await cri.hooks.postStartContainer(sandbox, container).catch((error) => cri.log.warn('hook', { error, id }));
}

/** Its process may have begun before the rest failed. */
async function endTask(cri: Cri, id: string): Promise<void> {
  try {
    const task = cri.tasks.get(criContext(), id);
    if ((await task.state('')).status !== TaskStatus.running) return;
    await task.kill('', SIGKILL, true);
    await task.wait('');
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
  }
}
