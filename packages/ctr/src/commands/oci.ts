import { defaultSpec, parsePlatform } from '@gantry/oci';
import type { Command } from '../command.ts';
import { printJson } from '../output.ts';

const spec: Command = {
  name: 'spec',
  usage: 'print the spec that containers start from',
  example: 'ctr oci spec',
  flags: [{ name: 'platform', kind: 'string', usage: 'of this platform' }],
  async run(invocation) {
    const platform = invocation.string('platform');
    if (platform && parsePlatform(platform).os !== 'linux')
      throw new Error(`there is no default spec for ${platform}: only Linux containers are made here`);
    const made = defaultSpec(invocation.string('namespace'), '');
    // The devices that every container has are given by the clients beside it.
    if (made.linux?.resources) made.linux.resources.devices = made.linux.resources.devices!.slice(0, 1);
    if (made.linux) made.linux.cgroupsPath = `/${invocation.string('namespace')}`;
    printJson(made);
  },
};

export const oci: Command = {
  name: 'oci',
  usage: 'look at what the OCI specifications describe',
  example: 'ctr oci spec',
  commands: [spec],
};
