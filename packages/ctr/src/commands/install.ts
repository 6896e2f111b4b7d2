import { type Command, UsageError } from '../command.ts';
import { platformMatcher, resolveImage } from '../image-content.ts';
import { withClient } from '../session.ts';

export const install: Command = {
  name: 'install',
  usage: 'install programs that come as an image',
  argsUsage: '<ref>',
  description:
    "Unpacks bin/ (and, with --libs, lib/) of the image's layers into the directory that the daemon has for it.",
  example: 'ctr install --libs docker.io/example/cni-plugins:latest',
  flags: [
    { name: 'libs', aliases: ['l'], kind: 'bool', usage: 'lib/ as well' },
    { name: 'replace', aliases: ['r'], kind: 'bool', usage: 'replace files that are there' },
    { name: 'path', kind: 'string', usage: "a directory other than the daemon's" },
  ],
  run: withClient(async (client, invocation) => {
    const reference = invocation.args[0];
    if (!reference) throw new UsageError('please provide an image reference to install');
    const resolved = await resolveImage(client, await client.images.get(reference), platformMatcher());
    const directory = invocation.string('path') || (await daemonDirectory());
    const { installLayers } = await import('../install-layers.ts');
    await installLayers(client, resolved.manifest.layers, {
      directory,
      libraries: invocation.bool('libs'),
      replace: invocation.bool('replace'),
    });

    async function daemonDirectory(): Promise<string> {
      const [plugin] = await client.introspection.plugins(['id==opt']);
      const found = plugin?.exports.path;
      if (!found) throw new Error('opt service not enabled');
      return found;
    }
  }),
};
