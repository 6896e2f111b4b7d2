// Pulling: by the daemon, or with --local by this program itself.
import type { Client, Image } from '@gantry/client';
import {
  allPlatforms,
  anyOfPlatforms,
  defaultPlatform,
  formatPlatform,
  parsePlatform,
  parseReference,
} from '@gantry/oci';
import { type Command, type Invocation, UsageError } from '../../command.ts';
import { imagePlatforms, platformMatcher, resolveImage } from '../../image-content.ts';
import { labelFlag, localFlag, platformFlags, selectionOf } from '../../image-flags.ts';
import { print } from '../../output.ts';
import { withProgress } from '../../progress.ts';
import { registryFlags, registryOptions, requireLocal } from '../../registry-options.ts';
import { snapshotterFlags } from '../../run/spec-flags.ts';
import { withClient } from '../../session.ts';
import { imageChainId, snapshotterOf, unpackImage } from '../../unpack.ts';

export const pull: Command = {
  name: 'pull',
  usage: 'fetch an image from a registry and unpack it',
  argsUsage: '[flags] <ref>',
  description:
    'The image is fetched, unpacked into snapshots and given its reference as its name; then `ctr run` takes that name.\n' +
    'With --local this program talks to the registry, with certificates and hosts files of its own, and the daemon only stores.',
  example: 'ctr images pull docker.io/library/busybox:latest',
  flags: [
    ...registryFlags,
    ...snapshotterFlags,
    labelFlag,
    ...platformFlags,
    { name: 'skip-metadata', kind: 'bool', usage: 'leave out the manifests of other platforms' },
    { name: 'print-chainid', kind: 'bool', usage: 'print the name of the snapshot with all layers' },
    { name: 'max-concurrent-downloads', kind: 'int', usage: 'downloads at a time, with --local', default: 0 },
    localFlag,
    { name: 'sync-fs', kind: 'bool', usage: 'sync what was unpacked, with --local' },
  ],
  run: withClient(async (client, invocation) => {
    const reference = invocation.args[0];
    if (!reference) throw new UsageError('please provide an image reference to pull');
    parseReference(reference);
    if (invocation.bool('local')) return pullLocally(client, invocation, reference);
    requireLocal(invocation, ['max-concurrent-downloads']);
    if (invocation.isSet('platform') && invocation.bool('all-platforms'))
      throw new UsageError('cannot specify both --platform and --all-platforms');
    const options = await registryOptions(invocation);
    const { platforms, labels } = selectionOf(invocation);
    const snapshotter = invocation.string('snapshotter');
    await withProgress(reference, (onProgress) =>
      client.transfer.pull(reference, {
        ...options,
        labels,
        platforms,
        // What is fetched for all platforms is unpacked for this one.
        unpack: true,
        allMetadata: platforms.length === 0 || !invocation.bool('skip-metadata'),
        ...(snapshotter ? { snapshotter } : {}),
        onProgress,
      }),
    );
    if (invocation.bool('print-chainid')) {
      const image = await client.images.get(reference);
      const resolved = await resolveImage(client, image, platformMatcher(invocation.strings('platform')[0]));
      print(`image chain ID: ${imageChainId(resolved)}\n`);
    }
  }),
};

async function pullLocally(client: Client, invocation: Invocation, reference: string): Promise<void> {
  await using lease = await client.leases.create({ expireAfter: 24 * 3600 });
  const held = client.withLease(lease);
  const image = await fetchLocally(held, invocation, reference);
  const named = invocation.bool('all-platforms')
    ? await imagePlatforms(held, image.target)
    : invocation.strings('platform').map((text) => formatPlatform(parsePlatform(text)));
  const snapshotter = await snapshotterOf(held, invocation);
  const started = performance.now();
  for (const platform of named.length > 0 ? named : [formatPlatform(defaultPlatform())]) {
    print(`unpacking ${platform} ${image.target.digest}...\n`);
    const resolved = await resolveImage(held, image, platformMatcher(platform));
    await unpackImage(held, resolved, snapshotter, { syncFs: invocation.bool('sync-fs') });
    if (invocation.bool('print-chainid')) print(`image chain ID: ${imageChainId(resolved)}\n`);
  }
  print(`done: ${((performance.now() - started) / 1000).toFixed(3)}s\n`);
}

/** Fetches what the flags choose, under the lease that the client holds. */
export async function fetchLocally(held: Client, invocation: Invocation, reference: string): Promise<Image> {
  const { openRegistry } = await import('../../local/open-registry.ts');
  const { fetchImage } = await import('../../local/fetch-image.ts');
  const { platforms, labels } = selectionOf(invocation);
  const metadataOnly = invocation.bool('metadata-only');
  const everything = invocation.bool('all-platforms') ? allPlatforms : anyOfPlatforms(...platforms);
  await using registry = await openRegistry(invocation);
  return withProgress(reference, (onProgress) =>
    fetchImage(held, registry, reference, {
      platforms: everything,
      metadataOnly,
      allMetadata: metadataOnly || !invocation.bool('skip-metadata'),
      concurrency: invocation.number('max-concurrent-downloads'),
      labels,
      onProgress,
    }),
  );
}
