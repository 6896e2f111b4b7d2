import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode, StatusError, unknown } from '@gantry/api';
import { ContainerState, type StopContainerRequest } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Task } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { signalNumber } from '@gantry/sys';
import { type Cri, criContext } from '../cri.ts';
import { noteExit } from '../run/exit-watch.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';

const SIGKILL = 9;
/** How long the kernel may take to end what was killed. */
const killWaitMs = 2 * 60_000;

/** Ends a container: by its stop signal, and after so many seconds without mercy. One that has ended, or is not there, is well. */
export async function stopContainer(
  cri: Cri,
  { containerId, timeout }: StopContainerRequest,
  signal: AbortSignal,
): Promise<object> {
  const container = cri.containers.find(containerId);
  if (container) await stopRunningContainer(cri, container, Number(timeout), signal);
  return {};
}

export async function stopRunningContainer(
  cri: Cri,
  container: CriContainer,
  timeoutSeconds: number,
  signal?: AbortSignal,
): Promise<void> {
  const state = stateOf(container.status);
  if (state !== ContainerState.CONTAINER_RUNNING && state !== ContainerState.CONTAINER_UNKNOWN) return;
  const { id } = container;
  let task: Task;
  try {
    task = cri.tasks.get(criContext(), id);
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
    // Whatever it was, it is no more.
    if (state === ContainerState.CONTAINER_UNKNOWN)
      await noteExit(cri, container, 255, BigInt(Date.now()) * 1_000_000n);
    // One that has ended by itself has for all only when that is noted.
    else await ended(container, killWaitMs, signal);
    return;
  }
  if (timeoutSeconds > 0) {
    if (!container.stopSignalled) {
      container.stopSignalled = true;
      await send(task, stopSignal(container), false);
    }
    if (await ended(container, timeoutSeconds * 1000, signal)) return;
    cri.log.info('container did not end in time and is killed', { id, timeoutSeconds });
  }
  await send(task, SIGKILL, false);
  if (!(await ended(container, killWaitMs, signal)))
    throw unknown(`an error occurs during waiting for container "${id}" to be killed`);
}

function stopSignal({ metadata }: CriContainer): number {
  const name = metadata.stopSignal || 'SIGTERM';
  try {
    return signalNumber(name);
  } catch (error) {
    throw StatusError.wrap(error, `failed to parse stop signal "${name}"`);
  }
}

async function send(task: Task, signal: number, all: boolean): Promise<void> {
  try {
    await task.kill('', signal, all);
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw StatusError.wrap(error, `failed to stop container "${task.id}"`);
  }
}

async function ended(container: CriContainer, withinMs: number, signal: AbortSignal | undefined): Promise<boolean> {
  const stop = new AbortController();
  const signals = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  try {
    return await Promise.race([
      container.exited.then(() => true),
      sleep(withinMs, false, { signal: signals, ref: false }),
    ]);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    stop.abort();
  }
}
