import { daemonVersion } from '@gantry/client/daemon-version.ts';
import type { Command } from '../command.ts';
import { socketOf } from '../session.ts';
import { clientVersion } from '../version.ts';

export const version: Command = {
  name: 'version',
  usage: 'print the versions of client and daemon',
  example: 'ctr version',
  async run(invocation) {
    const { version, revision, node } = clientVersion;
    process.stdout.write(`Client:\n  Version:  ${version}\n  Revision: ${revision}\n  Node version: ${node}\n\n`);
    const server = await daemonVersion(socketOf(invocation), invocation.number('connect-timeout') || undefined);
    process.stdout.write(`Server:\n  Version:  ${server.version}\n  Revision: ${server.revision}\n`);
    if (server.uuid) process.stdout.write(`  UUID: ${server.uuid}\n`);
  },
};
