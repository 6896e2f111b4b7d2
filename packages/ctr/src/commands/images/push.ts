// Pushing: by the daemon, or with --local by this program itself.
import type { Client, Descriptor } from '@gantry/client';
import { childrenOf, isIndexType, parseDigest, parsePlatform, strictPlatform } from '@gantry/oci';
import { type Command, type Invocation, UsageError } from '../../command.ts';
import { localFlag } from '../../image-flags.ts';
import { withProgress } from '../../progress.ts';
import { registryFlags, registryOptions, requireLocal } from '../../registry-options.ts';
import { withClient } from '../../session.ts';

/** What the daemon cannot be told. */
const ownFlags = ['manifest', 'manifest-type', 'max-concurrent-uploaded-layers', 'allow-non-distributable-blobs'];

export const push: Command = {
  name: 'push',
  usage: 'send an image to a registry',
  argsUsage: '[flags] <remote> [<local>]',
  description:
    'With --local this program talks to the registry; then --manifest sends any manifest of the content store, with what it refers to.',
  example: 'ctr images push registry.example.com/app:1 app:1',
  flags: [
    ...registryFlags,
    { name: 'manifest', kind: 'string', usage: 'digest of the manifest, with --local' },
    {
      name: 'manifest-type',
      kind: 'string',
      usage: 'media type of the manifest, with --local',
      default: 'application/vnd.oci.image.manifest.v1+json',
    },
    { name: 'platform', kind: 'strings', usage: 'send the image for this platform only' },
    { name: 'max-concurrent-uploaded-layers', kind: 'int', usage: 'uploads at a time, with --local', default: 0 },
    localFlag,
    {
      name: 'allow-non-distributable-blobs',
      kind: 'bool',
      usage: 'send layers that may not be passed on as well, with --local',
    },
  ],
  run: withClient(async (client, invocation) => {
    const remote = invocation.args[0];
    if (!remote) throw new UsageError('please provide a remote image reference to push');
    if (invocation.bool('local')) return pushLocally(client, invocation, remote);
    requireLocal(invocation, ownFlags);
    const options = await registryOptions(invocation);
    await withProgress(remote, (onProgress) =>
      client.transfer.push(remote, {
        ...options,
        name: invocation.args[1] ?? remote,
        platforms: invocation.strings('platform').map(parsePlatform),
        onProgress,
      }),
    );
  }),
};

async function pushLocally(client: Client, invocation: Invocation, remote: string): Promise<void> {
  const root = await rootOf(client, invocation, remote);
  const { openRegistry } = await import('../../local/open-registry.ts');
  const { pushImage } = await import('../../local/push-image.ts');
  // Nothing is taken away while it is being sent.
  await using lease = await client.leases.create({ expireAfter: 24 * 3600 });
  await lease.add({ id: root.digest, type: 'content' });
  await using registry = await openRegistry(invocation);
  await withProgress(remote, (onProgress) =>
    pushImage(client.withLease(lease), registry, remote, root, {
      nonDistributable: invocation.bool('allow-non-distributable-blobs'),
      concurrency: invocation.number('max-concurrent-uploaded-layers'),
      onProgress,
    }),
  );
}

/** What is to be sent: the manifest named, or the image, or of the image the manifest for the platform named. */
async function rootOf(client: Client, invocation: Invocation, remote: string): Promise<Descriptor> {
  const digest = invocation.string('manifest');
  if (digest) {
    parseDigest(digest);
    const { size } = await client.content.info(digest);
    return { mediaType: invocation.string('manifest-type'), digest, size };
  }
  const { target } = await client.images.get(invocation.args[1] ?? remote);
  const [platform, more] = invocation.strings('platform');
  if (platform === undefined || more !== undefined || !isIndexType(target.mediaType)) return target;
  const matcher = strictPlatform(parsePlatform(platform));
  const children = childrenOf(target, await client.content.readAll(target.digest));
  return children.find((child) => child.platform && matcher.match(child.platform)) ?? target;
}
