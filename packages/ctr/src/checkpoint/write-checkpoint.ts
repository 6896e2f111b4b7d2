// `ctr tasks checkpoint` and `ctr containers checkpoint`.
import { type Any, type Client, Code, type Container, hasCode, runcCheckpointOptions, type Task } from '@gantry/client';
import { MediaType } from '@gantry/oci';
import {
  type CheckpointIndex,
  forThisPlatform,
  indexAnnotations,
  recordCheckpoint,
  writeMessage,
  writeRootChanges,
} from './checkpoint-index.ts';

/** Does some work on a task that is frozen meanwhile. */
async function whilePaused<T>(task: Task, work: () => Promise<T>): Promise<T> {
  if ((await task.status()).state === 'paused') return work();
  await task.pause();
  try {
    return await work();
  } finally {
    // One that has ended by its checkpoint cannot go on.
    await task.resume().catch(() => undefined);
  }
}

/** The name that a checkpoint gets which nobody named: `containerd.io/checkpoint/c1:01-31-2026-12:00:00`. */
export function checkpointName(id: string, at: Date): string {
  const two = (number: number): string => String(number).padStart(2, '0');
  const day = `${two(at.getMonth() + 1)}-${two(at.getDate())}-${at.getFullYear()}`;
  return `containerd.io/checkpoint/${id}:${day}-${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export interface TaskCheckpointSettings {
  exit: boolean;
  /** Directories on the daemon's machine; '' for the content store, and for one that is removed. */
  imagePath: string;
  workPath: string;
}

/** The state of a task as an image, with its container's image and changes. @returns its name; '' if it went to a directory */
export async function checkpointTask(
  unheld: Client,
  container: Container,
  settings: TaskCheckpointSettings,
): Promise<string> {
  await using lease = await unheld.leases.create({ expireAfter: 24 * 3600 });
  const client = unheld.withLease(lease);
  const task = await client.tasks.get(container.id);
  const name = checkpointName(container.id, new Date());
  const index: CheckpointIndex = { manifests: [], annotations: {} };
  return await whilePaused(task, async () => {
    const parts = await task.checkpoint({ options: runcCheckpointOptions(settings) });
    if (settings.imagePath !== '') return '';
    index.manifests.push(...parts.map(forThisPlatform));
    if (container.image !== '') {
      index.manifests.push((await client.images.get(container.image)).target);
      index.annotations[indexAnnotations.taskImage] = container.image;
    }
    if (container.snapshotKey !== '') index.manifests.push(await writeRootChanges(client, container));
    await recordCheckpoint(client, name, container.id, index, { 'containerd.io/checkpoint': 'true' });
    return name;
  });
}

export interface ContainerCheckpointSettings {
  /** Which parts. */
  image: boolean;
  rw: boolean;
  task: boolean;
}

/** A container as an image under the name `ref`, from which another one can be made. */
export async function checkpointContainer(
  unheld: Client,
  container: Container,
  ref: string,
  settings: ContainerCheckpointSettings,
): Promise<void> {
  await using lease = await unheld.leases.create({ expireAfter: 24 * 3600 });
  const client = unheld.withLease(lease);
  const task = await client.tasks.get(container.id).catch((reason) => {
    if (hasCode(reason, Code.NotFound)) return undefined;
    throw reason;
  });
  const work = async (): Promise<void> => {
    const image = await client.images.get(container.image);
    const index: CheckpointIndex = {
      manifests: [],
      annotations: {
        [indexAnnotations.runtime]: container.runtime.name,
        [indexAnnotations.snapshotter]: container.snapshotter,
        [indexAnnotations.image]: image.name,
      },
    };
    const { options } = container.runtime;
    if (options && options.value.length > 0)
      index.manifests.push(await runtimeOptionsPart(client, container.id, options));
    if (settings.image) index.manifests.push(image.target);
    if (settings.rw) index.manifests.push(await writeRootChanges(client, container));
    if (settings.task) index.manifests.push(...(await taskParts(client, container.id)));
    await recordCheckpoint(client, ref, `${container.id}index`, index);
  };
  await (task ? whilePaused(task, work) : work());
}

function runtimeOptionsPart(client: Client, id: string, options: Any) {
  return writeMessage(client, MediaType.CheckpointRuntimeOptions, `${id}-runtime-options`, options);
}

async function taskParts(client: Client, id: string) {
  const options = runcCheckpointOptions({ fileLocks: true });
  const parts = await (await client.tasks.get(id)).checkpoint({ options });
  const kept = await writeMessage(client, MediaType.CheckpointOptions, `${id}-checkpoint-options`, options);
  return [...parts.map(forThisPlatform), kept];
}
