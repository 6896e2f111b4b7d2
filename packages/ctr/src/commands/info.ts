import type { Command } from '../command.ts';
import { printJson } from '../output.ts';
import { withClient } from '../session.ts';

export const info: Command = {
  name: 'info',
  usage: 'print what the daemon tells about itself',
  example: 'ctr info',
  run: withClient(async (client) => {
    const { uuid, pid, pidNamespace, deprecations } = await client.introspection.server();
    printJson({
      server: {
        ...(uuid ? { uuid } : {}),
        ...(pid ? { pid } : {}),
        ...(pidNamespace ? { pidns: Number(pidNamespace) } : {}),
        ...(deprecations.length > 0
          ? {
              deprecations: deprecations.map(({ id, message, lastOccurrence }) => ({
                id,
                message,
                ...(lastOccurrence
                  ? { last_occurrence: { seconds: Number(lastOccurrence.seconds), nanos: lastOccurrence.nanos } }
                  : {}),
              })),
            }
          : {}),
      },
    });
  }),
};
