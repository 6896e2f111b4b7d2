import { type Any, type Client, Code, type Container, formatTime, hasCode, plainAny, specOf } from '@gantry/client';
import type { Json } from '@gantry/oci';
import type { Command } from '../../command.ts';
import { log, print, printJson, printLines, printTable } from '../../output.ts';
import { createContainer, removeContainer } from '../../run/create-container.ts';
import { deleteWithPipes } from '../../run/delete-task.ts';
import { runMadeTask } from '../../run/run-task.ts';
import { containerFlags } from '../../run/spec-flags.ts';
import { withClient } from '../../session.ts';
import { labelList, parseLabels } from '../../units.ts';

const create: Command = {
  name: 'create',
  usage: 'make a container, to be started by tasks start',
  argsUsage: '[flags] Image|RootFS CONTAINER [COMMAND] [ARG...]',
  example: 'ctr containers create docker.io/library/busybox:latest c1 sleep 60',
  flags: containerFlags,
  run: withClient(async (client, invocation) => {
    await createContainer(client, invocation);
  }),
};

const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the containers',
  argsUsage: '[flags] [<filter>, ...]',
  example: "ctr containers ls 'labels.app==web'",
  flags: [{ name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the ids only' }],
  run: withClient(async (client, invocation) => {
    const containers = await client.containers.list([...invocation.args]);
    if (invocation.bool('quiet')) return printLines(containers.map(({ id }) => id));
    printTable([
      ['CONTAINER', 'IMAGE', 'RUNTIME', ''],
      ...containers.map(({ id, image, runtime }) => [id, image || '-', runtime.name, '']),
    ]);
  }),
};

/** An Any as Go prints one. */
function bareAny(any: Any | undefined): Json {
  if (!any) return null;
  return {
    type_url: any.typeUrl,
    ...(any.value.length > 0 ? { value: Buffer.from(any.value).toString('base64') } : {}),
  };
}

function record(container: Container): Record<string, Json> {
  const time = (moment: Container['createdAt']): string => (moment ? formatTime(moment) : '0001-01-01T00:00:00Z');
  const extensions = Object.entries(container.extensions).sort();
  return {
    ID: container.id,
    Labels: Object.fromEntries(Object.entries(container.labels).sort()),
    Image: container.image,
    Runtime: { Name: container.runtime.name, Options: bareAny(container.runtime.options) },
    SnapshotKey: container.snapshotKey,
    Snapshotter: container.snapshotter,
    CreatedAt: time(container.createdAt),
    UpdatedAt: time(container.updatedAt),
    Extensions: Object.fromEntries(extensions.map(([name, any]) => [name, bareAny(any)])),
    SandboxID: container.sandbox,
  };
}

const info: Command = {
  name: 'info',
  usage: 'print all there is to know of a container',
  argsUsage: '[flags] CONTAINER',
  example: 'ctr containers info --spec c1',
  flags: [{ name: 'spec', kind: 'bool', usage: 'print the runtime spec only' }],
  run: withClient(async (client, invocation) => {
    const container = await client.containers.get(invocation.argument(0, 'container id'));
    if (invocation.bool('spec')) return printJson(specOf(container));
    const spec = container.spec && (plainAny(container.spec) ?? bareAny(container.spec));
    printJson({ ...record(container), Spec: spec ?? null });
  }),
};

const remove: Command = {
  name: 'delete',
  aliases: ['del', 'remove', 'rm'],
  usage: 'delete containers that do not run, with their snapshots',
  argsUsage: '[flags] CONTAINER [CONTAINER, ...]',
  example: 'ctr containers rm c1',
  flags: [{ name: 'keep-snapshot', kind: 'bool', usage: 'leave the snapshots' }],
  run: withClient(async (client, invocation) => {
    invocation.argument(0, 'container id');
    let failure: unknown;
    for (const id of invocation.args) {
      try {
        await removeOne(client, id, invocation.bool('keep-snapshot'));
      } catch (reason) {
        failure ??= reason;
        log('error', `failed to delete container "${id}"`, { error: (reason as Error).message });
      }
    }
    if (failure) throw failure;
  }),
};

async function removeOne(client: Client, id: string, keepSnapshot: boolean): Promise<void> {
  const container = await client.containers.get(id);
  try {
    const task = await client.tasks.get(id);
    const { state } = await task.status();
    if (state !== 'stopped' && state !== 'created')
      throw new Error(`cannot delete a non stopped container: {${state} 0 0001-01-01 00:00:00 +0000 UTC}`);
    await deleteWithPipes(task);
  } catch (reason) {
    if (!hasCode(reason, Code.NotFound)) throw reason;
  }
  await removeContainer(client, container, { keepSnapshot });
}

const label: Command = {
  name: 'label',
  usage: 'set labels of a container; an empty value clears one',
  argsUsage: '[flags] CONTAINER [<key>=<value>, ...]',
  example: 'ctr containers label c1 app=web',
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    const labels = parseLabels(invocation.args.slice(1));
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    if (paths.length === 0) throw new Error('please specify labels to set');
    const updated = await client.containers.update({ id, labels }, paths);
    print(`${labelList(updated.labels, '')}\n`);
  }),
};

const checkpoint: Command = {
  name: 'checkpoint',
  usage: 'keep a running container as an image',
  argsUsage: '[flags] CONTAINER REF',
  example: 'ctr containers checkpoint --task c1 example.com/c1:checkpoint',
  flags: [
    { name: 'rw', kind: 'bool', usage: 'with what was written to its root filesystem' },
    { name: 'image', kind: 'bool', usage: "with its image's content" },
    { name: 'task', kind: 'bool', usage: 'with the state of its processes' },
  ],
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    const ref = invocation.argument(1, 'ref');
    const { checkpointContainer } = await import('../../checkpoint/write-checkpoint.ts');
    await checkpointContainer(client, await client.containers.get(id), ref, {
      image: invocation.bool('image'),
      rw: invocation.bool('rw'),
      task: invocation.bool('task'),
    });
  }),
};

const restore: Command = {
  name: 'restore',
  usage: 'make a container from such an image',
  argsUsage: '[flags] CONTAINER REF',
  example: 'ctr containers restore --live c2 example.com/c1:checkpoint',
  flags: [
    { name: 'rw', kind: 'bool', usage: 'with what was written to its root filesystem' },
    { name: 'live', kind: 'bool', usage: 'with the state of its processes' },
  ],
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    const ref = invocation.argument(1, 'ref');
    const { readCheckpoint, restoreContainer, restoreTask } = await import('../../checkpoint/restore-container.ts');
    const index = await readCheckpoint(client, (await client.images.get(ref)).target);
    const container = await restoreContainer(client, id, index, { rw: invocation.bool('rw') });
    const terminal = specOf(container).process?.terminal ?? false;
    const create = () => restoreTask(client, container, index, invocation.bool('live'));
    return runMadeTask(create, { detach: !terminal, terminal, attached: true, pidFile: '' });
  }),
};

export const containers: Command = {
  name: 'containers',
  aliases: ['c', 'container'],
  usage: 'manage containers',
  example: 'ctr containers ls',
  commands: [create, remove, info, list, label, checkpoint, restore],
};
