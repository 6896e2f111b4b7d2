import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument, unimplemented } from '@gantry/api';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import { mountAll } from '@gantry/mount';
import type { CriImage } from '../images/cri-image.ts';

const title = 'org.opencontainers.image.title';

/**
 * Shows an artifact as files: each of its blobs under its title, or its digest without one. Nothing is copied: the store's own files are
 * mounted on empty ones, for reading. @throws InvalidArgument for titles that lead elsewhere, or to the same place
 */
export async function mountArtifact(
  ctx: RequestContext,
  content: ContentStore,
  { layers }: Pick<CriImage, 'layers'>,
  target: string,
): Promise<void> {
  const names = layers.map(({ annotations, digest }) => fileName(annotations?.[title] ?? digest.replace(':', '-')));
  for (const [index, layer] of layers.entries()) {
    const file = path.join(target, names[index]!);
    await using reader = await content.reader(ctx, layer.digest);
    if (reader.path === undefined) throw unimplemented('artifacts as volumes need a content store of local files');
    try {
      await mkdir(path.dirname(file), { recursive: true, mode: 0o755 });
      // What is made here is this daemon's alone: nobody has put a link into it.
      await writeFile(file, '', { flag: 'wx', mode: 0o444 });
    } catch (error) {
      throw invalidArgument(`artifact has more than one ${JSON.stringify(names[index])}: invalid argument`, error);
    }
    await mountAll([{ type: 'bind', source: reader.path, target: '', options: ['bind', 'ro'] }], file);
  }
}

function fileName(text: string): string {
  const normal = path.posix.normalize(text);
  if (
    path.posix.isAbsolute(normal) ||
    normal === '.' ||
    normal.startsWith('..') ||
    normal.endsWith('/') ||
    normal.includes('\0')
  )
    throw invalidArgument(`artifact with a file of the name ${JSON.stringify(text)}: invalid argument`);
  return normal;
}
