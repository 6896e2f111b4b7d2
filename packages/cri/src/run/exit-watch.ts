import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode, isAny, now, type Time, unpackAny } from '@gantry/api';
import { ContainerEventType } from '@gantry/api/gen/cri/v1/api_pb.js';
import { TaskOOMSchema } from '@gantry/api/gen/events/task_pb.js';
import type { Task } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { type Cri, criContext, dirs } from '../cri.ts';
import { kubernetesNamespace } from '../labels.ts';
import { writeStatus } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';
import { publishContainerEvent } from './publish-event.ts';

/** Notes ends of processes, whoever brought them about. */

/** Between two tries to put away what has ended; doubled each time. */
const firstWaitMs = 1000;
const longestWaitMs = 60_000;

/** Watches a container's process from its start on. */
export function watchContainer(cri: Cri, container: CriContainer, task: Task): void {
  container.exited = (async () => {
    const exit = await waitForEnd(task, cri.closing, (error) =>
      cri.log.warn('container cannot be waited for', { error, id: container.id }),
    );
    // The daemon ends, and not the container: the next one goes on waiting.
    if (!exit) return;
    await noteExit(cri, container, exit.exitStatus, nanosOf(exit.exitedAt ?? now()));
  })();
  container.exited.catch((error) => cri.log.error('end of a container cannot be noted', { error, id: container.id }));
}

/**
 * How a process ended, however often the way to it breaks; one that is not there has ended, nobody knows how. undefined once `closing` is
 * aborted.
 */
export async function waitForEnd(
  task: Task,
  closing: AbortSignal,
  onError: (error: unknown) => void,
): Promise<{ exitStatus: number; exitedAt?: Time | undefined } | undefined> {
  for (;;) {
    try {
      return await task.wait('', closing);
    } catch (error) {
      if (closing.aborted) return undefined;
      if (hasCode(error, Code.NotFound)) return { exitStatus: 255, exitedAt: now() };
      onError(error);
      await sleep(firstWaitMs, undefined, { ref: false });
    }
  }
}

/** Removes the task, waits until its output is in the log, and keeps how it ended. */
export async function noteExit(cri: Cri, container: CriContainer, exitCode: number, at: bigint): Promise<void> {
  const removed = removeTask(cri, container.id);
  // One whose process never came to be has nobody at the other end.
  container.io?.started();
  container.io?.closeStdin();
  // Whoever else holds the other end of a pipe does not hold up the container's end.
  await Promise.race([container.io?.drained, sleep(10_000, undefined, { ref: false })]);
  await container.io?.close();
  container.io = undefined;
  await removed;
  const reason = container.status.reason || (exitCode === 0 ? 'Completed' : 'Error');
  container.status = { ...container.status, pid: 0, exitCode, finishedAt: at, reason, unknown: false };
  await writeStatus(dirs.containerRoot(cri, container.id), container.status);
  const sandbox = cri.sandboxes.find(container.metadata.sandboxId);
  if (sandbox) await cri.hooks.stopContainer(sandbox, container).catch((error) => cri.log.warn('hook', { error }));
  publishContainerEvent(cri, container.id, container.metadata.sandboxId, ContainerEventType.CONTAINER_STOPPED_EVENT);
}

/** Deletes a task that has ended, again and again until it is gone. */
export async function removeTask(
  cri: Pick<Cri, 'tasks' | 'log'>,
  id: string,
  namespace = kubernetesNamespace,
): Promise<void> {
  for (let wait = firstWaitMs; ; wait = Math.min(wait * 2, longestWaitMs)) {
    try {
      await cri.tasks.delete({ namespace }, id);
      return;
    } catch (error) {
      if (hasCode(error, Code.NotFound)) return;
      cri.log.error('task of a container that has ended cannot be removed', { error, id });
      if (wait > 8 * firstWaitMs) return;
      await sleep(wait, undefined, { ref: false });
    }
  }
}

/** Watches the process of a pod sandbox. */
export function watchSandbox(cri: Cri, sandbox: PodSandbox): void {
  const controller = cri.controllers.get(sandbox.sandboxer);
  sandbox.exited = (async () => {
    const exit = await controller?.wait(criContext(), sandbox.id).catch((error) => {
      if (!hasCode(error, Code.NotFound)) cri.log.warn('sandbox cannot be waited for', { error, id: sandbox.id });
      return undefined;
    });
    if (cri.closing.aborted) return;
    sandbox.status = {
      ...sandbox.status,
      state: 'notready',
      pid: 0,
      exitStatus: exit?.exitStatus ?? 255,
      exitedAt: nanosOf(exit?.exitedAt ?? now()),
    };
    publishContainerEvent(cri, sandbox.id, sandbox.id, ContainerEventType.CONTAINER_STOPPED_EVENT);
  })();
}

/** A container that ran out of memory says so when it has ended. Returns how to stop. */
export function watchMemory(cri: Cri): () => void {
  return cri.bus.listen(({ namespace, topic, event }) => {
    if (namespace !== kubernetesNamespace || topic !== '/tasks/oom' || !isAny(event, TaskOOMSchema)) return;
    const container = cri.containers.find(unpackAny(TaskOOMSchema, event).containerId);
    if (container) container.status = { ...container.status, reason: 'OOMKilled' };
  });
}
