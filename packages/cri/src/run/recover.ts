import { existsSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { Code, hasCode, now } from '@gantry/api';
import { ContainerState } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Container } from '@gantry/daemon/core/containers/container-store.ts';
import type { Sandbox } from '@gantry/daemon/core/sandboxes/sandbox-store.ts';
import type { Task, TaskIo } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { removeAllBeneath, unmountRecursive } from '@gantry/mount';
import { parseJson, type RuntimeSpec } from '@gantry/oci';
import { MNT } from '@gantry/sys';
import { type Cri, criContext, dirs } from '../cri.ts';
import { CriLabel, Extension } from '../labels.ts';
import type { ContainerIo } from '../logs/container-logs.ts';
import { newStatus, readStatus, stateOf, statusFile, writeStatus } from '../store/container-status.ts';
import { type CriContainer, readContainerExtension } from '../store/cri-container.ts';
import { type PodSandbox, readSandboxExtension } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';
import { removeOneContainer } from '../verbs/remove-container.ts';
import { bridge, containerFifos, logStateDirectory, openContainerIo } from './container-io.ts';
import { noteExit, removeTask, watchContainer, watchSandbox } from './exit-watch.ts';
import { sweepLeases } from './half-made.ts';
import { endLeftProcesses, ranOutOfMemory } from './left-cgroup.ts';
import { endLeftExecs } from './left-execs.ts';
import { endOwnerless } from './ownerless.ts';
import { isStreamUrl } from './stream-bridge.ts';

/** What an earlier daemon left is found again, from records, status files and tasks. Answers the pods that it was still making. */
export async function recover(
  cri: Cri,
  recoverSandbox: (metadata: PodSandbox['metadata']) => Promise<void>,
): Promise<PodSandbox[]> {
  const ctx = criContext();
  const unfinished: PodSandbox[] = [];
  // All at once: states of tasks are asked for together then.
  await Promise.all(
    (await cri.records.sandboxes.list(ctx)).map((record) =>
      loadSandbox(cri, record, recoverSandbox, unfinished).catch((error) =>
        cri.log.error('pod sandbox cannot be loaded', { error, id: record.id }),
      ),
    ),
  );
  const records = await cri.records.containers.list(ctx);
  await Promise.all(
    records
      .filter(({ labels }) => labels[CriLabel.containerKind] === 'container')
      .map((record) =>
        loadContainer(cri, record).catch((error) => {
          cri.log.error('container cannot be loaded', { error, id: record.id });
          // What was known of it may be true no longer.
          const container = cri.containers.find(record.id);
          if (container && stateOf(container.status) !== ContainerState.CONTAINER_EXITED)
            container.status = { ...container.status, unknown: true };
        }),
      ),
  );
  await sweepDirectories(cri);
  await sweepLeases(cri);
  void endOwnerless(cri, new Set(records.map(({ id }) => id))).catch((error) =>
    cri.log.error('tasks that no record knows', { error }),
  );
  return unfinished;
}

async function loadSandbox(
  cri: Cri,
  record: Sandbox,
  recoverSandbox: (metadata: PodSandbox['metadata']) => Promise<void>,
  unfinished: PodSandbox[],
): Promise<void> {
  const metadata = readSandboxExtension(record.extensions[Extension.sandbox]);
  if (!metadata) return;
  const sandbox = newSandbox(metadata, record.sandboxer, nanosOf(record.createdAt));
  cri.sandboxes.set(record.id, sandbox);
  cri.selinux.reserve(metadata.processLabel);
  // Its client was not answered, and makes it anew under the same name: it is never ready, whatever runs of it.
  if (record.extensions[Extension.unfinished]) unfinished.push(sandbox);
  else cri.sandboxNames.reserve(metadata.name, record.id);
  if (record.sandboxer === 'podsandbox') await recoverSandbox(metadata);
  if (!record.extensions[Extension.unfinished]) await findSandbox(cri, sandbox);
}

function newSandbox(metadata: PodSandbox['metadata'], sandboxer: string, createdAt: bigint): PodSandbox {
  return {
    id: metadata.id,
    metadata,
    status: { state: 'notready', pid: 0, createdAt, exitedAt: 0n, exitStatus: 0 },
    sandboxer,
    exited: Promise.resolve(),
  };
}

/** How it fares, by its controller. */
async function findSandbox(cri: Cri, sandbox: PodSandbox): Promise<void> {
  const controller = cri.controllers.get(sandbox.sandboxer);
  const found = await controller?.status(criContext(), sandbox.id).catch((error) => {
    if (!hasCode(error, Code.NotFound)) throw error;
    return undefined;
  });
  if (found?.createdAt) sandbox.status = { ...sandbox.status, createdAt: nanosOf(found.createdAt) };
  if (found?.state !== 'SANDBOX_READY') return;
  sandbox.status = { ...sandbox.status, state: 'ready', pid: found.pid };
  watchSandbox(cri, sandbox);
}

const Running = { created: 1, running: 2, stopped: 3 } as const;

