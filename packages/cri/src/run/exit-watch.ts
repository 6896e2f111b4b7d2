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
/** From this wait on nobody is held up by it. */
const longestHeldMs = 8 * firstWaitMs;

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

/** How long what a container has written may take to its log before its task goes, and with that whoever still could write there. */
const outputMs = 2000;
/** How long it may take after that before the container has ended for all to see. */
const lateOutputMs = 10_000;

/** Waits until a container's output is in the log, removes the task, and keeps how it ended. */
export async function noteExit(cri: Cri, container: CriContainer, exitCode: number, at: bigint): Promise<void> {
  const ended = (): CriContainer['status'] => {
    const reason = container.status.reason || (exitCode === 0 ? 'Completed' : 'Error');
    return { ...container.status, pid: 0, exitCode, finishedAt: at, reason, unknown: false };
  };
  const { pid } = container.status;
  // Once its task is gone nobody can be asked how it ended.
  const kept = ended();
  await keepStatus(cri, container.id, kept);
  const { io } = container;
  container.bridge?.exited();
  io?.exited();
  io?.closeStdin();
  // As long as the task is there its shim holds what is in the pipes: should the daemon be killed now, the next one finds it.
  if (io) await within(outputMs, io.drained);
  const removed = removeTask(cri, container.id);
  // Whoever else holds the other end of a pipe, or a full disk, does not hold up the container's end.
  const drained = !io || (await within(lateOutputMs, io.drained));
  await removed;
  container.bridge?.close();
  container.bridge = undefined;
  if (drained) {
    await io?.close();
    container.io = undefined;
  } else void io?.drained.then(() => io.close());
  container.status = ended();
  if (container.status.reason !== kept.reason) await keepStatus(cri, container.id, container.status);
  const sandbox = cri.sandboxes.find(container.metadata.sandboxId);
  if (sandbox) await cri.hooks.stopContainer(sandbox, container, pid).catch((error) => cri.log.warn('hook', { error }));
  publishContainerEvent(cri, container.id, container.metadata.sandboxId, ContainerEventType.CONTAINER_STOPPED_EVENT);
}

/** Whether something has come about in time. */
async function within(ms: number, what: Promise<unknown>): Promise<boolean> {
  const stop = new AbortController();
  const late = sleep(ms, false, { ref: false, signal: stop.signal }).catch(() => false);
  const inTime = await Promise.race([what.then(() => true), late]);
  stop.abort();
  return inTime;
}

/** A disk that is full, say, is no reason for a container not to end. */
async function keepStatus(cri: Cri, id: string, status: CriContainer['status']): Promise<void> {
  try {
    await writeStatus(dirs.containerRoot(cri, id), status);
  } catch (error) {
    cri.log.error('how a container ended cannot be kept', { error, id });
  }
}

/** Deletes a task that has ended, again and again until it is gone. After some tries the caller goes on, and so do they. */
export function removeTask(
  cri: Pick<Cri, 'tasks' | 'log'>,
  id: string,
  namespace = kubernetesNamespace,
  pause: (ms: number) => Promise<unknown> = (ms) => sleep(ms, undefined, { ref: false }),
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  void (async () => {
    for (let wait = firstWaitMs; ; wait = Math.min(wait * 2, longestWaitMs)) {
      try {
        await cri.tasks.delete({ namespace }, id);
        return;
      } catch (error) {
        if (hasCode(error, Code.NotFound)) return;
        cri.log.error('task of a container that has ended cannot be removed', { error, id });
      }
      if (wait > longestHeldMs) resolve();
      await pause(wait);
    }
  })().finally(resolve);
  return promise;
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
    if (!container) return;
    container.status = { ...container.status, reason: 'OOMKilled' };
    // It may have been noted with another reason already.
    if (container.status.finishedAt === 0n) return;
    void writeStatus(dirs.containerRoot(cri, container.id), container.status).catch((error) =>
      cri.log.warn('reason of an end is not kept', { error, id: container.id }),
    );
  });
}
