import { parseReference } from '@gantry/oci';
import type { Command } from '../../command.ts';
import { localFlag } from '../../image-flags.ts';
import { print } from '../../output.ts';
import { withClient } from '../../session.ts';

export const tag: Command = {
  name: 'tag',
  usage: 'give an image further names',
  argsUsage: '[flags] <source_ref> <target_ref> [<target_ref>, ...]',
  example: 'ctr images tag docker.io/library/busybox:latest example.com/busybox:1',
  flags: [
    { name: 'force', kind: 'bool', usage: 'take the name from the image that has it' },
    localFlag,
    { name: 'skip-reference-check', kind: 'bool', usage: 'let names be anything' },
  ],
  run: withClient(async (client, invocation) => {
    const source = invocation.argument(0, 'source reference');
    invocation.argument(1, 'target reference');
    const force = invocation.bool('force');
    for (const target of invocation.args.slice(1)) {
      if (!invocation.bool('skip-reference-check')) parseReference(target);
      if (invocation.bool('local')) await client.images.tag(source, target, { force });
      else await client.transfer.tag(source, target, { force });
      print(`${target}\n`);
    }
  }),
};
