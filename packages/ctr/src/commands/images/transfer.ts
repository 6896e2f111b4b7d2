// Images on the move: pull, push, import, export, tag. The daemon does the work.
import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ImageSelection } from '@gantry/client';
import { defaultPlatform, parsePlatform, parseReference } from '@gantry/oci';
import { type Command, type Flag, type Invocation, UsageError } from '../../command.ts';
import { platformMatcher, resolveImage } from '../../image-content.ts';
import { notYet } from '../../not-yet.ts';
import { print } from '../../output.ts';
import { withProgress } from '../../progress.ts';
import { registryFlags, registryOptions } from '../../registry-options.ts';
import { snapshotterFlags } from '../../run/spec-flags.ts';
import { withClient } from '../../session.ts';
import { parseLabels } from '../../units.ts';
import { imageChainId } from '../../unpack.ts';

const platformFlags: readonly Flag[] = [
  { name: 'platform', kind: 'strings', usage: 'for this platform: linux/arm64' },
  { name: 'all-platforms', kind: 'bool', usage: 'for all platforms' },
];
const labelFlag: Flag = { name: 'label', kind: 'strings', usage: 'labels of the image: key=value' };
const localFlag: Flag = { name: 'local', kind: 'bool', usage: 'do the work in this program' };

function refuseLocal(invocation: Invocation): void {
  if (invocation.bool('local')) throw notYet('--local: the daemon does the work');
}

/** Which parts the flags choose. No platforms at all mean every one. */
export function selectionOf(invocation: Invocation): Pick<ImageSelection, 'platforms' | 'labels'> {
  const named = invocation.strings('platform').map(parsePlatform);
  const labels = parseLabels(invocation.strings('label'));
  const platforms = named.length > 0 ? named : invocation.bool('all-platforms') ? [] : [defaultPlatform()];
  return { platforms, labels };
}

export const pull: Command = {
  name: 'pull',
  usage: 'fetch an image from a registry and unpack it',
  argsUsage: '[flags] <ref>',
  description:
    'The image is fetched, unpacked into snapshots and given its reference as its name; then `ctr run` takes that name.',
  example: 'ctr images pull docker.io/library/busybox:latest',
  flags: [
    ...registryFlags,
    ...snapshotterFlags,
    labelFlag,
    ...platformFlags,
    { name: 'skip-metadata', kind: 'bool', usage: 'leave out the manifests of other platforms' },
    { name: 'print-chainid', kind: 'bool', usage: 'print the name of the snapshot with all layers' },
    { name: 'max-concurrent-downloads', kind: 'int', usage: 'downloads at a time', default: 0 },
    localFlag,
    { name: 'sync-fs', kind: 'bool', usage: 'sync what was unpacked' },
  ],
  run: withClient(async (client, invocation) => {
    const reference = invocation.args[0];
    if (!reference) throw new UsageError('please provide an image reference to pull');
    parseReference(reference);
    refuseLocal(invocation);
    const options = await registryOptions(invocation);
    const { platforms = [], labels = {} } = selectionOf(invocation);
    const everything = platforms.length === 0;
    const snapshotter = invocation.string('snapshotter');
    await withProgress(reference, (onProgress) =>
      client.transfer.pull(reference, {
        ...options,
        labels,
        platforms,
        // What is fetched for all platforms is unpacked for this one.
        unpack: true,
        allMetadata: everything || !invocation.bool('skip-metadata'),
        ...(snapshotter ? { snapshotter } : {}),
        onProgress,
      }),
    );
    if (invocation.bool('print-chainid')) {
      const image = await client.images.get(reference);
      print(
        `image chain ID: ${imageChainId(await resolveImage(client, image, platformMatcher(invocation.strings('platform')[0])))}\n`,
      );
    }
  }),
};