async function loadContainer(cri: Cri, record: Container): Promise<void> {
  const metadata = readContainerExtension(record.extensions[Extension.container]);
  if (!metadata) return;
  const { id } = record;
  const root = dirs.containerRoot(cri, id);
  const kept = await readStatus(root);
  const spec = record.spec && parseJson<RuntimeSpec>(record.spec.value);
  const container: CriContainer = {
    id,
    metadata,
    user: spec?.process?.user,
    status: kept ?? newStatus(nanosOf(record.createdAt)),
    exited: Promise.resolve(),
  };
  cri.containerNames.reserve(metadata.name, id);
  cri.selinux.reserve(metadata.processLabel);
  cri.containers.set(id, container);
  const task = taskOf(cri, id);
  if (kept && stateOf(kept) === ContainerState.CONTAINER_EXITED) {
    if (task) await putAway(cri, container, task);
    else if (existsSync(logStateDirectory(cri, id))) await finishLog(cri, container);
    return;
  }
  if (!task) {
    const started = stateOf(container.status) === ContainerState.CONTAINER_RUNNING;
    // The status is the last that is made of a container: nobody was answered yet.
    if (!kept && existsSync(root) && !existsSync(statusFile(root))) await removeOneContainer(cri, container);
    else if (!kept || started) {
      await endLeftProcesses(id, spec, cri.log);
      await noteLost(cri, container);
    }
    return;
  }
  const state = await task.state('');
  if (state.status === Running.created) {
    // Its start was cut off, and the caller was told nothing: it can be started again.
    await cri.tasks.delete(criContext(), id);
    if (container.status.startedAt !== 0n) {
      container.status = { ...container.status, pid: 0, startedAt: 0n };
      await writeStatus(root, container.status);
    }
    return;
  }
  await follow(cri, container, state);
  // The event of it may come later than that of its end, or have come to an earlier daemon.
  const limited = spec?.linux?.resources?.memory?.limit !== undefined;
  if ((limited || state.status === Running.stopped) && (await ranOutOfMemory(id, spec)))
    container.status = { ...container.status, reason: 'OOMKilled' };
  if (state.status !== Running.stopped && container.status.startedAt === 0n) {
    container.status = { ...container.status, pid: state.pid, startedAt: nanosOf(now()) };
    await writeStatus(dirs.containerRoot(cri, id), container.status);
  }
  watchContainer(cri, container, task);
  void endLeftExecs(cri, id, task).catch((error) =>
    cri.log.warn('execs of an earlier daemon cannot be ended', { error, id }),
  );
}

function taskOf(cri: Cri, id: string): Task | undefined {
  try {
    return cri.tasks.get(criContext(), id);
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
    return undefined;
  }
}

/** How it ended is kept, but the daemon was killed before its task was gone and the rest of its output in the log. */
async function putAway(cri: Cri, container: CriContainer, task: Task): Promise<void> {
  const { status } = container;
  // One that could not be started has no output.
  if (status.startedAt === 0n) return await removeTask(cri, container.id);
  container.status = { ...status, finishedAt: 0n };
  await follow(cri, container, await task.state(''));
  container.exited = noteExit(cri, container, status.exitCode, status.finishedAt);
  container.exited.catch((error) => cri.log.error('end of a container cannot be noted', { error, id: container.id }));
}

/** It has ended, and nobody knows how. */
async function noteLost(cri: Cri, container: CriContainer): Promise<void> {
  if (existsSync(logStateDirectory(cri, container.id))) await followEnded(cri, container);
  container.status = { ...container.status, reason: 'Unknown' };
  await noteExit(cri, container, 255, nanosOf(now()));
}

/** Goes on with its log. One that was taken over from containerd has its FIFOs where that made them. */
async function follow(cri: Cri, container: CriContainer, task: TaskIo): Promise<void> {
  const fifos = existsSync(task.stdout)
    ? { stdin: task.stdin, stdout: task.stdout, stderr: task.stderr }
    : await containerFifos(cri, container);
  await openContainerIo(cri, container, fifos, { exited: false });
  if (isStreamUrl(task.stdout)) await bridge(cri, container, task, fifos);
}

/** What has been read of one whose task is gone, and is not in its log. */
function followEnded(cri: Cri, container: CriContainer): Promise<ContainerIo> {
  return openContainerIo(cri, container, { stdin: '', stdout: '', stderr: '' }, { exited: true });
}

/** One that had ended when its log could not be written. */
async function finishLog(cri: Cri, container: CriContainer): Promise<void> {
  const io = await followEnded(cri, container);
  void io.drained.then(async () => {
    await io.close();
    container.io = undefined;
  });
}

/** Directories of what was being made, or removed, when the daemon was killed. */
async function sweepDirectories(cri: Cri): Promise<void> {
  for (const id of await cri.imageVolumes.owners()) {
    if (!cri.sandboxes.find(id)) await cri.imageVolumes.release(id, undefined);
  }
  for (const [base, known] of [
    ['sandboxes', new Set(cri.sandboxes.list().map(({ id }) => id))],
    ['containers', new Set(cri.containers.list().map(({ id }) => id))],
  ] as const) {
    for (const top of [cri.root, cri.state]) {
      const directory = `${top}/${base}`;
      await mkdir(directory, { recursive: true, mode: 0o755 });
      for (const name of await readdir(directory)) {
        if (known.has(name)) continue;
        await unmountRecursive(`${directory}/${name}`, MNT.DETACH);
        await removeAllBeneath(`${directory}/${name}`);
      }
    }
  }
}
