// Speaking to a shim without the daemon.
import { readFileSync } from 'node:fs';
import type { Shim } from '@gantry/client';
import { type Command, type Flag, type Invocation, UsageError } from '../command.ts';
import { log, print, printJson } from '../output.ts';
import { attachStreams, rawTerminal } from '../run/attach.ts';
import { shimAddresses, shimDebugSockets } from '../shim-address.ts';
import { profileCommands } from './pprof.ts';

const apiVersion: Flag = { name: 'api-version', kind: 'int', usage: "version of the shim's API: 2 or 3", default: 3 };

/** Connects to the shim that the flags name. @throws Error if none answers */
async function connectShim(invocation: Invocation): Promise<Shim> {
  const id = invocation.string('id');
  const address = invocation.string('shim-address');
  if (!id && !address) throw new UsageError('shim ID (--id) or address (--shim-address) must be specified');
  const version = invocation.number('api-version') || 3;
  if (version !== 2 && version !== 3) throw new UsageError('api-version must be 2 or 3');
  const namespace = invocation.string('namespace');
  const sockets = [
    ...(address ? [address] : []),
    ...(id ? shimAddresses(invocation.string('address'), namespace, id) : []),
  ];
  const { Shim } = await import('@gantry/client');
  for (const socket of sockets) {
    try {
      return await Shim.connect(socket, { namespace, version });
    } catch {
      // The next may be the one.
    }
  }
  const shown = sockets.map((socket) => socket.replace('\0', '@'));
  throw new Error(`fail to connect to container shim with sockets: [${shown.join(' ')}]`);
}

function debugSockets(invocation: Invocation): string[] {
  const [id, given] = [invocation.string('id'), invocation.string('shim-address')];
  if (!id && !given) throw new UsageError('shim ID (--id) or address (--shim-address) must be specified');
  return shimDebugSockets(invocation.string('address'), invocation.string('namespace'), { id, given });
}

function withShim(work: (shim: Shim, invocation: Invocation) => Promise<void>): Command['run'] & object {
  return async (invocation) => {
    await using shim = await connectShim(invocation);
    await work(shim, invocation);
  };
}

/** The task that a command is about: its argument, or else the shim's id. */
function taskId(invocation: Invocation, given = invocation.args[0] ?? ''): string {
  const id = given || invocation.string('id');
  if (!id) throw new UsageError('task id must be provided');
  return id;
}

const state: Command = {
  name: 'state',
  usage: 'what the task does',
  example: 'ctr shim --id c1 state',
  flags: [
    { name: 'task-id', aliases: ['t'], kind: 'string', usage: 'id of the task; default: of the shim' },
    apiVersion,
  ],
  run: withShim(async (shim, invocation) => {
    const found = await shim.state(taskId(invocation, invocation.string('task-id')));
    const { seconds = 0n, nanos = 0 } = found.exitedAt ?? {};
    // As Go's encoder writes the message: what is empty is left out.
    const document = {
      id: found.id,
      bundle: found.bundle,
      pid: found.pid,
      status: found.status as number,
      stdin: found.stdin,
      stdout: found.stdout,
      stderr: found.stderr,
      terminal: found.terminal,
      exit_status: found.exitStatus,
      exited_at: found.exitedAt && { ...(seconds && { seconds }), ...(nanos && { nanos }) },
      exec_id: found.execId,
    };
    printJson(Object.fromEntries(Object.entries(document).filter(([, value]) => value)));
  }),
};

const exec: Command = {
  name: 'exec',
  usage: "run another process in the task's container",
  argsUsage: '[command options] <exec id>',
  description:
    'The process is described by a file with the process object of the runtime specification. Pipes that are not there are made.',
  example: 'ctr shim --id c1 exec --spec process.json --stdout /tmp/out -a e1',
  flags: [
    { name: 'stdin', kind: 'string', usage: 'path of its input' },
    { name: 'stdout', kind: 'string', usage: 'path of its output' },
    { name: 'stderr', kind: 'string', usage: 'path of its errors' },
    { name: 'tty', aliases: ['t'], kind: 'bool', usage: 'with a terminal' },
    { name: 'attach', aliases: ['a'], kind: 'bool', usage: 'stay with it' },
    { name: 'env', aliases: ['e'], kind: 'strings', usage: 'further variables' },
    { name: 'cwd', kind: 'string', usage: 'working directory' },
    { name: 'spec', kind: 'string', usage: 'file with the process in JSON' },
  ],
  run: withShim(async (shim, invocation) => {
    const execId = invocation.args[0];
    if (!execId) throw new UsageError('exec id must be provided');
    const id = invocation.string('id');
    if (!id) throw new UsageError('the container must be named by --id');
    const terminal = invocation.bool('tty');
    const given = JSON.parse(readFileSync(invocation.string('spec'), 'utf8')) as Record<string, unknown>;
    const cwd = invocation.string('cwd');
    const env = [...((given.env as string[] | undefined) ?? []), ...invocation.strings('env')];
    const spec = JSON.stringify({ ...given, terminal, env, ...(cwd && { cwd }) });
    const [stdin, stdout, stderr] = ['stdin', 'stdout', 'stderr'].map((name) => invocation.string(name));
    const paths = { stdin: stdin!, stdout: stdout!, stderr: terminal ? '' : stderr! };
    const { ProcessIo } = await import('@gantry/client');
    const io = await ProcessIo.at(paths, terminal);
    const attach = invocation.bool('attach');
    const restore = attach && terminal ? rawTerminal() : undefined;
    try {
      if (attach) attachStreams(io);
      await shim.exec(id, execId, spec, { ...paths, terminal });
      const pid = await shim.start(id, execId);
      io.started();
      print(`exec running with pid ${pid}\n`);
      if (!attach) return;
      log('info', 'attaching');
      const { columns, rows } = process.stdout;
      if (terminal && columns) await shim.resize(id, execId, columns, rows);
      await io.drained();
    } finally {
      restore?.();
    }
  }),
};

export const shim: Command = {
  name: 'shim',
  usage: 'talk to a shim without the daemon',
  example: 'ctr shim --id c1 state',
  flags: [
    { name: 'id', kind: 'string', usage: 'id of the container' },
    { name: 'shim-address', kind: 'string', usage: 'socket of the shim; found by the id if there is none' },
  ],
  commands: [
    {
      name: 'delete',
      usage: "delete a container's task",
      argsUsage: '[command options] [<id>]',
      example: 'ctr shim --id c1 delete',
      run: withShim(async (shim, invocation) => {
        const code = await shim.delete(taskId(invocation));
        print(`container deleted and returned exit status ${code}\n`);
      }),
    },
    exec,
    {
      name: 'start',
      usage: "start a container's task",
      argsUsage: '[command options] [<id>]',
      example: 'ctr shim --id c1 start',
      run: withShim(async (shim, invocation) => {
        await shim.start(taskId(invocation));
      }),
    },
    state,
    {
      name: 'shutdown',
      usage: 'end a shim that has no container',
      example: 'ctr shim --id c1 shutdown',
      flags: [apiVersion],
      run: withShim((shim, invocation) => shim.shutdown(invocation.string('id'))),
    },
    {
      name: 'pprof',
      usage: 'ask a shim what it does',
      example: 'ctr shim --id c1 pprof stacks',
      commands: profileCommands('ctr shim --id c1 pprof', debugSockets),
    },
  ],
};
