// What snapshots there are, how they hang together and what they take.

import { formatTime, type SnapshotInfo, type Time } from '@gantry/client';
import { activateMounts } from '../../activate.ts';
import { type Command, UsageError } from '../../command.ts';
import { print, printJson, printTable } from '../../output.ts';
import { withClient } from '../../session.ts';
import { narrow } from '../../table.ts';
import { binarySize } from '../../units.ts';
import { snapshotterOf } from '../../unpack.ts';
import { mountCommands } from './change.ts';

const kindOf = ({ kind }: SnapshotInfo): string => `${kind[0]!.toUpperCase()}${kind.slice(1)}`;
const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the snapshots',
  argsUsage: '[<filter>, ...]',
  example: 'ctr snapshots ls kind==active',
  run: withClient(async (client, invocation) => {
    const snapshots = client.snapshots(await snapshotterOf(client, invocation));
    const rows: string[][] = [];
    for await (const info of snapshots.list([...invocation.args]))
      rows.push([info.name, info.parent, kindOf(info), '']);
    printTable([['KEY', 'PARENT', 'KIND', ''], ...rows], narrow);
  }),
};

export const info: Command = {
  name: 'info',
  usage: 'print all there is to know of a snapshot',
  argsUsage: '<key>',
  example: 'ctr snapshots info work',
  run: withClient(async (client, invocation) => {
    if (invocation.args.length !== 1) throw new UsageError('snapshot key must be provided');
    const snapshots = client.snapshots(await snapshotterOf(client, invocation));
    const found = await snapshots.stat(invocation.args[0]!);
    const time = (moment: Time | undefined): string => (moment ? formatTime(moment) : '0001-01-01T00:00:00Z');
    const labels = Object.entries(found.labels).sort(([a], [b]) => order(a, b));
    printJson({
      Kind: kindOf(found),
      Name: found.name,
      ...(found.parent ? { Parent: found.parent } : {}),
      ...(labels.length > 0 ? { Labels: Object.fromEntries(labels) } : {}),
      Created: time(found.createdAt),
      Updated: time(found.updatedAt),
    });
  }),
};

export const mounts: Command = {
  name: 'mounts',
  aliases: ['m', 'mount'],
  usage: 'print the commands that mount a snapshot',
  argsUsage: '<target> <key>',
  example: 'ctr snapshots mounts /mnt work',
  flags: [
    { name: 'temp', kind: 'bool', usage: 'have the daemon perform them all, and print a bind mount of the result' },
  ],
  run: withClient(async (client, invocation) => {
    if (invocation.args.length !== 2) throw new UsageError('target and snapshot key must be provided');
    const [target, key] = invocation.args as [string, string];
    const snapshotter = await snapshotterOf(client, invocation);
    const found = await client.snapshots(snapshotter).mounts(key);
    // What the daemon performs for this goes with the snapshot.
    const labels = { [`containerd.io/gc.bref.snapshot.${snapshotter}`]: key };
    const temporary = invocation.bool('temp');
    print(mountCommands(target, await activateMounts(client, `ctr${key}`, found, { labels, temporary })));
  }),
};

export const tree: Command = {
  name: 'tree',
  usage: 'draw which snapshot stands on which',
  example: 'ctr snapshots tree',
  run: withClient(async (client, invocation) => {
    const snapshots = client.snapshots(await snapshotterOf(client, invocation));
    const children = new Map<string, string[]>();
    const names = new Set<string>();
    for await (const { name, parent } of snapshots.list()) {
      names.add(name);
      children.set(parent, [...(children.get(parent) ?? []), name]);
    }
    const draw = (name: string, depth: number): void => {
      print(depth === 0 ? ` ${name}\n` : `${'  '.repeat(depth)}\\_ ${name}\n`);
      for (const child of (children.get(name) ?? []).sort(order)) draw(child, depth + 1);
    };
    for (const top of (children.get('') ?? []).sort(order)) draw(top, 0);
    for (const [parent, orphans] of children)
      if (parent !== '' && !names.has(parent)) for (const orphan of orphans) draw(orphan, 0);
  }),
};

export const usage: Command = {
  name: 'usage',
  usage: 'print what snapshots take by themselves',
  argsUsage: '[flags] [<key>, ...]',
  example: 'ctr snapshots usage work',
  flags: [{ name: 'b', kind: 'bool', usage: 'in bytes' }],
  run: withClient(async (client, invocation) => {
    const snapshots = client.snapshots(await snapshotterOf(client, invocation));
    const keys = [...invocation.args];
    if (keys.length === 0) for await (const { name } of snapshots.list()) keys.push(name);
    const rows: string[][] = [];
    for (const key of keys) {
      const { size, inodes } = await snapshots.usage(key);
      rows.push([key, invocation.bool('b') ? String(size) : binarySize(size), String(inodes), '']);
    }
    printTable([['KEY', 'SIZE', 'INODES', ''], ...rows], narrow);
  }),
};
