// Images to and from archives: by the daemon, or with --local by this program itself.
import { createWriteStream, existsSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Client, TransferProgress } from '@gantry/client';
import { allPlatforms, anyOfPlatforms, defaultPlatform, orderedPlatforms, strictPlatform } from '@gantry/oci';
import { type Command, type Invocation, UsageError } from '../../command.ts';
import { resolveImage } from '../../image-content.ts';
import { labelFlag, localFlag, platformFlags, selectionOf } from '../../image-flags.ts';
import { print, written } from '../../output.ts';
import { withProgress } from '../../progress.ts';
import { requireLocal } from '../../registry-options.ts';
import { snapshotterFlags } from '../../run/spec-flags.ts';
import { withClient } from '../../session.ts';
import { snapshotterOf, unpackImage } from '../../unpack.ts';

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
    {
      name: 'discard-unpacked-layers',
      kind: 'bool',
      usage: 'let the collector take layers that were unpacked, with --local',
    },
    { name: 'sync-fs', kind: 'bool', usage: 'sync what was unpacked, with --local' },
    ...snapshotterFlags,
    labelFlag,
  ],
  run: withClient(async (client, invocation) => {
    const file = invocation.argument(0, 'archive');
    // Opened here, so that a file that is not there is told before anything is begun.
    const opened = file === '-' ? undefined : await open(file);
    const input = opened?.createReadStream({ highWaterMark: 1 << 20 }) ?? process.stdin;
    const size = (await opened?.stat())?.size ?? 0;
    if (invocation.bool('local')) return importLocally(client, invocation, input);
    requireLocal(invocation, ['discard-unpacked-layers']);
    const prefix = invocation.string('base-name');
    const snapshotter = invocation.string('snapshotter');
    const { platforms, labels } = selectionOf(invocation);
    const title = file === '-' ? 'import' : file;
    await withProgress(title, (onProgress) =>
      client.transfer.import(counted(input, { event: 'reading', name: title, total: size }, onProgress), {
        platforms,
        labels,
        // Without one, the names in the archive are taken as they are.
        ...(prefix ? { prefix } : {}),
        digests: invocation.bool('digests'),
        skipDigestForNamed: invocation.bool('skip-digest-for-named'),
        indexName: invocation.string('index-name'),
        compress: invocation.bool('compress-blobs'),
        unpack: !invocation.bool('no-unpack'),
        ...(snapshotter ? { snapshotter } : {}),
        onProgress,
      }),
    );
  }),
};

async function importLocally(client: Client, invocation: Invocation, input: AsyncIterable<Uint8Array>): Promise<void> {
  const discard = invocation.bool('discard-unpacked-layers');
  const unpack = !invocation.bool('no-unpack');
  if (discard && !unpack) throw new UsageError('--discard-unpacked-layers and --no-unpack are incompatible options');
  if (invocation.bool('skip-digest-for-named') && !invocation.bool('digests'))
    throw new UsageError('--skip-digest-for-named must be specified with --digests option');
  const { importArchive, discardLayers } = await import('../../local/import-archive.ts');
  const { platforms, labels } = selectionOf(invocation);
  const base = invocation.string('base-name');
  const wanted = invocation.isSet('platform') ? anyOfPlatforms(...platforms) : strictPlatform(defaultPlatform());
  await using lease = await client.leases.create({ expireAfter: 24 * 3600 });
  const held = client.withLease(lease);
  const images = await importArchive(held, input, {
    platforms: invocation.bool('all-platforms') ? allPlatforms : wanted,
    base: base || `import-${new Date().toISOString().slice(0, 10)}`,
    filter: base !== '',
    digests: invocation.bool('digests'),
    skipDigestForNamed: invocation.bool('skip-digest-for-named'),
    indexName: invocation.string('index-name'),
    labels,
    compress: invocation.bool('compress-blobs'),
  });
  if (!unpack) return;
  const snapshotter = await snapshotterOf(held, invocation);
  for (const image of images) {
    print(`unpacking ${image.name} (${image.target.digest})...`);
    const resolved = await resolveImage(held, image, wanted);
    await unpackImage(held, resolved, snapshotter, { syncFs: invocation.bool('sync-fs') });
    if (discard) await discardLayers(held, resolved.descriptor);
    print('done\n');
  }
}

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
    const bytes = (onProgress?: (progress: TransferProgress) => void) =>
      invocation.bool('local')
        ? exportLocally(client, invocation, names)
        : client.transfer.export(names, {
            platforms: selectionOf(invocation).platforms,
            allPlatforms: invocation.bool('all-platforms'),
            skipDockerManifest: invocation.bool('skip-manifest-json'),
            skipNonDistributable: invocation.bool('skip-non-distributable'),
            ...(onProgress && { onProgress }),
          });
    if (file === '-') {
      for await (const piece of bytes()) await written(piece);
      return;
    }
    const save = (onProgress?: (progress: TransferProgress) => void) =>
      pipeline(
        Readable.from(counted(bytes(onProgress), { event: 'writing', name: file, total: 0 }, onProgress), {
          objectMode: false,
        }),
        createWriteStream(file),
      );
    const existed = existsSync(file);
    try {
      await (process.stdout.isTTY ? withProgress(file, save) : save());
    } catch (reason) {
      // Half an archive is of no use; what was there before, or is no file, is not ours to remove.
      if (!existed) await rm(file, { force: true });
      throw reason;
    }
  }),
};

/** Tells of an archive's bytes as they come, whatever else the daemon tells. */
async function* counted(
  bytes: AsyncIterable<Uint8Array>,
  { event, name, total }: Pick<TransferProgress, 'event' | 'name' | 'total'>,
  onProgress?: (progress: TransferProgress) => void,
): AsyncGenerator<Uint8Array> {
  let progress = 0;
  const tell = (now: string) =>
    onProgress?.({ event: now, name, parents: [name], progress, total, descriptor: undefined });
  for await (const piece of bytes) {
    progress += piece.byteLength;
    tell(event);
    yield piece;
  }
  tell('done');
}

/** The archive as a stream; what breaks the work breaks the stream. */
async function* exportLocally(
  client: Client,
  invocation: Invocation,
  names: readonly string[],
): AsyncGenerator<Uint8Array> {
  const { exportArchive } = await import('../../local/export-archive.ts');
  const { platforms } = selectionOf(invocation);
  const chosen = platforms.length > 0 ? platforms : [defaultPlatform()];
  const pipe = new TransformStream<Uint8Array, Uint8Array>();
  const writer = pipe.writable.getWriter();
  const work = exportArchive(
    client,
    names,
    {
      platform: orderedPlatforms(...chosen),
      allPlatforms: invocation.bool('all-platforms'),
      skipDockerManifest: invocation.bool('skip-manifest-json'),
      skipNonDistributable: invocation.bool('skip-non-distributable'),
    },
    (bytes) => writer.write(bytes),
  ).then(
    () => writer.close(),
    (reason) => writer.abort(reason),
  );
  yield* pipe.readable;
  await work;
}
