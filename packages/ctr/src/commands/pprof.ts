import type { Command } from '../command.ts';
import { notYet } from '../not-yet.ts';

const profile = (name: string, usage: string, debug?: number, seconds?: string): Command => ({
  name,
  usage,
  example: `ctr pprof ${name}`,
  flags: [
    ...(seconds
      ? [{ name: 'seconds', aliases: ['s'], kind: 'duration', usage: 'for how long', default: seconds } as const]
      : []),
    { name: 'debug', kind: 'int', usage: 'how much to print', default: debug ?? 0 },
  ],
  run: async () => {
    throw notYet(`ctr pprof ${name}: the daemon has no profiles of this kind; its debug socket tells what it does`);
  },
});

/** The profiles that Go's daemons offer. */
export const profiles: readonly Command[] = [
  profile('block', 'where goroutines wait'),
  profile('goroutines', 'all goroutines', 2),
  profile('heap', 'what occupies memory'),
  profile('profile', 'where time goes', 0, '30s'),
  profile('threadcreate', 'what made threads'),
  profile('trace', 'an execution trace', 0, '5s'),
];

export const pprof: Command = {
  name: 'pprof',
  usage: 'profile the daemon',
  example: 'ctr pprof heap',
  flags: [
    {
      name: 'debug-socket',
      aliases: ['d'],
      kind: 'string',
      usage: "the daemon's debug socket",
      default: '/run/gantry/debug.sock',
    },
  ],
  commands: profiles,
};
