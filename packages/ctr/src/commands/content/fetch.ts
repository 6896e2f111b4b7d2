// Fetching content without unpacking it, by the daemon's transfer service.
import { type Command, type Flag, UsageError } from '../../command.ts';
import { notYet } from '../../not-yet.ts';
import { withProgress } from '../../progress.ts';
import { registryFlags, registryOptions } from '../../registry-options.ts';
import { withClient } from '../../session.ts';
import { selectionOf } from '../images/transfer.ts';

export const fetch: Command = {
  name: 'fetch',
  usage: 'fetch an image from a registry without unpacking it',
  argsUsage: '[flags] <remote> <object>',
  description: 'Manifests, configs and layers are fetched and held by the image of that name; nothing is unpacked.',
  example: 'ctr content fetch docker.io/library/busybox:latest',
  flags: [
    ...registryFlags,
    { name: 'label', kind: 'strings', usage: 'labels of the image: key=value' },
    { name: 'platform', kind: 'strings', usage: 'for this platform: linux/arm64' },
    { name: 'all-platforms', kind: 'bool', usage: 'for all platforms' },
    { name: 'skip-metadata', kind: 'bool', usage: 'leave out the manifests of other platforms' },
    { name: 'metadata-only', kind: 'bool', usage: 'fetch no layers' },
  ],
  run: withClient(async (client, invocation) => {
    const [reference] = invocation.args;
    if (!reference) throw new UsageError('please provide an image reference to fetch');
    if (invocation.bool('metadata-only')) throw notYet('--metadata-only');
    const options = await registryOptions(invocation);
    const { platforms = [], labels = {} } = selectionOf(invocation);
    await withProgress(reference, (onProgress) =>
      client.transfer.pull(reference, {
        ...options,
        platforms,
        labels,
        unpack: false,
        allMetadata: platforms.length === 0 || !invocation.bool('skip-metadata'),
        onProgress,
      }),
    );
  }),
};

const direct = (
  name: string,
  usage: string,
  argsUsage: string,
  example: string,
  flags: readonly Flag[] = [],
): Command => ({
  name,
  usage,
  argsUsage,
  example,
  flags: [...registryFlags, ...flags],
  run: async () => {
    throw notYet(`ctr content ${name}: the daemon talks to registries, and moves whole images`);
  },
});

export const fetchObject = direct(
  'fetch-object',
  'fetch single objects from a registry',
  '[flags] <remote> <object> [<hint>, ...]',
  'ctr content fetch-object docker.io/library/busybox:latest sha256:0000',
);

export const fetchBlob = direct(
  'fetch-blob',
  'fetch blobs from a registry by digest',
  '[flags] <remote> [<digest>, ...]',
  'ctr content fetch-blob docker.io/library/busybox:latest sha256:0000',
  [{ name: 'media-type', kind: 'string', usage: 'their media type' }],
);

export const pushObject = direct(
  'push-object',
  'send a single object to a registry',
  '[flags] <remote> <object> <type>',
  'ctr content push-object registry.example.com/app:1 sha256:0000 application/vnd.oci.image.manifest.v1+json',
);
