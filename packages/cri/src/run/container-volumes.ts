import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { MountManager } from '@gantry/daemon/core/mounts/mount-manager.ts';
import { withActivation } from '@gantry/daemon/core/mounts/with-activation.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { NamespacedSnapshotter } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { TreeJobs } from '@gantry/daemon/core/snapshots/tree-jobs.ts';
import { type Mount, withTempMount } from '@gantry/mount';
import type { ImageConfig, SpecIdMapping } from '@gantry/oci';
import { AT_FDCWD, close, hasErrno, O, openat, openInRoot } from '@gantry/sys';
import { withImageRoot } from '../images/user-files.ts';
import { type ContainerMount, pointOfMount } from '../spec/container-mounts.ts';

/** Volumes that an image declares: directories of the container's own on the host, with what the image has there. */

/** A place for each volume on which nothing is mounted that was asked for. */
export function imageVolumes(
  image: ImageConfig,
  asked: readonly { containerPath: string }[],
  root: string,
  ids: { uid: SpecIdMapping; gid: SpecIdMapping } | undefined,
): ContainerMount[] {
  const taken = new Set(asked.map(({ containerPath }) => pointOfMount(containerPath)));
  return Object.keys(image.config?.Volumes ?? {})
    .map((volume) => path.join('/', volume))
    .filter((volume) => !taken.has(volume))
    .map((volume) => ({
      containerPath: volume,
      hostPath: `${root}/volumes/${randomBytes(32).toString('hex')}`,
      readonly: false,
      relabel: true,
      // What the image owns belongs to the same ids inside.
      ...(ids && { uidMappings: [ids.uid], gidMappings: [ids.gid] }),
    }));
}

/** Makes the directories and copies what the image has, with owners and modes, into them. */
export class VolumeCopies {
  readonly #trees = new TreeJobs();
  readonly #temp: string;
  readonly #mounts: MountManager | undefined;

  constructor(temp: string, mounts: MountManager | undefined) {
    this.#temp = temp;
    this.#mounts = mounts;
  }

  async copyUp(ctx: RequestContext, rootfs: Mount[], volumes: readonly ContainerMount[]): Promise<void> {
    if (volumes.length === 0) return;
    await withActivation(this.#mounts, ctx, 'cri', rootfs, (mounts) =>
      withTempMount(mounts, this.#temp, (root) => this.#copyAll(root, volumes)),
    );
  }

  /** The same from the image itself, whose ids are as they are stored, and not as a user namespace has them: the volumes are mapped too. */
  async copyUpUnmapped(
    ctx: RequestContext,
    snapshotter: NamespacedSnapshotter,
    chainId: string,
    volumes: readonly ContainerMount[],
  ): Promise<void> {
    if (volumes.length === 0) return;
    await withImageRoot(ctx, snapshotter, chainId, this.#temp, this.#mounts, (root) => this.#copyAll(root, volumes));
  }

  async #copyAll(root: string, volumes: readonly ContainerMount[]): Promise<void> {
    for (const { containerPath, hostPath } of volumes) {
      await mkdir(hostPath, { recursive: true, mode: 0o755 });
      await this.#copy(root, containerPath, hostPath);
    }
  }

  async #copy(root: string, containerPath: string, hostPath: string): Promise<void> {
    const top = openat(AT_FDCWD, root, O.PATH | O.DIRECTORY);
    try {
      // Links of the image lead nowhere but into the image.
      const source = openInRoot(top, containerPath, O.PATH | O.DIRECTORY);
      try {
        await this.#trees.copy(`/proc/self/fd/${source}/.`, hostPath);
      } finally {
        close(source);
      }
    } catch (error) {
      // What the image does not have begins empty.
      if (!hasErrno(error, 'ENOENT', 'ENOTDIR')) throw error;
    } finally {
      close(top);
    }
  }

  close(): Promise<void> {
    return this.#trees.close();
  }
}
