/** Job `erofs-from-directory`: the upper directory of an overlay becomes an EROFS image that shows the same as a lower layer. */
import { type ByteString, closeFd, errnoError, Flags, openAt, statAt } from '@gantry/sys/fast-at.ts';
import type { JobContext } from '../job.ts';
import { listNames } from '../remove-tree.ts';
import { RootedDirectories, splitPath } from '../rooted-directories.ts';
import { type ErofsNode, isDirectory } from './erofs-node.ts';
import { type ImageFileParams, writeImageFile } from './image-file.ts';
import type { ImageSize, ImageWriter } from './image-writer.ts';
import { readNode } from './lower-layers.ts';

export interface ErofsFromDirectoryParams extends ImageFileParams {
  directory: string;
}

export async function erofsFromDirectory(params: ErofsFromDirectoryParams, context: JobContext): Promise<ImageSize> {
  return await writeImageFile({ ...params, blockBits: 12 }, async (image) => {
    const directories = new RootedDirectories(params.directory);
    try {
      return { root: readTree(directories, image, context), result: undefined };
    } finally {
      directories.close();
    }
  }).then(({ image }) => image);
}

function readTree(directories: RootedDirectories, image: ImageWriter, context: JobContext): ErofsNode {
  const links = new Map<string, ErofsNode>();
  const read = (path: ByteString): ErofsNode => {
    const [above, name] = splitPath(path);
    const directory = directories.get(above, false);
    const stat = statAt(directory.fd, name);
    if (typeof stat === 'number') throw errnoError(stat, 'lstat', path);
    const identity = stat.nlink > 1 ? `${stat.devMajor}:${stat.devMinor}:${stat.ino}` : '';
    const known = links.get(identity);
    if (known) return known;
    const node = readNode(directory, name, stat, image, true);
    if (identity !== '' && !isDirectory(node)) links.set(identity, node);
    return node;
  };
  const root = read('');
  const todo: { path: ByteString; node: ErofsNode }[] = [{ path: '', node: root }];
  for (let next = todo.pop(); next; next = todo.pop()) {
    const { path, node } = next;
    for (const name of namesOf(directories, path)) {
      context.signal.throwIfAborted();
      const childPath = path === '' ? name : `${path}/${name}`;
      const child = read(childPath);
      node.children!.set(name, child);
      if (isDirectory(child)) todo.push({ path: childPath, node: child });
    }
  }
  return root;
}

function namesOf(directories: RootedDirectories, path: ByteString): ByteString[] {
  const fd = openAt(directories.get(path, false).fd, '.', Flags.O_DIRECTORY);
  if (fd < 0) throw errnoError(fd, 'open', path);
  try {
    return listNames(fd).sort();
  } finally {
    closeFd(fd);
  }
}
