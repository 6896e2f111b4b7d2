import { formatTime } from '@gantry/client';
import { type Command, UsageError } from '../command.ts';
import { printJson, printTable } from '../output.ts';
import { withClient } from '../session.ts';

const list: Command = {
  name: 'list',
  usage: 'list the old things that are in use, and since when they are not wanted',
  example: 'ctr deprecations list --format json',
  flags: [{ name: 'format', kind: 'string', usage: 'text or json', default: 'text' }],
  run: withClient(async (client, invocation) => {
    const format = invocation.string('format');
    if (format !== 'text' && format !== 'json') throw new UsageError(`unknown format ${format}`);
    const { deprecations } = await client.introspection.server();
    const rows = deprecations.map(({ id, message, lastOccurrence }) => ({
      id,
      message,
      lastOccurrence: lastOccurrence ? formatTime(lastOccurrence) : '',
    }));
    if (format === 'json') return printJson(rows);
    if (rows.length === 0) return;
    printTable([
      ['ID', 'LAST OCCURRENCE', 'MESSAGE', ''],
      ...rows.map(({ id, lastOccurrence, message }) => [id, lastOccurrence, message]),
    ]);
  }),
};

export const deprecations: Command = {
  name: 'deprecations',
  usage: 'see which old things are in use',
  example: 'ctr deprecations list',
  commands: [list],
};
