import { type Client, Code, hasCode, type Image, StatusError } from '@gantry/client';
import type { Command } from '../../command.ts';
import { imagePlatforms, imageSize, manifestsOf, platformMatcher, resolveImage } from '../../image-content.ts';
import { log, print, printLines, printTable } from '../../output.ts';
import { snapshotterFlags } from '../../run/spec-flags.ts';
import { withClient } from '../../session.ts';
import { narrow } from '../../table.ts';
import { binarySize, labelList } from '../../units.ts';
import { hasSnapshot, imageChainId, snapshotterOf } from '../../unpack.ts';

const byName = (a: Image, b: Image): number => (a.name < b.name ? -1 : 1);

/** A value, or `-` with a word about what is missing. */
async function orDash(image: Image, what: string, find: () => Promise<string>): Promise<string> {
  try {
    return await find();
  } catch (reason) {
    log('error', `failed ${what}: ${(reason as Error).message}`, { image: image.name });
    return '-';
  }
}

export const list: Command = {
  name: 'list',
  aliases: ['ls'],
  usage: 'list the images',
  argsUsage: '[flags] [<filter>, ...]',
  example: "ctr images ls 'name~=busybox'",
  flags: [{ name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the names only' }],
  run: withClient(async (client, invocation) => {
    const found = await client.images.list([...invocation.args]).catch((reason) => {
      throw StatusError.wrap(reason, 'failed to list images');
    });
    const images = found.sort(byName);
    if (invocation.bool('quiet')) return printLines(images.map(({ name }) => name));
    const rows = await Promise.all(
      images.map(async (image) => [
        image.name,
        image.target.mediaType,
        image.target.digest,
        await orDash(image, 'calculating size', async () =>
          binarySize(await imageSize(client, image.target, platformMatcher())),
        ),
        await orDash(
          image,
          'resolving platform',
          async () => (await imagePlatforms(client, image.target)).join(',') || '-',
        ),
        labelList(image.labels),
        '',
      ]),
    );
    printTable([['REF', 'TYPE', 'DIGEST', 'SIZE', 'PLATFORMS', 'LABELS', ''], ...rows], narrow);
  }),
};

interface Completeness {
  status: string;
  size: string;
  complete: boolean;
}

async function present(client: Client, digest: string): Promise<boolean> {
  try {
    await client.content.info(digest);
    return true;
  } catch (reason) {
    if (hasCode(reason, Code.NotFound)) return false;
    throw reason;
  }
}

async function completeness(client: Client, image: Image): Promise<Completeness> {
  let best: Awaited<ReturnType<typeof manifestsOf>>[number] | undefined;
  try {
    [best] = await manifestsOf(client, image.target, platformMatcher());
  } catch (reason) {
    if (!hasCode(reason, Code.NotFound)) throw reason;
    return { status: 'unavailable (0/?)', size: '0.0 B/?', complete: false };
  }
  if (!best || !(await present(client, best.descriptor.digest)))
    return { status: 'unavailable (0/?)', size: '0.0 B/?', complete: false };
  const { manifest } = await resolveImage(client, image);
  const parts = [manifest.config, ...manifest.layers];
  const there = await Promise.all(parts.map(({ digest }) => present(client, digest)));
  const size = (wanted: boolean): number =>
    parts.reduce((sum, part, index) => sum + (!wanted || there[index] ? part.size : 0), 0);
  const count = there.filter(Boolean).length;
  const complete = count === parts.length;
  return {
    status: `${complete ? 'complete' : 'incomplete'} (${count}/${parts.length})`,
    size: `${binarySize(size(true))}/${binarySize(size(false))}`,
    complete,
  };
}

export const check: Command = {
  name: 'check',
  usage: 'tell whether images are complete and unpacked',
  argsUsage: '[flags] [<filter>, ...]',
  example: 'ctr images check',
  flags: [
    { name: 'quiet', aliases: ['q'], kind: 'bool', usage: 'print the names of complete images that are unpacked' },
    ...snapshotterFlags,
  ],
  run: withClient(async (client, invocation) => {
    const snapshotter = await snapshotterOf(client, invocation);
    const images = (await client.images.list([...invocation.args])).sort(byName);
    const rows: string[][] = [];
    for (const image of images) {
      const { status, size, complete } = await completeness(client, image);
      let unpacked = false;
      if (!status.startsWith('unavailable')) {
        try {
          unpacked = await hasSnapshot(client, snapshotter, imageChainId(await resolveImage(client, image)));
        } catch (reason) {
          if (!hasCode(reason, Code.NotFound)) throw reason;
        }
      }
      if (invocation.bool('quiet')) {
        if (complete && unpacked) print(`${image.name}\n`);
      } else rows.push([image.name, image.target.mediaType, image.target.digest, status, size, String(unpacked)]);
    }
    if (!invocation.bool('quiet'))
      printTable([['REF', 'TYPE', 'DIGEST', 'STATUS', 'SIZE', 'UNPACKED', ''], ...rows], narrow);
  }),
};
