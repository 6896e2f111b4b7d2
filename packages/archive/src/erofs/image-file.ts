import { randomUUID } from 'node:crypto';
import { closeSync, openSync, renameSync, rmSync } from 'node:fs';
import type { ErofsNode } from './erofs-node.ts';
import { type ImageSize, ImageWriter } from './image-writer.ts';

export interface ImageFileParams {
  /** Path of the image. It appears when it is whole; one that is there is replaced. */
  image: string;
  /** The file system's UUID; default: a random one. */
  uuid?: string;
  /** Wait until it is on disk. */
  sync?: boolean;
}

/** Has `fill` write data and give the tree, and puts the finished image in its place. A failure leaves nothing. */
export async function writeImageFile<T>(
  { image: path, uuid = randomUUID(), sync = false, blockBits }: ImageFileParams & { blockBits: number },
  fill: (image: ImageWriter) => Promise<{ root: ErofsNode; result: T }>,
): Promise<{ image: ImageSize; result: T }> {
  const temporary = `${path}.new`;
  const fd = openSync(temporary, 'w', 0o644);
  try {
    const writer = new ImageWriter(fd, blockBits);
    const { root, result } = await fill(writer);
    const image = writer.finish(root, Buffer.from(uuid.replaceAll('-', ''), 'hex'), sync);
    renameSync(temporary, path);
    return { image, result };
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}
