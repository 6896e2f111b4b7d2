import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import { PodSandboxConfigSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { netnsAlive, removeNetns } from '@gantry/cni/netns.ts';
import type { Task } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { parseJson, type RuntimeSpec } from '@gantry/oci';
import { type Cri, criContext } from '../cri.ts';
import { kubernetesNamespace } from '../labels.ts';
import { removeTask } from './exit-watch.ts';

/**
 * Tasks that no record knows, as after the root directory came back from a backup: no client can name them, and they would run for
 * ever. Found before the daemon serves; nothing can be without its record later.
 */

const SIGKILL = 9;
/** How long the kernel may take to end what was killed, milliseconds. */
const endMs = 60_000;

/** @param recorded ids of all containers that have a record, pods' own too */
export async function endOwnerless(cri: Cri, recorded: ReadonlySet<string>): Promise<void> {
  const ownerless = cri.tasks.list(criContext()).filter(({ id }) => !recorded.has(id));
  if (ownerless.length === 0) return;
  const specs = new Map<Task, RuntimeSpec | undefined>();
  await Promise.all(
    ownerless.map(async (task) => {
      specs.set(task, await specOf(task));
      await endTask(cri, task).catch((error) =>
        cri.log.error('task that no record knows cannot be ended', { error, id: task.id }),
      );
    }),
  );
  // Networks go when nobody uses them any more.
  for (const [{ id }, spec] of specs)
    await freeNetwork(cri, id, spec).catch((error) =>
      cri.log.error('network of a pod that no record knows cannot be freed', { error, id }),
    );
}

/** As the bundle has it. */
async function specOf({ bundle }: Task): Promise<RuntimeSpec | undefined> {
  try {
    return parseJson<RuntimeSpec>(await readFile(`${bundle}/config.json`));
  } catch {
    return undefined;
  }
}

async function endTask(cri: Cri, task: Task): Promise<void> {
  const { id } = task;
  cri.log.warn('task that no record knows is ended', { id });
  await task.kill('', SIGKILL, true).catch((error) => {
    if (!hasCode(error, Code.NotFound)) throw error;
  });
  await Promise.race([task.wait('', cri.closing), sleep(endMs, undefined, { ref: false })]).catch((error) => {
    if (!hasCode(error, Code.NotFound)) throw error;
  });
  await removeTask(cri, id, kubernetesNamespace);
}

/** A pod's, by what its specification says of it. */
async function freeNetwork(cri: Cri, id: string, spec: RuntimeSpec | undefined): Promise<void> {
  const { annotations = {}, linux } = spec ?? {};
  const netnsPath = linux?.namespaces?.find(({ type }) => type === 'network')?.path ?? '';
  if (annotations['io.kubernetes.cri.container-type'] !== 'sandbox' || netnsPath === '') return;
  const of = (name: string): string => annotations[`io.kubernetes.cri.sandbox-${name}`] ?? '';
  const config = create(PodSandboxConfigSchema, {
    metadata: { name: of('name'), namespace: of('namespace'), uid: of('uid') },
  });
  await cri.network.tearDown({ id, netnsPath: netnsAlive(netnsPath) ? netnsPath : '', config, runtimeHandler: '' });
  await removeNetns(netnsPath);
}
