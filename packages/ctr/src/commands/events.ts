import { plainAny, type Time } from '@gantry/client';
import type { Command } from '../command.ts';
import { goJson, print } from '../output.ts';
import { withClient } from '../session.ts';

/** As Go prints a moment: `2026-11-23 17:23:03.890120883 +0000 UTC`. */
export function goTime(time: Time | undefined): string {
  if (!time) return '0001-01-01 00:00:00 +0000 UTC';
  const base = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19).replace('T', ' ');
  const fraction = time.nanos === 0 ? '' : `.${String(time.nanos).padStart(9, '0').replace(/0+$/, '')}`;
  return `${base}${fraction} +0000 UTC`;
}

export const events: Command = {
  name: 'events',
  usage: 'show what happens, as it happens',
  argsUsage: '[<filter>, ...]',
  description:
    'Prints a line for each event: its time, namespace, topic and content. Filters choose; one that fits is enough.',
  example: `ctr events 'topic~="/tasks/.*"'`,
  run: withClient(async (client, invocation) => {
    for await (const event of client.events.subscribe([...invocation.args])) {
      const content = event.event && plainAny(event.event);
      const words = [goTime(event.timestamp), event.namespace, event.topic];
      print(`${words.join(' ')}${content === undefined ? '' : ` ${goJson(content)}`}\n`);
    }
  }),
};
