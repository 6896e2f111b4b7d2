// Starting, signalling, freezing and deleting tasks.
import { Code, hasCode, StatusError, specOf, type Task } from '@gantry/client';
import type { Command } from '../../command.ts';
import { log, print } from '../../output.ts';
import { attachStreams, followSize, forwardSignals, rawTerminal } from '../../run/attach.ts';
import { deleteWithPipes } from '../../run/delete-task.ts';
import { runTask } from '../../run/run-task.ts';
import { withClient } from '../../session.ts';

export const start: Command = {
  name: 'start',
  usage: 'start a container that was created',
  argsUsage: '[flags] CONTAINER',
  example: 'ctr tasks start -d c1',
  flags: [
    { name: 'no-pivot', kind: 'bool', usage: 'do not use pivot_root' },
    { name: 'null-io', kind: 'bool', usage: 'send its output nowhere' },
    { name: 'log-uri', kind: 'string', usage: 'send its output to a file or program' },
    { name: 'fifo-dir', kind: 'string', usage: 'directory for the pipes of its input and output' },
    { name: 'pid-file', kind: 'string', usage: "file to write the task's pid to" },
    { name: 'detach', aliases: ['d'], kind: 'bool', usage: 'do not wait for it' },
  ],
  run: withClient(async (client, invocation) => {
    const container = await client.containers.get(invocation.argument(0, 'container id'));
    return runTask(client, invocation, container, specOf(container).process?.terminal ?? false);
  }),
};

export const attach: Command = {
  name: 'attach',
  usage: 'share the input and output of a running container',
  argsUsage: 'CONTAINER',
  example: 'ctr tasks attach c1',
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    const container = await client.containers.get(id);
    const terminal = specOf(container).process?.terminal ?? false;
    const restore = terminal ? rawTerminal() : undefined;
    try {
      const task = await client.tasks.get(id, { attach: true });
      const ended = task.wait();
      const streams = attachStreams(task.io);
      const stop = terminal ? await followSize(task) : forwardSignals(task);
      const { code } = await ended;
      stop();
      streams.release();
      await deleteWithPipes(task);
      await streams.finish();
      return code;
    } finally {
      restore?.();
    }
  }),
};

async function removeTask(task: Task, force: boolean): Promise<number> {
  if (force) {
    const ended = task.wait();
    try {
      await task.kill('SIGKILL', { all: true });
      await ended;
    } catch (reason) {
      ended.catch(() => undefined);
      if (!hasCode(reason, Code.NotFound)) throw reason;
    }
  }
  const { state } = await task.status();
  if (state !== 'stopped' && state !== 'created')
    throw new StatusError(
      Code.FailedPrecondition,
      `task must be stopped before deletion: ${state}: failed precondition`,
    );
  return (await deleteWithPipes(task)).code;
}

export const remove: Command = {
  name: 'delete',
  aliases: ['del', 'remove', 'rm'],
  usage: 'delete tasks that have ended; answers with the exit code of the last',
  argsUsage: '[flags] CONTAINER [CONTAINER, ...]',
  example: 'ctr tasks rm -f c1',
  flags: [
    { name: 'force', aliases: ['f'], kind: 'bool', usage: 'kill what still runs' },
    { name: 'exec-id', kind: 'string', usage: 'delete this process only' },
  ],
  run: withClient(async (client, invocation) => {
    const execId = invocation.string('exec-id');
    const force = invocation.bool('force');
    if (execId) {
      const task = await client.tasks.get(invocation.argument(0, 'container id'));
      const process = await task.process(execId);
      if (force) {
        await process.kill('SIGKILL').catch((reason) => {
          if (!hasCode(reason, Code.NotFound)) throw reason;
        });
        await process.wait();
      }
      return (await deleteWithPipes(process)).code;
    }
    invocation.argument(0, 'container id');
    let code = 0;
    let failure: unknown;
    for (const id of invocation.args) {
      try {
        // The container is looked up first, so that one that is not there is told as such.
        await client.containers.get(id);
        const ended = await removeTask(await client.tasks.get(id), force);
        if (ended !== 0) log('warning', `task ${id} exit with non-zero exit code ${ended}`);
        code = ended;
      } catch (reason) {
        failure ??= reason;
        log('error', `unable to delete ${id}`, { error: (reason as Error).message });
      }
    }
    if (failure) throw failure;
    return code;
  }),
};

export const kill: Command = {
  name: 'kill',
  usage: "send a signal (default: the image's stop signal, or SIGTERM)",
  argsUsage: '[flags] CONTAINER',
  example: 'ctr tasks kill -s SIGHUP c1',
  flags: [
    { name: 'signal', aliases: ['s'], kind: 'string', usage: 'its name or number' },
    { name: 'exec-id', kind: 'string', usage: 'send it to this process' },
    { name: 'all', aliases: ['a'], kind: 'bool', usage: 'send it to every process of the container' },
  ],
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    const execId = invocation.string('exec-id');
    const all = invocation.bool('all');
    if (all && execId) throw new Error('specify an exec-id or all; not both');
    const container = await client.containers.get(id);
    const signal =
      invocation.string('signal') || container.labels['io.containerd.image.config.stop-signal'] || 'SIGTERM';
    const task = await client.tasks.get(id);
    // As containerd's: whatever the signal, the network of its --cni goes.
    if (Object.keys(container.extensions).length > 0) {
      const { CniNetwork } = await import('../../run/cni.ts');
      await (await CniNetwork.of(client.namespace, container))?.takeDown();
    }
    if (execId) await (await task.process(execId)).kill(signal);
    else await task.kill(signal, { all });
  }),
};

const onTask = (name: string, usage: string, work: (task: Task) => Promise<void>): Command => ({
  name,
  usage,
  argsUsage: 'CONTAINER',
  example: `ctr tasks ${name} c1`,
  run: withClient(async (client, invocation) => {
    const id = invocation.argument(0, 'container id');
    await client.containers.get(id);
    await work(await client.tasks.get(id));
  }),
});

export const pause = onTask('pause', 'freeze a container', (task) => task.pause());
export const resume = onTask('resume', 'let a frozen container go on', (task) => task.resume());

export const checkpoint: Command = {
  name: 'checkpoint',
  usage: "keep the state of a container's processes",
  argsUsage: '[flags] CONTAINER',
  example: 'ctr tasks checkpoint --image-path /tmp/c1 c1',
  flags: [
    { name: 'exit', kind: 'bool', usage: 'end the container with it' },
    { name: 'image-path', kind: 'string', usage: 'directory for the state' },
    { name: 'work-path', kind: 'string', usage: "directory for CRIU's own files" },
  ],
  run: withClient(async (client, invocation) => {
    const container = await client.containers.get(invocation.argument(0, 'container id'));
    const { checkpointTask } = await import('../../checkpoint/write-checkpoint.ts');
    const name = await checkpointTask(client, container, {
      exit: invocation.bool('exit'),
      imagePath: invocation.string('image-path'),
      workPath: invocation.string('work-path'),
    });
    if (name !== '') print(`${name}\n`);
  }),
};
