// Content straight from and to registries, by this program itself; nothing is unpacked.
import { type Descriptor, StatusError } from '@gantry/client';
import { hostOf, isDigest, parseDigest, parseReference, repositoryOf } from '@gantry/oci';
import type { RegistryClient } from '@gantry/registry';
import { type Command, type Invocation, UsageError } from '../../command.ts';
import { labelFlag, platformFlags } from '../../image-flags.ts';
import { print, written } from '../../output.ts';
import { registryFlags } from '../../registry-options.ts';
import { withClient } from '../../session.ts';
import { fetchLocally } from '../images/pull.ts';

export const fetch: Command = {
  name: 'fetch',
  usage: 'fetch an image from a registry without unpacking it',
  argsUsage: '[flags] <remote> <object>',
  description: 'Manifests, configs and layers are fetched and held by the image of that name; nothing is unpacked.',
  example: 'ctr content fetch docker.io/library/busybox:latest',
  flags: [
    ...registryFlags,
    labelFlag,
    ...platformFlags,
    { name: 'skip-metadata', kind: 'bool', usage: 'leave out the manifests of other platforms' },
    { name: 'metadata-only', kind: 'bool', usage: 'fetch no layers' },
  ],
  run: withClient(async (client, invocation) => {
    const [reference] = invocation.args;
    if (!reference) throw new UsageError('please provide an image reference to fetch');
    parseReference(reference);
    await using lease = await client.leases.create({ expireAfter: 24 * 3600 });
    await fetchLocally(client.withLease(lease), invocation, reference);
  }),
};

/** Runs a command's work with the registry that its flags describe; there is no daemon in it. */
function withRegistry(
  work: (registry: RegistryClient, invocation: Invocation) => Promise<void>,
): Command['run'] & object {
  return async (invocation) => {
    const { openRegistry } = await import('../../local/open-registry.ts');
    await using registry = await openRegistry(invocation);
    await work(registry, invocation);
  };
}

/** One object of a reference's repository, by its digest. */
function byDigest(remote: string, digest: string): string {
  const reference = parseReference(remote);
  parseDigest(digest);
  return `${hostOf(reference)}/${repositoryOf(reference)}@${digest}`;
}

/** To standard output, checked against the digest on the way; the last piece is held back until the check is done. */
async function printBlob(registry: RegistryClient, reference: string, descriptor: Descriptor): Promise<void> {
  const { createHash } = await import('node:crypto');
  const { algorithm, encoded } = parseDigest(descriptor.digest);
  const hash = createHash(algorithm);
  let last: Uint8Array | undefined;
  for await (const piece of registry.fetch(reference, descriptor)) {
    if (last) await written(last);
    hash.update(piece);
    last = piece;
  }
  const actual = `${algorithm}:${hash.digest('hex')}`;
  if (actual !== `${algorithm}:${encoded}`)
    throw new Error(
      `${reference}: what came has the digest ${actual} instead of ${descriptor.digest}; it is cut short here`,
    );
  if (last) await written(last);
}

export const fetchObject: Command = {
  name: 'fetch-object',
  usage: 'print what a reference, or a digest in its repository, stands for',
  argsUsage: '[flags] <remote> <object> [<hint>, ...]',
  description:
    'Without an object it is the manifest or index that the reference names. Nothing is stored; no daemon is needed.',
  example: 'ctr content fetch-object docker.io/library/busybox:latest',
  flags: registryFlags,
  run: withRegistry(async (registry, invocation) => {
    const remote = invocation.argument(0, 'reference');
    const object = invocation.args[1];
    const reference = object && isDigest(object) ? byDigest(remote, object) : remote;
    const { descriptor } = await registry.resolve(reference);
    await printBlob(registry, reference, descriptor);
  }),
};

export const fetchBlob: Command = {
  name: 'fetch-blob',
  usage: 'print blobs of a registry by their digests',
  argsUsage: '[flags] <remote> [<digest>, ...]',
  description: 'Nothing is stored; no daemon is needed.',
  example: 'ctr content fetch-blob docker.io/library/busybox:latest sha256:0000',
  flags: [...registryFlags, { name: 'media-type', kind: 'string', usage: 'their media type' }],
  run: withRegistry(async (registry, invocation) => {
    const [remote, ...digests] = invocation.args;
    if (!remote || digests.length === 0) throw new UsageError('must specify digests');
    for (const digest of digests) {
      const reference = byDigest(remote, digest);
      const { descriptor } = await registry.resolve(reference, undefined, { blob: true });
      const mediaType = invocation.string('media-type') || descriptor.mediaType;
      await printBlob(registry, reference, { ...descriptor, mediaType });
    }
  }),
};

export const pushObject: Command = {
  name: 'push-object',
  usage: 'send a single object of the content store to a registry',
  argsUsage: '[flags] <remote> <object> <type>',
  example: 'ctr content push-object registry.example.com/app:1 sha256:0000 application/vnd.oci.image.manifest.v1+json',
  flags: registryFlags,
  run: withClient(async (client, invocation) => {
    const remote = invocation.argument(0, 'reference');
    const digest = invocation.argument(1, 'object digest');
    const mediaType = invocation.argument(2, 'media type');
    parseDigest(digest);
    const { size } = await client.content.info(digest);
    const { openRegistry } = await import('../../local/open-registry.ts');
    await using registry = await openRegistry(invocation);
    try {
      await registry.push(remote, { mediaType, digest, size }, { open: () => client.content.read(digest) });
    } catch (reason) {
      throw StatusError.wrap(reason, `failed to push ${digest}`);
    }
    print(`Pushed ${digest} ${mediaType}\n`);
  }),
};
