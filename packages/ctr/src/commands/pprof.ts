import { finished } from 'node:stream/promises';
import type { Command, Flag, Invocation } from '../command.ts';
import { written } from '../output.ts';

/** Where somebody may be asked. */
type SocketsOf = (invocation: Invocation) => readonly string[];

interface Profile {
  name: string;
  aliases?: readonly string[];
  usage: string;
  description?: string;
  path: string;
  /** Default of --debug, which Go's daemons heed and Gantry's do not. */
  debug?: number;
  seconds?: string;
  /** Whether it is of one thread. */
  thread?: true;
  /** What the example writes to. */
  file?: string;
}

const profiles: readonly Profile[] = [
  {
    name: 'block',
    aliases: ['eventloop'],
    usage: 'how late the event loop comes to what is due, in milliseconds',
    path: '/debug/pprof/block',
    seconds: '5s',
  },
  {
    name: 'goroutines',
    aliases: ['stacks'],
    usage: 'what keeps the event loop alive, stacks of workers, all threads',
    path: '/debug/pprof/goroutine',
    debug: 2,
  },
  {
    name: 'heap',
    usage: 'what occupies memory: a snapshot of the heap',
    description: "For the memory view of Chrome's developer tools. It holds secrets that are in memory.",
    path: '/debug/pprof/heap',
    thread: true,
    file: 'it.heapsnapshot',
  },
  { name: 'memory', usage: 'how much memory of which kind', path: '/debug/memory' },
  {
    name: 'profile',
    usage: 'where time goes: a CPU profile',
    description: "For the performance view of Chrome's developer tools, or an editor.",
    path: '/debug/pprof/profile',
    seconds: '30s',
    thread: true,
    file: 'it.cpuprofile',
  },
  { name: 'threadcreate', aliases: ['threads'], usage: 'all threads', path: '/debug/pprof/threadcreate' },
  {
    name: 'trace',
    usage: 'a trace of events',
    description: 'For ui.perfetto.dev.',
    path: '/debug/pprof/trace',
    seconds: '5s',
    file: 'trace.json',
  },
];

function command(profile: Profile, of: string, socketsOf: SocketsOf): Command {
  const { name, aliases, usage, description, path, debug = 0, seconds, thread, file } = profile;
  const flags: Flag[] = [{ name: 'debug', kind: 'int', usage: "how much Go's daemons print", default: debug }];
  if (seconds)
    flags.unshift({ name: 'seconds', aliases: ['s'], kind: 'duration', usage: 'for how long', default: seconds });
  if (thread)
    flags.push({ name: 'thread', kind: 'int', usage: 'of a worker: its number, as stacks tells it', default: 0 });
  return {
    name,
    usage,
    flags,
    ...(aliases && { aliases }),
    ...(description && { description }),
    example: `${of} ${name}${file ? ` > ${file}` : ''}`,
    run: async (invocation) => {
      const query = new URLSearchParams({ debug: String(invocation.number('debug')) });
      if (seconds) query.set('seconds', String(invocation.number('seconds') / 1000));
      if (invocation.number('thread')) query.set('thread', String(invocation.number('thread')));
      const { debugRequest } = await import('../debug-request.ts');
      const body = await debugRequest(socketsOf(invocation), `${path}?${query}`);
      // A body that is cut off is an error, not the end.
      const whole = finished(body);
      for await (const part of body) await written(part as Buffer);
      await whole;
    },
  };
}

/** The commands that ask one process what it does: their example's beginning, and where that process listens. */
export function profileCommands(of: string, socketsOf: SocketsOf): Command[] {
  return profiles.map((profile) => command(profile, of, socketsOf));
}

export const pprof: Command = {
  name: 'pprof',
  usage: 'ask the daemon what it does, over its debug socket',
  description: 'The daemon has the socket if [debug] address is in its configuration.',
  example: 'ctr pprof heap > it.heapsnapshot',
  flags: [
    {
      name: 'debug-socket',
      aliases: ['d'],
      kind: 'string',
      usage: "the daemon's debug socket",
      default: '/run/gantry/debug.sock',
    },
  ],
  commands: profileCommands('ctr pprof', (invocation) => [
    invocation.string('debug-socket').replace(/^unix:(\/\/)?/, ''),
  ]),
};
