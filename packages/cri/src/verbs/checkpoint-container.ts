import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { create } from '@bufbuild/protobuf';
import { failedPrecondition, formatTime, invalidArgument, now, packAny, StatusError } from '@gantry/api';
import {
  type CheckpointContainerRequest,
  ContainerState,
  ContainerStatusSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { CheckpointOptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import type { Container } from '@gantry/daemon/core/containers/container-store.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import { removeAllBeneath } from '@gantry/mount';
import { stringifyJson } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';
import { ArchiveFile, type ConfigDump, noTime } from '../checkpoint/archive-files.ts';
import { requireCriu } from '../checkpoint/criu-program.ts';
import { type Cri, criContext, dirs } from '../cri.ts';
import { isRuncRuntime } from '../run/runtime-handlers.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { toJson } from '../wire-json.ts';
import { wireContainerStatus } from './container-status.ts';

/** Writes a running container's state, which goes on, into an archive. @throws FailedPrecondition without CRIU, or if it does not run */
export async function checkpointContainer(
  cri: Cri,
  { containerId, location }: CheckpointContainerRequest,
  signal: AbortSignal,
): Promise<object> {
  await requireCriu(cri.config.runtime.enable_criu).catch((error) => {
    throw StatusError.wrap(error, `failed to checkpoint container "${containerId}"`);
  });
  const container = cri.containers.get(containerId);
  const { id } = container;
  const state = stateOf(container.status);
  if (state !== ContainerState.CONTAINER_RUNNING) {
    const running = ContainerState[ContainerState.CONTAINER_RUNNING];
    throw failedPrecondition(
      `container "${id}" is in ${ContainerState[state]} state. only ${running} containers can be checkpointed`,
    );
  }
  if (!path.isAbsolute(location)) throw invalidArgument(`location "${location}" is not an absolute path`);
  await cri.locks.run(`checkpoint ${id}`, async () => {
    const directory = path.join(dirs.containerRoot(cri, id), 'ctrd-checkpoint');
    await removeAllBeneath(directory);
    await mkdir(directory, { mode: 0o700 });
    // Whole, or not there.
    const making = path.join(path.dirname(location), `.${path.basename(location)}.${randomUUID()}`);
    try {
      await dump(cri, criContext(signal), container, directory);
      await cri.roots.pack(directory, making, signal);
      await rename(making, location);
    } finally {
      await rm(making, { force: true });
      await removeAllBeneath(directory);
    }
  });
  return {};
}

/** All that the archive is to have, in a directory. */
async function dump(cri: Cri, ctx: RequestContext, container: CriContainer, directory: string): Promise<void> {
  const { id, metadata } = container;
  const record = await cri.records.containers.get(ctx, id);
  const write = (name: string, text: string | Uint8Array) =>
    writeFile(path.join(directory, name), text, { mode: 0o600 });
  const status = create(ContainerStatusSchema, await wireContainerStatus(cri, container));
  await freeze(cri, ctx, record, directory);
  await copyIfThere(path.join(dirs.containerRoot(cri, id), 'status'), path.join(directory, ArchiveFile.statusFile));
  if (metadata.logPath !== '') await copyIfThere(metadata.logPath, path.join(directory, ArchiveFile.log));
  const config: ConfigDump = {
    id,
    name: metadata.name,
    rootfsImage: status.image?.image ?? '',
    rootfsImageRef: status.imageRef,
    rootfsImageName: status.image?.image ?? '',
    runtime: record.runtime.name,
    createdTime: formatTime(record.createdAt),
    checkpointedTime: formatTime(now()),
    restoredTime: noTime,
    restored: false,
  };
  await write(ArchiveFile.config, stringifyJson(config));
  await write(ArchiveFile.status, stringifyJson(toJson(ContainerStatusSchema, status)));
  if (record.spec) await write(ArchiveFile.spec, record.spec.value);
}

/** Its processes stand still until what they have written to their root is read too. */
async function freeze(cri: Cri, ctx: RequestContext, record: Container, directory: string): Promise<void> {
  const images = path.join(directory, ArchiveFile.images);
  await mkdir(images, { mode: 0o700 });
  const task = cri.tasks.get(ctx, record.id);
  await task.pause();
  try {
    const options = isRuncRuntime(record.runtime.name)
      ? packAny(CheckpointOptionsSchema, { exit: false, workPath: directory })
      : undefined;
    await task.checkpoint(images, options).catch((error) => {
      throw StatusError.wrap(error, `checkpointing container "${record.id}" failed`);
    });
    const file = path.join(directory, ArchiveFile.changes);
    if (record.snapshotKey !== '') await cri.roots.writeChanges(ctx, record.snapshotter, record.snapshotKey, file);
  } finally {
    await task.resume().catch((error) => cri.log.warn('container stays paused', { error, id: record.id }));
  }
}

async function copyIfThere(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}
