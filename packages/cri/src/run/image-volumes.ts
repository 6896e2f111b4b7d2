import { readlinkSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import path from 'node:path';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode, invalidArgument } from '@gantry/api';
import { type Mount, MountSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { mountAll, removeAllBeneath, unmountRecursive } from '@gantry/mount';
import { AT_FDCWD, close, hasErrno, MNT, O, openat, openInRoot } from '@gantry/sys';
import type { CriImages } from '../images/cri-images.ts';
import type { ImageUnpacker } from '../images/image-unpacker.ts';
import { mountArtifact } from './artifact-volume.ts';

export interface ImageVolumesOptions {
  images: CriImages;
  unpacker: ImageUnpacker;
  content: ContentStore;
  snapshotters: SnapshotterRegistry;
  snapshotter: string;
  /** CRI's state directory. */
  state: string;
}

/** Images as read-only volumes of containers (KEP-4639): each is mounted for the container, and gone with it. */
export class ImageVolumes {
  readonly #options: ImageVolumesOptions;

  constructor(options: ImageVolumesOptions) {
    this.#options = options;
  }

  #directory(containerId: string): string {
    return `${this.#options.state}/image-volumes/${containerId}`;
  }

  /** The mounts with host paths for those that are images. @throws NotFound for an image that is not there */
  async resolve(
    ctx: RequestContext,
    asked: readonly Mount[],
    owner: { id: string; sandboxId: string },
  ): Promise<Mount[]> {
    const mounts: Mount[] = [];
    for (const [index, mount] of asked.entries()) {
      if (!mount.image) {
        mounts.push(mount);
        continue;
      }
      if (mount.hostPath !== '') throw invalidArgument('image volume mount with a host path: invalid argument');
      const hostPath = await this.#mount(ctx, mount, `${owner.id}-${index}`, `${this.#directory(owner.id)}/${index}`);
      mounts.push(create(MountSchema, { ...mount, hostPath, readonly: true }));
    }
    return mounts;
  }

  async #mount(ctx: RequestContext, mount: Mount, key: string, target: string): Promise<string> {
    const { images, snapshotters, snapshotter: name } = this.#options;
    const image = await images.get(ctx, mount.image?.image ?? '');
    if (image.artifact) {
      await mkdir(target, { recursive: true, mode: 0o755 });
      await mountArtifact(ctx, this.#options.content, image, target);
      return mount.imageSubPath === '' ? target : inside(target, mount.imageSubPath);
    }
    const snapshotter = snapshotters.get(ctx, name);
    await this.#options.unpacker.ensure(ctx, name, image);
    const view = await snapshotter.view(ctx, `image-volume-${key}`, image.chainId);
    await mkdir(target, { recursive: true, mode: 0o700 });
    await mountAll(view, target);
    return mount.imageSubPath === '' ? target : inside(target, mount.imageSubPath);
  }

  /** Containers that have some. */
  async owners(): Promise<string[]> {
    try {
      return await readdir(`${this.#options.state}/image-volumes`);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }

  /** Unmounts what a container has. */
  async release(containerId: string): Promise<void> {
    const directory = this.#directory(containerId);
    let indexes: string[];
    try {
      indexes = await readdir(directory);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return;
      throw error;
    }
    await unmountRecursive(directory, MNT.DETACH);
    const ctx = { namespace: 'k8s.io' };
    const snapshotter = this.#options.snapshotters.get(ctx, this.#options.snapshotter);
    for (const index of indexes) {
      await snapshotter.remove(ctx, `image-volume-${containerId}-${index}`).catch((error) => {
        if (!hasCode(error, Code.NotFound)) throw error;
      });
    }
    await removeAllBeneath(directory);
  }
}

/** A directory in the image, wherever its links lead, but never out of it. */
function inside(root: string, subPath: string): string {
  const normal = path.normalize(subPath);
  if (path.isAbsolute(subPath) || normal.startsWith('..')) {
    throw invalidArgument(
      `image sub path ${JSON.stringify(subPath)} is not relative, or path escapes from parent: invalid argument`,
    );
  }
  const top = openat(AT_FDCWD, root, O.PATH | O.DIRECTORY);
  try {
    const fd = openInRoot(top, normal, O.PATH);
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } finally {
      close(fd);
    }
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR'))
      throw invalidArgument(
        `image sub path ${JSON.stringify(subPath)} does not exist in the image: no such file or directory`,
        error,
      );
    throw error;
  } finally {
    close(top);
  }
}
