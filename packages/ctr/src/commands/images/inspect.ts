import { type Client, Code, type Descriptor, hasCode } from '@gantry/client';
import { childrenOf, formatPlatform, isIndexType, isKnownConfig, isManifestType, parseJson } from '@gantry/oci';
import { type Command, UsageError } from '../../command.ts';
import { goJson, print } from '../../output.ts';
import { withClient } from '../../session.ts';
import { goTime } from '../events.ts';

const isDocument = (type: string): boolean => isIndexType(type) || isManifestType(type) || isKnownConfig(type);

function box(title: string, lines: readonly string[], prefix: string): string[] {
  return [
    `${prefix}┌────────${title}${'─'.repeat(15 - title.length)}`,
    ...lines.map((line) => `${prefix}│${line}`),
    `${prefix}└───────────────────────`,
  ];
}

/** The lines of a descriptor and of all beneath it. */
async function tree(
  client: Client,
  descriptor: Descriptor,
  last: boolean,
  prefix: string,
  content: boolean,
): Promise<string[]> {
  const platform = descriptor.platform ? `${formatPlatform(descriptor.platform)}, ` : '';
  const { mediaType, digest, size } = descriptor;
  const lines = [`${prefix}${last ? '└──' : '├──'} ${mediaType} @${digest} (${platform}${size} bytes)`];
  const inner = `${prefix}${last ? '    ' : '│   '}`;
  if (!isDocument(mediaType)) return lines;
  let bytes: Uint8Array;
  try {
    bytes = await client.content.readAll(digest);
  } catch (reason) {
    if (!hasCode(reason, Code.NotFound)) throw reason;
    return lines;
  }
  const children = childrenOf(descriptor, bytes);
  if (content) {
    const boxes = children.length > 0 ? `${inner}│   ` : inner;
    const { labels } = await client.content.info(digest);
    const pairs = Object.entries(labels).sort();
    if (pairs.length > 0)
      lines.push(
        ...box(
          'Labels',
          pairs.map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`),
          boxes,
        ),
      );
    lines.push(...box('Content', goJson(parseJson(bytes), 3).split('\n'), boxes));
  }
  for (const [index, child] of children.entries())
    lines.push(...(await tree(client, child, index === children.length - 1, inner, content)));
  return lines;
}

export const inspect: Command = {
  name: 'inspect',
  aliases: ['i'],
  usage: 'print what an image is made of',
  argsUsage: '<image> [flags]',
  example: 'ctr images inspect --content docker.io/library/busybox:latest',
  flags: [{ name: 'content', kind: 'bool', usage: 'with manifests, configs and labels' }],
  run: withClient(async (client, invocation) => {
    const reference = invocation.args[0];
    if (!reference) throw new UsageError('please provide an image reference to inspect');
    const image = await client.images.get(reference);
    const lines = [image.name, `│    Created: ${goTime(image.createdAt)}`, `│    Updated: ${goTime(image.updatedAt)}`];
    for (const [key, value] of Object.entries(image.labels).sort())
      lines.push(`│    Label: ${JSON.stringify(key)}: ${JSON.stringify(value)}`);
    lines.push(...(await tree(client, image.target, true, '', invocation.bool('content'))));
    print(`${lines.join('\n')}\n`);
  }),
};
