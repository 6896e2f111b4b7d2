import { randomUUID } from 'node:crypto';
import type { MountManager } from '@gantry/daemon/core/mounts/mount-manager.ts';
import { withActivation } from '@gantry/daemon/core/mounts/with-activation.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { NamespacedSnapshotter, SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { withTempMount } from '@gantry/mount';
import { AT, AT_FDCWD, close, fstatat, hasErrno, O, openat, openInRoot, readFd, S } from '@gantry/sys';
import type { UserFiles } from '../spec/user.ts';

const limit = 8 << 20;

/** Reads the user and group files of images, once for each: an image's layers never change. */
export class ImageUserFiles {
  readonly #snapshotters: SnapshotterRegistry;
  readonly #mounts: MountManager | undefined;
  readonly #temp: string;
  readonly #known = new Map<string, Promise<UserFiles>>();

  constructor(snapshotters: SnapshotterRegistry, mounts: MountManager | undefined, temp: string) {
    this.#snapshotters = snapshotters;
    this.#mounts = mounts;
    this.#temp = temp;
  }

  read(ctx: RequestContext, snapshotter: string, chainId: string): Promise<UserFiles> {
    if (chainId === '') return Promise.resolve({ passwd: '', group: '' });
    let files = this.#known.get(chainId);
    if (!files) {
      if (this.#known.size > 1000) this.#known.clear();
      files = withImageRoot(
        ctx,
        this.#snapshotters.get(ctx, snapshotter),
        chainId,
        this.#temp,
        this.#mounts,
        readFiles,
      );
      this.#known.set(chainId, files);
      files.catch(() => this.#known.delete(chainId));
    }
    return files;
  }
}

/** Calls `fn` with a directory where the image is mounted, read-only, for so long. The caller's lease keeps the view from collection. */
export async function withImageRoot<T>(
  ctx: RequestContext,
  snapshotter: NamespacedSnapshotter,
  chainId: string,
  temp: string,
  manager: MountManager | undefined,
  fn: (root: string) => Promise<T>,
): Promise<T> {
  const key = `cri-look-${randomUUID()}`;
  const mounts = await snapshotter.view(ctx, key, chainId);
  try {
    return await withActivation(manager, ctx, 'cri', mounts, (system) => withTempMount(system, temp, fn));
  } finally {
    await snapshotter.remove({ ...ctx, signal: undefined }, key);
  }
}

async function readFiles(root: string): Promise<UserFiles> {
  const fd = openat(AT_FDCWD, root, O.PATH | O.DIRECTORY);
  try {
    return { passwd: readInside(fd, 'etc/passwd'), group: readInside(fd, 'etc/group') };
  } finally {
    close(fd);
  }
}

function readInside(root: number, file: string): string {
  let fd: number;
  try {
    fd = openInRoot(root, file, O.RDONLY | O.NONBLOCK | O.NOCTTY);
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EACCES')) return '';
    throw error;
  }
  try {
    const { mode, size } = fstatat(fd, '', AT.EMPTY_PATH);
    if ((mode & S.IFMT) !== S.IFREG || Number(size) > limit) return '';
    return readFd(fd).toString('utf8');
  } finally {
    close(fd);
  }
}
