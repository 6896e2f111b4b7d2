// Image records: labels, deleting, and which are not used.
import { Code, hasCode } from '@gantry/client';
import type { Command } from '../../command.ts';
import { forEachName, log, print } from '../../output.ts';
import { withClient } from '../../session.ts';
import { labelList, parseLabels } from '../../units.ts';

export const label: Command = {
  name: 'label',
  usage: 'set labels of an image; an empty value clears one',
  argsUsage: '[flags] <name> [<key>=<value>, ...]',
  example: 'ctr images label docker.io/library/busybox:latest team=base',
  flags: [{ name: 'replace-all', aliases: ['r'], kind: 'bool', usage: 'take away all others' }],
  run: withClient(async (client, invocation) => {
    const name = invocation.args[0];
    if (!name) throw new Error('please specify an image');
    const labels = parseLabels(invocation.args.slice(1));
    const paths = invocation.bool('replace-all') ? ['labels'] : Object.keys(labels).map((key) => `labels.${key}`);
    const { target } = await client.images.get(name);
    const updated = await client.images.update({ name, target, labels }, paths.length > 0 ? paths : ['labels']);
    print(`${labelList(updated.labels, '')}\n`);
  }),
};

export const remove: Command = {
  name: 'delete',
  aliases: ['del', 'remove', 'rm'],
  usage: 'delete images by name',
  argsUsage: '[flags] <ref> [<ref>, ...]',
  example: 'ctr images rm docker.io/library/busybox:latest',
  flags: [{ name: 'sync', kind: 'bool', usage: 'wait until what they alone held is collected' }],
  run: withClient(async (client, invocation) =>
    forEachName(
      invocation.args,
      async (name) => {
        const sync = invocation.bool('sync') && name === invocation.args.at(-1);
        try {
          await client.images.delete(name, { sync });
          print(`${name}\n`);
        } catch (reason) {
          if (!hasCode(reason, Code.NotFound)) throw reason;
          log('warning', `${name}: image not found`);
        }
      },
      (name, error) => `unable to delete ${name}: ${error.message}`,
    ),
  ),
};

export const prune: Command = {
  name: 'prune',
  usage: 'delete images that no container uses',
  example: 'ctr images prune --all',
  flags: [{ name: 'all', kind: 'bool', usage: 'all of them; without it none' }],
  run: withClient(async (client, invocation) => {
    if (!invocation.bool('all')) {
      log('warning', 'No images pruned. `image prune` requires --all to be specified.');
      return;
    }
    const [images, containers] = await Promise.all([client.images.list(), client.containers.list()]);
    const used = new Set(containers.map(({ image }) => image));
    for (const { name } of images) {
      if (used.has(name)) continue;
      await client.images.delete(name);
      print(`deleted image: ${name}\n`);
    }
  }),
};
