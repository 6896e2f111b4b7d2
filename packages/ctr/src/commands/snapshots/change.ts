// Making, sealing, labelling and removing snapshots.
import type { Client, Mount } from '@gantry/client';
import { type Command, type Flag, type Invocation, UsageError } from '../../command.ts';
import { forEachName, print, printJson } from '../../output.ts';
import { withClient } from '../../session.ts';
import { labelList, parseLabels } from '../../units.ts';
import { snapshotterOf } from '../../unpack.ts';

/** Keeps it until somebody removes it: nothing else refers to it. */
const rootLabels = (): Record<string, string> => ({
  'containerd.io/gc.root': new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
});

/** The commands that perform mounts. */
export function mountCommands(target: string, mounts: readonly Mount[]): string {
  return mounts
    .map(({ type, source, options, target: inside }) => {
      const place = inside ? `${target}/${inside}` : target;
      return `mount -t ${type} ${source} ${place} -o ${options.join(',')}\n`;
    })
    .join('');
}

const placeFlags: readonly Flag[] = [
  { name: 'target', aliases: ['t'], kind: 'string', usage: 'print the commands to mount it there' },
  { name: 'mounts', kind: 'bool', usage: 'print its mounts in JSON' },
];

function show(invocation: Invocation, mounts: readonly Mount[]): void {
  const target = invocation.string('target');
  if (target) print(mountCommands(target, mounts));
  if (invocation.bool('mounts'))
    printJson(
      mounts.map(({ type, source, target: inside, options }) => ({
        Type: type,
        Source: source,
        Target: inside,
        Options: options,
      })),
    );
}

const onSnapshotter = async (client: Client, invocation: Invocation) =>
  client.snapshots(await snapshotterOf(client, invocation));

function one(invocation: Invocation, what: string, most = 2): string {
  if (invocation.args.length < 1 || invocation.args.length > most) throw new UsageError(`${what} must be provided`);
  return invocation.argument(0, what);
}

export const prepare: Command = {
  name: 'prepare',
  usage: 'make a writable snapshot',
  argsUsage: '[flags] <key> [<parent>]',
  example: 'ctr snapshots prepare --target /mnt work sha256:0000',
  flags: placeFlags,
  run: withClient(async (client, invocation) => {
    const key = one(invocation, 'snapshot key');
    const snapshots = await onSnapshotter(client, invocation);
    show(invocation, await snapshots.prepare(key, invocation.args[1] ?? '', rootLabels()));
  }),
};

export const view: Command = {
  name: 'view',
  usage: 'make a snapshot that is only read',
  argsUsage: '[flags] <key> [<parent>]',
  example: 'ctr snapshots view --target /mnt look sha256:0000',
  flags: placeFlags,
  run: withClient(async (client, invocation) => {
    const key = one(invocation, 'snapshot key');
    const snapshots = await onSnapshotter(client, invocation);
    show(invocation, await snapshots.view(key, invocation.args[1] ?? '', rootLabels()));
  }),
};

export const commit: Command = {
  name: 'commit',
  usage: 'seal a writable snapshot under a name',
  argsUsage: '<key> <active>',
  example: 'ctr snapshots commit base work',
  run: withClient(async (client, invocation) => {
    if (invocation.args.length !== 2) throw new UsageError('the new name and the active snapshot must be provided');
    const [name, key] = invocation.args as [string, string];
    await (await onSnapshotter(client, invocation)).commit(name, key, rootLabels());
  }),
};

export const remove: Command = {
  name: 'delete',
  aliases: ['del', 'remove', 'rm'],
  usage: 'remove snapshots',
  argsUsage: '<key> [<key>, ...]',
  example: 'ctr snapshots rm work',
  run: withClient(async (client, invocation) => {
    invocation.argument(0, 'snapshot key');
    const snapshots = await onSnapshotter(client, invocation);
    return forEachName(
      invocation.args,
      (key) => snapshots.remove(key),
      (key, error) => `failed to remove "${key}": ${error.message}`,
    );
  }),
};

export const label: Command = {
  name: 'label',
  usage: 'set labels of a snapshot; an empty value clears one',
  argsUsage: '<name> [<label>=<value> ...]',
  example: 'ctr snapshots label work owner=me',
  run: withClient(async (client, invocation) => {
    const name = invocation.argument(0, 'snapshot name');
    const snapshots = await onSnapshotter(client, invocation);
    const { labels } = await snapshots.setLabels(name, parseLabels(invocation.args.slice(1)));
    print(`${labelList(labels, '')}\n`);
  }),
};
