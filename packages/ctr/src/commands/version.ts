import { Code, hasCode } from '@gantry/client';
import type { Command } from '../command.ts';
import { print } from '../output.ts';
import { connect } from '../session.ts';
import { clientVersion } from '../version.ts';

export const version: Command = {
  name: 'version',
  usage: 'print the versions of client and daemon',
  example: 'ctr version',
  async run(invocation) {
    const { version, revision, node } = clientVersion;
    print(`Client:\n  Version:  ${version}\n  Revision: ${revision}\n  Node version: ${node}\n\n`);
    await using client = await connect(invocation);
    const [server, info] = await Promise.all([
      client.version(),
      client.introspection.server().catch((reason: unknown) => {
        if (hasCode(reason, Code.Unimplemented)) return undefined;
        throw reason;
      }),
    ]);
    print(`Server:\n  Version:  ${server.version}\n  Revision: ${server.revision}\n`);
    if (info) print(`  UUID: ${info.uuid}\n`);
    return 0;
  },
};
