import { readlinkSync, statSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode, invalidArgument, StatusError } from '@gantry/api';
import { type Mount, MountSchema, type UserNamespace } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import { KeyedLock } from '@gantry/daemon/core/content/keyed-lock.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { mountAll, type Mount as RootMount, removeAllBeneath, unmountRecursive } from '@gantry/mount';
import { AT_FDCWD, close, hasErrno, MNT, O, openat, openat2, RESOLVE, readMountInfoAsync } from '@gantry/sys';
import type { CriImage } from '../images/cri-image.ts';
import type { CriImages } from '../images/cri-images.ts';
import type { ImageUnpacker } from '../images/image-unpacker.ts';
import { snapshotLabels } from '../spec/user-namespace.ts';
import { mountArtifact } from './artifact-volume.ts';

export interface ImageVolumesOptions {
  images: CriImages;
  unpacker: ImageUnpacker;
  content: ContentStore;
  snapshotters: SnapshotterRegistry;
  /** CRI's state directory. */
  state: string;
}

/** Whose volumes they are. */
interface Owner {
  sandboxId: string;
  /** That of the pod's runtime handler. */
  snapshotter: string;
  userNamespace: UserNamespace | undefined;
}

/**
 * Images as read-only volumes of containers (KEP-4639): each is mounted once for its pod, and gone with it. Its snapshot has the name of the
 * directory that it is mounted on.
 */
export class ImageVolumes {
  readonly #options: ImageVolumesOptions;
  readonly #locks = new KeyedLock();

  constructor(options: ImageVolumesOptions) {
    this.#options = options;
  }

  #directory(sandboxId: string): string {
    return `${this.#options.state}/image-volumes/${sandboxId}`;
  }

  /** The mounts with host paths for those that are images. @throws NotFound for an image that is not there */
  async resolve(ctx: RequestContext, asked: readonly Mount[], owner: Owner): Promise<Mount[]> {
    const mounts: Mount[] = [];
    for (const mount of asked) {
      if (!mount.image) {
        mounts.push(mount);
        continue;
      }
      const refuse = (what: string): never => {
        throw invalidArgument(
          `ImageVolumeMountFailed: ${what} while mount image: ${JSON.stringify(mount.containerPath)}`,
        );
      };
      if (mount.hostPath !== '') refuse('hostpath must be empty');
      if (!mount.readonly) refuse('readonly must be true');
      try {
        mounts.push(create(MountSchema, { ...mount, ...(await this.#source(ctx, mount, owner)), readonly: true }));
      } catch (error) {
        // The kubelet looks for the word.
        throw StatusError.wrap(error, 'ImageVolumeMountFailed');
      }
    }
    return mounts;
  }

  async #source(ctx: RequestContext, mount: Mount, owner: Owner): Promise<Partial<Mount>> {
    const image = await this.#options.images.get(ctx, mount.image?.image ?? '');
    const target = `${this.#directory(owner.sandboxId)}/${image.manifest.replace(/^.*:/, '')}`;
    await this.#locks.run(target, async () => {
      if (!(await isWhole(image, target))) await this.#mount(ctx, image, target, owner);
    });
    const hostPath = mount.imageSubPath === '' ? target : inside(target, mount.imageSubPath);
    // The snapshot's files belong to the pod's ids as they are.
    return image.artifact ? { hostPath } : { hostPath, uidMappings: [], gidMappings: [] };
  }

  async #mount(ctx: RequestContext, image: CriImage, target: string, owner: Owner): Promise<void> {
    const { content, unpacker, snapshotters } = this.#options;
    if (image.artifact) {
      // One that was cut off has some of its files.
      await unmountRecursive(target, MNT.DETACH);
      await removeAllBeneath(target);
      await mkdir(target, { recursive: true, mode: 0o755 });
      await mountArtifact(ctx, content, image, target);
      return;
    }
    await unpacker.ensure(ctx, owner.snapshotter, image);
    const snapshotter = snapshotters.get(ctx, owner.snapshotter);
    const labels = snapshotLabels(owner.userNamespace);
    const prepare = () => snapshotter.prepare(ctx, target, image.chainId, { labels });
    const mounts = await prepare().catch(async (error: unknown) => {
      if (!hasCode(error, Code.AlreadyExists)) throw error;
      // It was made, and its mount has gone with a daemon or the machine. One that was mounted as volatile cannot be a second time.
      await snapshotter.remove(ctx, target);
      return await prepare();
    });
    await mkdir(target, { recursive: true, mode: 0o755 });
    await mountAll(mounts.map(volatile), target);
  }

  /** Pods that have some. */
  async owners(): Promise<string[]> {
    try {
      return await readdir(`${this.#options.state}/image-volumes`);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }

  /** Unmounts what a pod has. @param snapshotter undefined: whichever has them */
  async release(sandboxId: string, snapshotter: string | undefined): Promise<void> {
    const directory = this.#directory(sandboxId);
    let names: string[];
    try {
      names = await readdir(directory);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return;
      throw error;
    }
    await unmountRecursive(directory, MNT.DETACH);
    const ctx = { namespace: 'k8s.io' };
    const { snapshotters } = this.#options;
    for (const each of snapshotter === undefined ? snapshotters.names() : [snapshotter]) {
      for (const name of names) {
        await snapshotters
          .get(ctx, each)
          .remove(ctx, `${directory}/${name}`)
          .catch((error) => {
            if (!hasCode(error, Code.NotFound)) throw error;
          });
      }
    }
    await removeAllBeneath(directory);
  }
}

/** Whether all of it is mounted: an artifact is a mount for each of its files. */
async function isWhole({ artifact, layers }: CriImage, target: string): Promise<boolean> {
  const points = (await readMountInfoAsync()).map(({ mountPoint }) => mountPoint);
  if (!artifact) return points.includes(target);
  return layers.length > 0 && points.filter((point) => point.startsWith(`${target}/`)).length === layers.length;
}

/** Nothing is ever written to it, so nothing is waited for when it goes. */
function volatile(mount: RootMount): RootMount {
  const { type, options } = mount;
  if (type !== 'overlay' || !options.some((option) => option.startsWith('upperdir='))) return mount;
  return options.includes('volatile') ? mount : { ...mount, options: [...options, 'volatile'] };
}

/** A directory in the image. Links that lead out of it, as absolute ones do, are not followed. */
function inside(root: string, subPath: string): string {
  const refused = (reason: string, cause?: unknown): StatusError =>
    invalidArgument(`image sub path ${JSON.stringify(subPath)}: ${reason}: invalid argument`, cause);
  const top = openat(AT_FDCWD, root, O.PATH | O.DIRECTORY);
  try {
    const fd = openat2(top, subPath, { flags: O.PATH, resolve: RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS });
    try {
      const found = `/proc/self/fd/${fd}`;
      if (!statSync(found).isDirectory()) throw refused(`only directory subpath is supported, mountpoint: "${root}"`);
      return readlinkSync(found);
    } finally {
      close(fd);
    }
  } catch (error) {
    if (hasErrno(error, 'EXDEV')) throw refused('path escapes from parent', error);
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) throw refused('no such file or directory', error);
    throw error;
  } finally {
    close(top);
  }
}
