import { existsSync } from 'node:fs';
import { copyFile, lstat, mkdir, readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { clone } from '@bufbuild/protobuf';
import { invalidArgument, StatusError, unimplemented } from '@gantry/api';
import { type ContainerConfig, ContainerConfigSchema, type PodSandboxConfig } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import { warnOf } from '@gantry/daemon/core/warnings/deprecations.ts';
import type { Mount } from '@gantry/mount';
import { hasErrno } from '@gantry/sys';
import type { Cri } from '../cri.ts';
import type { CriImage } from '../images/cri-image.ts';
import { ArchiveFile, checkpointAnnotation, readArchive } from './archive-files.ts';
import { requireCriu } from './criu-program.ts';

/** Beneath a container's directory: its checkpoint unpacked, until it has been started. */
export const restoreDirectory = 'ctrd-restore';

/** A container that is to go on from a checkpoint. */
export interface Restored {
  /** The configuration asked for, with what the checkpoint says of image and annotations. */
  config: ContainerConfig;
  /** What the container was made from. */
  image: CriImage;
  /** Where the archive is unpacked. */
  directory: string;
}

type Source = { kind: 'file'; file: string; size: number } | { kind: 'image'; image: CriImage };

/** The checkpoint that an image's name means: a file of this machine, or an image that is one. undefined for an ordinary image. */
async function findSource(cri: Cri, ctx: RequestContext, name: string): Promise<Source | undefined> {
  if (path.isAbsolute(name)) {
    try {
      const found = await stat(name);
      if (!found.isFile()) throw invalidArgument(`checkpoint archive "${name}" is not a file: invalid argument`);
      return { kind: 'file', file: name, size: found.size };
    } catch (error) {
      if (!hasErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) throw error;
      return undefined;
    }
  }
  const image = await cri.images.find(ctx, name);
  return image && checkpointAnnotation in image.annotations ? { kind: 'image', image } : undefined;
}

/**
 * Unpacks the checkpoint that a container is to be made from into `root`, its directory; undefined if its image is an ordinary one.
 * @throws Unimplemented unless the configuration allows it; FailedPrecondition without CRIU; InvalidArgument for what is no checkpoint
 */
export async function openCheckpoint(
  cri: Cri,
  ctx: RequestContext,
  asked: ContainerConfig,
  sandboxConfig: PodSandboxConfig,
  options: { root: string; snapshotter: string },
): Promise<Restored | undefined> {
  const source = await findSource(cri, ctx, asked.image?.image ?? '');
  if (!source) return undefined;
  await warnOf(cri.warnings, 'cri-create-container-checkpoint-restore');
  const { enable_criu: criu, enable_experimental_restore_via_create: enabled } = cri.config.runtime;
  if (!enabled) throw unimplemented('checkpoint restore via CreateContainer is disabled by configuration');
  await requireCriu(criu).catch((error) => {
    throw StatusError.wrap(error, 'checkpoint restore is not enabled');
  });
  if (!sandboxConfig.metadata) throw invalidArgument('sandboxConfig must not be empty');
  const directory = path.join(options.root, restoreDirectory);
  await mkdir(directory, { mode: 0o700 });
  try {
    if (source.kind === 'file') await cri.roots.unpack(source.file, source.size, directory, ctx.signal);
    else await cri.roots.copyImage(ctx, options.snapshotter, source.image.chainId, directory);
  } catch (error) {
    throw invalidArgument(`unpacking of checkpoint archive failed: ${(error as Error).message}`, error);
  }
  await requirePlain(directory);
  const { config: dump, status } = await readArchive(directory);
  const base = dump.rootfsImageRef ?? dump.rootfsImage ?? '';
  const image = (await cri.images.find(ctx, base)) ?? (await pullBase(cri, ctx, base, options.snapshotter));
  const config = clone(ContainerConfigSchema, asked);
  config.annotations = {
    ...mergedAnnotations(status.annotations, asked.annotations, sandboxConfig.metadata.uid),
    restored: 'true',
    checkpointedAt: dump.checkpointedTime,
    checkpointImage: asked.image?.userSpecifiedImage ?? '',
  };
  if (config.image) {
    config.image.image = status.image?.image || base;
    config.image.userSpecifiedImage = status.image?.userSpecifiedImage ?? '';
  }
  return { config, image, directory };
}

async function pullBase(cri: Cri, ctx: RequestContext, base: string, snapshotter: string): Promise<CriImage> {
  if (base === '') throw invalidArgument('the checkpoint does not say what image it is of: invalid argument');
  try {
    return await cri.images.pull(ctx, base, { snapshotter });
  } catch (error) {
    throw StatusError.wrap(error, `failed to pull checkpoint base image ${base}`);
  }
}

/** What comes from elsewhere has files and directories, and nothing through which CRIU or this daemon would be led away. */
async function requirePlain(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() || entry.isDirectory()) continue;
    const name = path.relative(directory, path.join(entry.parentPath, entry.name));
    throw invalidArgument(`checkpoint archive: ${name} is not a regular file or directory: invalid argument`);
  }
}

const podUid = 'io.kubernetes.pod.uid';
/** What Kubernetes knows this start of the container by. */
const ofThisStart = ['io.kubernetes.container.hash', 'io.kubernetes.container.restartCount'];

/** Those that the container had. Devices are not had by a file's word. */
export function mergedAnnotations(
  before: Record<string, string>,
  asked: Record<string, string>,
  uid: string,
): Record<string, string> {
  const kept = Object.entries(before).filter(([key]) => key !== 'cdi.k8s.io' && !key.startsWith('cdi.k8s.io/'));
  const merged = Object.fromEntries(kept);
  if (uid !== '' && podUid in merged) merged[podUid] = uid;
  for (const key of ofThisStart) if (key in merged && asked[key] !== undefined) merged[key] = asked[key];
  return merged;
}

/** Lays what the container has written to its root over that of the new one. */
export async function restoreRoot(
  cri: Cri,
  ctx: RequestContext,
  { directory }: Restored,
  rootfs: Mount[],
): Promise<void> {
  const changes = path.join(directory, ArchiveFile.changes);
  if (existsSync(changes)) await cri.roots.applyChanges(ctx, changes, rootfs);
}

/** Puts what the container has written to its log so far where it goes on. */
export async function restoreLog({ directory }: Restored, logPath: string): Promise<void> {
  const kept = path.join(directory, ArchiveFile.log);
  if (logPath === '') return;
  try {
    if (!(await lstat(kept)).isFile()) return;
    await mkdir(path.dirname(logPath), { recursive: true, mode: 0o755 });
    await copyFile(kept, logPath);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return;
    throw StatusError.wrap(error, 'restoring container log file failed');
  }
}
