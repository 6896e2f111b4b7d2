import { specOf } from '@gantry/client';
import { type Command, UsageError } from '../../command.ts';
import { attachStreams, followSize, forwardSignals, rawTerminal, showOutput } from '../../run/attach.ts';
import { readerOf, withSnapshotFiles } from '../../run/root-files.ts';
import { stdioOf } from '../../run/run-task.ts';
import { additionalGroups, type FileReader, lookUpUser } from '../../run/user.ts';
import { withClient } from '../../session.ts';

export const exec: Command = {
  name: 'exec',
  usage: 'run another process in a running container',
  argsUsage: '[flags] CONTAINER CMD [ARG...]',
  example: 'ctr tasks exec -t --exec-id shell c1 sh',
  flags: [
    { name: 'cwd', kind: 'string', usage: 'working directory' },
    { name: 'tty', aliases: ['t'], kind: 'bool', usage: 'give it a terminal' },
    { name: 'detach', aliases: ['d'], kind: 'bool', usage: 'do not wait for it' },
    { name: 'exec-id', kind: 'string', usage: 'its id, which no other process of the container has' },
    { name: 'fifo-dir', kind: 'string', usage: 'directory for the pipes of its input and output' },
    { name: 'log-uri', kind: 'string', usage: 'send its output to a file or program' },
    { name: 'user', kind: 'string', usage: 'user: name or uid, and maybe :group' },
  ],
  run: withClient(async (client, invocation) => {
    const execId = invocation.string('exec-id');
    if (!execId) throw new UsageError('Required flag "exec-id" not set');
    const id = invocation.argument(0, 'container id');
    const args = invocation.args.slice(1);
    if (args.length === 0) throw new UsageError('command must be provided');
    const container = await client.containers.get(id);
    const task = await client.tasks.get(id);
    const spec = specOf(container);
    const terminal = invocation.bool('tty');
    const process = { ...(spec.process ?? { user: { uid: 0, gid: 0 }, cwd: '/' }), terminal, args };
    const cwd = invocation.string('cwd');
    if (cwd) process.cwd = cwd;
    const user = invocation.string('user');
    if (user) {
      const look = (read: FileReader) => {
        const found = lookUpUser(user, read);
        return { ...process.user, ...found, additionalGids: additionalGroups(user, found.gid, read) };
      };
      process.user = container.snapshotKey
        ? await withSnapshotFiles(client, container.snapshotter, container.snapshotKey, look)
        : look(readerOf(spec.root?.path ?? '/'));
    }
    const stdio = stdioOf(invocation);
    const detach = invocation.bool('detach');
    const attached = stdio.stdout === 'pipe';
    const restore = terminal && attached && !detach ? rawTerminal() : undefined;
    try {
      const added = await task.exec(execId, process, { stdio });
      const ended = detach ? undefined : added.wait();
      ended?.catch(() => undefined);
      try {
        const streams = attached && !detach ? attachStreams(added.io) : undefined;
        if (detach) showOutput(added.io);
        await added.start();
        if (!ended) return 0;
        const stop = terminal ? await followSize(added) : forwardSignals(added);
        const { code } = await ended;
        streams?.release();
        await added.delete();
        stop();
        await streams?.finish();
        return code;
      } catch (reason) {
        await added.delete().catch(() => undefined);
        added.io.destroy();
        throw reason;
      }
    } finally {
      restore?.();
    }
  }),
};
