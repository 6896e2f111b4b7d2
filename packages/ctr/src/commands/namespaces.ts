import { Code, hasCode } from '@gantry/client';
import type { Command } from '../command.ts';
import { forEachName, print, printLines, printTable } from '../output.ts';
import { withClient } from '../session.ts';
import { narrow } from '../table.ts';
import { labelList, parseLabels } from '../units.ts';

const create: Command = {
  name: 'create',
  aliases: ['c'],
  usage: 'make a namespace; others are made when they are first used',
  argsUsage: '<name> [<key>=<value>, ...]',
  example: 'ctr namespaces create build owner=ci',
  run: withClient(async (client, invocation) => {
    const name = invocation.argument(0, 'namespace');
    await client.namespaces.create(name, parseLabels(invocation.args.slice(1)));
  }),
};

const label: Command = {
  name: 'label',
  usage: 'set labels of a namespace; an empty value clears one',
  argsUsage: '<name> [<key>=<value>, ...]',
  example: 'ctr namespaces label build owner=',
  run: withClient(async (client, invocation) => {
    const name = invocation.argument(0, 'namespace');
    const labels = parseLabels(invocation.args.slice(1));
    if (Object.keys(labels).length === 0) throw new Error('please specify a namespace and labels');
    await client.namespaces.setLabels(name, labels);
  }),
};

const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the namespaces',
  example: 'ctr namespaces ls',
  flags: [{ name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the names only' }],
  run: withClient(async (client, invocation) => {
    const namespaces = await client.namespaces.list();
    if (invocation.bool('quiet')) return printLines(namespaces.map(({ name }) => name));
    printTable(
      [['NAME', 'LABELS', ''], ...namespaces.map(({ name, labels }) => [name, labelList(labels, ''), ''])],
      narrow,
    );
  }),
};

const remove: Command = {
  name: 'remove',
  aliases: ['rm'],
  usage: 'delete namespaces, which must be empty',
  argsUsage: '[flags] <name> [<name>, ...]',
  example: 'ctr namespaces rm build',
  flags: [{ name: 'cgroup', aliases: ['c'], kind: 'bool', usage: "delete the namespace's cgroup as well" }],
  run: withClient(async (client, invocation) => {
    invocation.argument(0, 'namespace');
    const cgroup = invocation.bool('cgroup');
    const removeCgroup = cgroup ? (await import('../remove-cgroup.ts')).removeCgroup : undefined;
    return forEachName(
      invocation.args,
      async (name) => {
        try {
          await client.namespaces.delete(name);
        } catch (reason) {
          // One that is gone is what was asked for.
          if (!hasCode(reason, Code.NotFound)) throw reason;
        }
        await removeCgroup?.(name);
        print(`${name}\n`);
      },
      (name, error) => `unable to delete ${name}: ${error.message}`,
    );
  }),
};

export const namespaces: Command = {
  name: 'namespaces',
  aliases: ['namespace', 'ns'],
  usage: 'manage namespaces',
  example: 'ctr namespaces ls',
  commands: [create, list, remove, label],
};
