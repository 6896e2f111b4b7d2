import { writeFileSync } from 'node:fs';
import { type Command, UsageError } from '../command.ts';
import { goJson, print } from '../output.ts';
import { createContainer, removeContainer } from '../run/create-container.ts';
import { runTask } from '../run/run-task.ts';
import { containerFlags, runFlags } from '../run/spec-flags.ts';
import { withClient } from '../session.ts';

export const run: Command = {
  name: 'run',
  usage: 'run a container',
  argsUsage: '[flags] Image|RootFS ID [COMMAND] [ARG...]',
  example: 'ctr run --rm -t docker.io/library/busybox:latest hello sh',
  flags: [...runFlags, ...containerFlags],
  run: withClient(async (client, invocation) => {
    const remove = invocation.bool('rm');
    const detach = invocation.bool('detach');
    if (remove && detach) throw new UsageError('flags --detach and --rm cannot be specified together');
    const { container, spec } = await createContainer(client, invocation);
    try {
      const dump = invocation.string('dump-config');
      if (dump === '-') {
        print(`${goJson(spec, 2)}\n`);
        await removeContainer(client, container);
        return 0;
      }
      if (dump) writeFileSync(dump, goJson(spec, 2));
      const network = invocation.bool('cni')
        ? await (await import('../run/cni.ts')).CniNetwork.load(client.namespace, container.id)
        : undefined;
      const code = await runTask(client, invocation, container, spec.process?.terminal ?? false, network);
      if (remove) await removeContainer(client, container);
      return code;
    } catch (reason) {
      if (remove) await removeContainer(client, container).catch(() => undefined);
      throw reason;
    }
  }),
};
