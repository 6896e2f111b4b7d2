import type { Command } from './command.ts';

const lazy = (head: Pick<Command, 'name' | 'aliases' | 'usage'>, load: () => Promise<Command>): Command => ({
  ...head,
  load: async () => ({ ...(await load()), ...head }),
});

/** The program. Knows the names of the groups; a group is loaded when it is asked for. */
export const root: Command = {
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
    lazy({ name: 'registry', usage: 'log in to registries, and out' }, async () => {
      return (await import('./commands/registry.ts')).registry;
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
