// ctr: the command line client of containerd-compatible daemons. Knows the names of the command groups and loads the one asked for.
import { type Command, helpText, runCommand, UsageError } from './command.ts';

const lazy = (head: Pick<Command, 'name' | 'aliases' | 'usage'>, load: () => Promise<Command>): Command => ({
  ...head,
  load: async () => ({ ...(await load()), ...head }),
});

const root: Command = {
  name: 'ctr',
  usage: 'talk to gantryd, or to any other daemon with the API of containerd',
  example: 'ctr run --rm -t docker.io/library/busybox:latest hello sh',
  flags: [
    { name: 'debug', kind: 'bool', usage: 'show where an error comes from' },
    {
      name: 'address',
      aliases: ['a'],
      kind: 'string',
      usage: 'socket of the daemon: a path or unix:///path',
      default: '/run/gantry/gantry.sock',
      env: ['CONTAINERD_ADDRESS'],
    },
    { name: 'timeout', kind: 'duration', usage: 'give up after this time in all', default: '0s' },
    {
      name: 'connect-timeout',
      kind: 'duration',
      usage: 'give up connecting after this time; 0 means 10 seconds',
      default: '0s',
    },
    {
      name: 'namespace',
      aliases: ['n'],
      kind: 'string',
      usage: 'namespace of the command',
      default: 'default',
      env: ['CONTAINERD_NAMESPACE'],
    },
    { name: 'version', aliases: ['v'], kind: 'bool', usage: 'print the version' },
  ],
  commands: [
    lazy({ name: 'plugins', aliases: ['plugin'], usage: "look at the daemon's plugins" }, async () => {
      return (await import('./commands/plugins.ts')).plugins;
    }),
    lazy({ name: 'version', usage: 'print the versions of client and daemon' }, async () => {
      return (await import('./commands/version.ts')).version;
    }),
    lazy({ name: 'containers', aliases: ['c', 'container'], usage: 'manage containers' }, async () => {
      return (await import('./commands/containers/index.ts')).containers;
    }),
    lazy({ name: 'content', usage: 'manage blobs' }, async () => {
      return (await import('./commands/content/index.ts')).content;
    }),
    lazy({ name: 'events', aliases: ['event'], usage: 'show what happens, as it happens' }, async () => {
      return (await import('./commands/events.ts')).events;
    }),
    lazy({ name: 'images', aliases: ['image', 'i'], usage: 'manage images' }, async () => {
      return (await import('./commands/images/index.ts')).images;
    }),
    lazy({ name: 'leases', usage: 'manage what keeps things from the garbage collector' }, async () => {
      return (await import('./commands/leases.ts')).leases;
    }),
    lazy({ name: 'namespaces', aliases: ['namespace', 'ns'], usage: 'manage namespaces' }, async () => {
      return (await import('./commands/namespaces.ts')).namespaces;
    }),
    lazy({ name: 'pprof', usage: 'profile the daemon' }, async () => {
      return (await import('./commands/pprof.ts')).pprof;
    }),
    lazy({ name: 'run', usage: 'run a container' }, async () => {
      return (await import('./commands/run.ts')).run;
    }),
    lazy({ name: 'snapshots', aliases: ['snapshot'], usage: 'manage snapshots' }, async () => {
      return (await import('./commands/snapshots/index.ts')).snapshots;
    }),
    lazy({ name: 'tasks', aliases: ['t', 'task'], usage: 'manage running containers' }, async () => {
      return (await import('./commands/tasks/index.ts')).tasks;
    }),
    lazy({ name: 'install', usage: 'install programs that come as an image' }, async () => {
      return (await import('./commands/install.ts')).install;
    }),
    lazy({ name: 'oci', usage: 'look at what the OCI specifications describe' }, async () => {
      return (await import('./commands/oci.ts')).oci;
    }),
    lazy({ name: 'sandboxes', aliases: ['sandbox', 'sb', 's'], usage: 'manage sandboxes' }, async () => {
      return (await import('./commands/sandboxes.ts')).sandboxes;
    }),
    lazy({ name: 'info', usage: 'print what the daemon tells about itself' }, async () => {
      return (await import('./commands/info.ts')).info;
    }),
    lazy({ name: 'deprecations', usage: 'see which old things are in use' }, async () => {
      return (await import('./commands/deprecations.ts')).deprecations;
    }),
    lazy({ name: 'shim', usage: 'talk to a shim without the daemon' }, async () => {
      return (await import('./commands/shim.ts')).shim;
    }),
  ],
};

async function main(argv: string[]): Promise<number> {
  const print = (text: string) => void process.stdout.write(text);
  if (argv.length === 1 && ['--version', '-version', '-v'].includes(argv[0]!)) {
    const { clientVersion } = await import('./version.ts');
    print(`ctr github.com/containerd/containerd/v2 ${clientVersion.version}\n`);
    return 0;
  }
  if (argv.length === 0) {
    print(helpText(['ctr'], root, root.commands!));
    return 0;
  }
  return runCommand(root, argv, print);
}

// A reader that leaves (`ctr … | head`) ends the program as SIGPIPE would.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(141);
  throw error;
});

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(`ctr: ${message}\n`);
    if (error instanceof UsageError && error.path) process.stderr.write(`See '${error.path.join(' ')} --help'.\n`);
    if (process.argv.includes('--debug') && error instanceof Error) {
      for (let cause: unknown = error; cause instanceof Error; cause = cause.cause)
        process.stderr.write(`${cause.stack ?? cause.message}\n`);
    }
    process.exit(1);
  },
);
