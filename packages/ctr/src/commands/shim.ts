import type { Command, Flag } from '../command.ts';
import { notYet } from '../not-yet.ts';
import { profiles } from './pprof.ts';

const apiVersion: Flag = { name: 'api-version', kind: 'int', usage: "version of the shim's API", default: 3 };

const action = (name: string, usage: string, flags: readonly Flag[] = [], argsUsage = ''): Command => ({
  name,
  usage,
  argsUsage: `[command options] ${argsUsage}`.trim(),
  example: `ctr shim --id c1 ${name}`,
  flags,
  run: async () => {
    throw notYet(`ctr shim ${name}: ask the daemon by ctr tasks`);
  },
});

export const shim: Command = {
  name: 'shim',
  usage: 'talk to a shim without the daemon',
  example: 'ctr shim --id c1 state',
  flags: [
    { name: 'id', kind: 'string', usage: 'id of the container' },
    { name: 'shim-address', kind: 'string', usage: 'socket of the shim; found by the id if there is none' },
  ],
  commands: [
    action('delete', "delete a container's task"),
    action(
      'exec',
      "run another process in the task's container",
      [
        { name: 'stdin', kind: 'string', usage: 'path of its input' },
        { name: 'stdout', kind: 'string', usage: 'path of its output' },
        { name: 'stderr', kind: 'string', usage: 'path of its errors' },
        { name: 'tty', aliases: ['t'], kind: 'bool', usage: 'with a terminal' },
        { name: 'attach', aliases: ['a'], kind: 'bool', usage: 'stay with it' },
        { name: 'env', aliases: ['e'], kind: 'strings', usage: 'variables' },
        { name: 'cwd', kind: 'string', usage: 'working directory' },
        { name: 'spec', kind: 'string', usage: 'file with the process in JSON' },
      ],
      '[ARG...]',
    ),
    action('start', "start a container's task"),
    action('state', 'what the task does', [
      { name: 'task-id', aliases: ['t'], kind: 'string', usage: 'id of the task' },
      apiVersion,
    ]),
    action('shutdown', 'end a shim that has no container', [apiVersion]),
    { name: 'pprof', usage: 'profile a shim', example: 'ctr shim --id c1 pprof heap', commands: profiles },
  ],
};
