import { formatTime } from '@gantry/client';
import type { Command } from '../command.ts';
import { forEachName, print, printLines, printTable } from '../output.ts';
import { withClient } from '../session.ts';
import { narrow } from '../table.ts';
import { labelList, parseLabels } from '../units.ts';

const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the leases of the namespace',
  argsUsage: '[flags] [<filter>, ...]',
  example: 'ctr leases ls',
  flags: [{ name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the ids only' }],
  run: withClient(async (client, invocation) => {
    const leases = await client.leases.list([...invocation.args]);
    if (invocation.bool('quiet')) return printLines(leases.map(({ id }) => id));
    printTable(
      [
        ['ID', 'CREATED AT', 'LABELS', ''],
        ...leases.map(({ id, labels, createdAt }) => [
          id,
          createdAt ? formatTime({ seconds: createdAt.seconds, nanos: 0 }) : '',
          labelList(labels),
          '',
        ]),
      ],
      narrow,
    );
  }),
};

const create: Command = {
  name: 'create',
  usage: 'make a lease: what is made under it is kept',
  argsUsage: '[flags] [<label>=<value> ...]',
  example: 'ctr leases create --id build --expires 1h',
  flags: [
    { name: 'id', kind: 'string', usage: 'its id; one is made up if there is none' },
    {
      name: 'expires',
      aliases: ['x'],
      kind: 'duration',
      usage: 'kept for this time; 0 means until deleted',
      default: '24h',
    },
  ],
  run: withClient(async (client, invocation) => {
    const expires = invocation.number('expires');
    const id = invocation.string('id');
    const lease = await client.leases.create({
      labels: parseLabels(invocation.args),
      ...(id ? { id } : {}),
      ...(expires > 0 ? { expireAfter: expires / 1000 } : {}),
    });
    print(`${lease.id}\n`);
  }),
};

const remove: Command = {
  name: 'delete',
  aliases: ['del', 'remove', 'rm'],
  usage: 'delete leases',
  argsUsage: '[flags] <id> ...',
  example: 'ctr leases rm build',
  flags: [{ name: 'sync', kind: 'bool', usage: 'wait until what it alone kept is collected' }],
  run: withClient(async (client, invocation) => {
    invocation.argument(0, 'lease id');
    return forEachName(
      invocation.args,
      async (id) => {
        await client.leases.delete(id, { sync: invocation.bool('sync') });
        print(`${id}\n`);
      },
      (_, error) => error.message,
    );
  }),
};

export const leases: Command = {
  name: 'leases',
  usage: 'manage what keeps things from the garbage collector',
  example: 'ctr leases ls',
  commands: [list, create, remove],
};
