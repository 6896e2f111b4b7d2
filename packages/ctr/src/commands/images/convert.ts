// Other forms of an image: uncompressed, zstd, OCI instead of Docker.
import { convertImage, type LayerConverter, type TransferProgress, uncompressLayer, zstdLayer } from '@gantry/client';
import { anyOfPlatforms, defaultPlatform, parsePlatform, strictPlatform } from '@gantry/oci';
import { type Command, type Invocation, UsageError } from '../../command.ts';
import { print } from '../../output.ts';
import { withProgress } from '../../progress.ts';
import { withClient } from '../../session.ts';

/** @throws UsageError for flags that exclude each other */
async function layerConverter(invocation: Invocation): Promise<LayerConverter | undefined> {
  const asked = ['uncompress', 'zstd'].filter((flag) => invocation.bool(flag));
  if (invocation.isSet('erofs')) asked.push('erofs');
  if (asked.length > 1) throw new UsageError(`--${asked.join(' and --')} exclude each other: a layer has one form`);
  if (invocation.isSet('zstd-compression-level') && asked[0] !== 'zstd')
    throw new UsageError('--zstd-compression-level is of use with --zstd only');
  switch (asked[0]) {
    case 'uncompress':
      return uncompressLayer();
    case 'zstd':
      return zstdLayer(invocation.number('zstd-compression-level'));
    case 'erofs':
      return erofsConverter(invocation);
    default:
      return undefined;
  }
}

async function erofsConverter(invocation: Invocation): Promise<LayerConverter> {
  const packing = invocation.string('erofs');
  if (packing !== 'raw' && packing !== 'zstd')
    throw new UsageError(`unsupported erofs format "${packing}", supported: raw, zstd`);
  const { erofsLayer } = await import('../../erofs-layer.ts');
  return erofsLayer({
    packing,
    compressors: invocation.string('erofs-compressors'),
    mkfsOptions: invocation.string('erofs-mkfs-options').split(/\s+/).filter(Boolean),
  });
}

export const convert: Command = {
  name: 'convert',
  usage: 'make another form of an image',
  argsUsage: '[flags] <source_ref> <target_ref>',
  description:
    'The new image stands beside the old one, and its layers with it; the digest of the new one is printed. Of an index the\n' +
    'manifests for this platform stay, or those that --platform names; with --all-platforms all, and all must be there.\n' +
    'Docker has no manifests with zstd layers, so --zstd makes OCI ones as --oci does.\n' +
    'Images with EROFS layers are for the erofs snapshotter, and say so as a feature of their platform.',
  example: 'ctr images convert --oci example.com/app:1 example.com/app:1-oci',
  flags: [
    { name: 'uncompress', kind: 'bool', usage: 'take the compression off its layers' },
    { name: 'oci', kind: 'bool', usage: "use OCI's media types" },
    { name: 'zstd', kind: 'bool', usage: 'compress its layers with zstd' },
    { name: 'zstd-compression-level', kind: 'int', usage: 'from 1, the fastest, to 22, the smallest', default: 3 },
    { name: 'erofs', kind: 'string', usage: 'make EROFS layers, packed as raw or zstd' },
    { name: 'erofs-compressors', kind: 'string', usage: 'compressors within EROFS layers, as of mkfs.erofs -z' },
    { name: 'erofs-mkfs-options', kind: 'string', usage: 'further options of mkfs.erofs' },
    { name: 'platform', kind: 'strings', usage: 'for this platform' },
    { name: 'all-platforms', kind: 'bool', usage: 'for all platforms' },
  ],
  run: withClient(async (client, invocation) => {
    const [source, target] = invocation.args;
    if (!source || !target) throw new UsageError('src and target image need to be specified');
    const layer = await layerConverter(invocation);
    const named = invocation.strings('platform').map(parsePlatform);
    const platform = named.length > 0 ? anyOfPlatforms(...named) : strictPlatform(defaultPlatform());
    const work = (onProgress?: (progress: TransferProgress) => void) =>
      convertImage(client, source, target, {
        oci: invocation.bool('oci') || invocation.bool('zstd'),
        ...(layer && { layer }),
        ...(invocation.isSet('erofs') && { osFeature: 'erofs' }),
        ...(invocation.bool('all-platforms') ? {} : { platform }),
        ...(onProgress && { onProgress }),
      });
    // Programs read the digest from standard output; people also see how it goes.
    const { stderr } = process;
    const { target: made } = await (stderr.isTTY ? withProgress(target, work, stderr) : work());
    print(`${made.digest}\n`);
  }),
};