export const push: Command = {
  name: 'push',
  usage: 'send an image to a registry',
  argsUsage: '[flags] <remote> [<local>]',
  example: 'ctr images push registry.example.com/app:1 app:1',
  flags: [
    ...registryFlags,
    { name: 'manifest', kind: 'string', usage: 'digest of the manifest' },
    {
      name: 'manifest-type',
      kind: 'string',
      usage: 'media type of the manifest',
      default: 'application/vnd.oci.image.manifest.v1+json',
    },
    { name: 'platform', kind: 'strings', usage: 'send the image for this platform only' },
    { name: 'max-concurrent-uploaded-layers', kind: 'int', usage: 'uploads at a time', default: 0 },
    localFlag,
    { name: 'allow-non-distributable-blobs', kind: 'bool', usage: 'send layers that may not be passed on as well' },
  ],
  run: withClient(async (client, invocation) => {
    const remote = invocation.args[0];
    if (!remote) throw new UsageError('please provide a remote image reference to push');
    refuseLocal(invocation);
    for (const flag of ['manifest', 'manifest-type', 'allow-non-distributable-blobs'])
      if (invocation.isSet(flag)) throw notYet(`--${flag}: tag the manifest and push that image`);
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

export const importImages: Command = {
  name: 'import',
  usage: 'take in the images of an archive',
  argsUsage: '[flags] <in>',
  description: 'Reads OCI layouts and what `docker save` writes, compressed or not; `-` reads standard input.',
  example: 'ctr images import --base-name example.com/app app.tar',
  flags: [
    { name: 'base-name', kind: 'string', usage: 'name of images that have only a tag' },
    { name: 'digests', kind: 'bool', usage: 'name images that have no name by their digest' },
    { name: 'skip-digest-for-named', kind: 'bool', usage: 'with --digests: not those that have a name' },
    { name: 'index-name', kind: 'string', usage: 'name of the index of all of them' },
    ...platformFlags,
    { name: 'no-unpack', kind: 'bool', usage: 'do not unpack' },
    localFlag,
    { name: 'compress-blobs', kind: 'bool', usage: 'compress layers that are not' },
    { name: 'discard-unpacked-layers', kind: 'bool', usage: 'drop layers that were unpacked' },
    { name: 'sync-fs', kind: 'bool', usage: 'sync what was unpacked' },
    ...snapshotterFlags,
    labelFlag,
  ],
  run: withClient(async (client, invocation) => {
    const file = invocation.argument(0, 'archive');
    refuseLocal(invocation);
    if (invocation.bool('discard-unpacked-layers')) throw notYet('--discard-unpacked-layers');
    const prefix = invocation.string('base-name');
    const snapshotter = invocation.string('snapshotter');
    const { platforms = [], labels = {} } = selectionOf(invocation);
    const input = file === '-' ? process.stdin : createReadStream(file);
    if (file !== '-') await stat(file);
    await withProgress(file === '-' ? 'import' : file, (onProgress) =>
      client.transfer.import(input, {
        platforms,
        labels,
        // Without one, the names in the archive are taken as they are.
        ...(prefix ? { prefix } : {}),
        digests: invocation.bool('digests'),
        indexName: invocation.string('index-name'),
        compress: invocation.bool('compress-blobs'),
        unpack: !invocation.bool('no-unpack'),
        ...(snapshotter ? { snapshotter } : {}),
        onProgress,
      }),
    );
  }),
};

export const exportImages: Command = {
  name: 'export',
  usage: 'write images into an archive',
  argsUsage: '[flags] <out> <image> ...',
  description: 'The archive is an OCI layout that `docker load` reads as well; `-` writes to standard output.',
  example: 'ctr images export app.tar docker.io/library/busybox:latest',
  flags: [
    { name: 'skip-manifest-json', kind: 'bool', usage: "leave out Docker's manifest.json" },
    { name: 'skip-non-distributable', kind: 'bool', usage: 'leave out layers that may not be passed on' },
    ...platformFlags,
    localFlag,
  ],
  run: withClient(async (client, invocation) => {
    const [file, ...names] = invocation.args;
    if (!file || names.length === 0)
      throw new UsageError('please provide both an output filename and an image reference to export');
    refuseLocal(invocation);
    const { platforms = [] } = selectionOf(invocation);
    const pieces = client.transfer.export(names, {
      platforms,
      allPlatforms: invocation.bool('all-platforms'),
      skipDockerManifest: invocation.bool('skip-manifest-json'),
      skipNonDistributable: invocation.bool('skip-non-distributable'),
    });
    if (file === '-') for await (const piece of pieces) await written(piece);
    else await pipeline(Readable.from(pieces, { objectMode: false }), createWriteStream(file));
  }),
};

/** Writes to standard output, as fast as it is read there. */
export async function written(bytes: Uint8Array): Promise<void> {
  if (!process.stdout.write(bytes)) await new Promise((resolve) => process.stdout.once('drain', resolve));
}

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
