import { Code, hasCode, jsonAny, TypeUrl } from '@gantry/api';
import { NamespaceMode } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { Task } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { unmountAll } from '@gantry/mount';
import { encodeJson } from '@gantry/oci';
import { MNT } from '@gantry/sys';
import type { CriImage } from '../images/cri-image.ts';
import { CriLabel, Extension } from '../labels.ts';
import { runtimeName, runtimeOptions } from '../run/runtime-handlers.ts';
import { together } from '../run/together.ts';
import { sandboxHostname, sandboxSpec } from '../spec/sandbox-spec.ts';
import { snapshotLabels } from '../spec/user-namespace.ts';
import { type SandboxMetadata, sandboxExtension } from '../store/pod-sandbox.ts';
import { writeEtcFiles } from './etc-files.ts';
import { mountShm, type PodSandboxControllerOptions, shmOf } from './pod-sandbox-controller.ts';

/**
 * Makes the container of a sandbox and its task, not started. What was made is undone if it fails.
 */
export async function createPause(
  ctx: RequestContext,
  options: PodSandboxControllerOptions,
  metadata: SandboxMetadata,
): Promise<Task> {
  const { id, config } = metadata;
  const { containers, snapshotters, handlers, tasks, settings, imagesConfig, root, state, log } = options;
  const handler = handlers.get(metadata.runtimeHandler);
  const snapshotterName = handler.snapshotter || imagesConfig.snapshotter;
  const image = await pauseImage(ctx, options, snapshotterName);
  const imageName = imagesConfig.pinned_images['sandbox'] ?? '';
  const snapshotter = snapshotters.get(ctx, snapshotterName);
  const namespaces = config.linux?.securityContext?.namespaceOptions;
  const directory = `${root}/sandboxes/${id}`;
  await using undo = new AsyncDisposableStack();
  const undoing = (what: string, work: () => Promise<unknown>): void => {
    undo.defer(() => work().then(undefined, (error) => log.warn(`cannot undo: ${what}`, { error, id })));
  };
  const quiet = { ...ctx, signal: undefined };
  const ownShm = namespaces?.ipc !== NamespaceMode.NODE;
  const shm = ownShm ? shmOf(`${state}/sandboxes/${id}`) : '/dev/shm';
  if (ownShm) undoing('shared memory', () => unmountAll(shm, MNT.DETACH));
  undoing('snapshot', () => snapshotter.remove(quiet, id).catch(ignoreMissing));
  const makeSpec = async () =>
    sandboxSpec({
      id,
      config,
      handler,
      settings,
      image: image.config,
      imageName,
      userFiles: await options.userFiles.read(ctx, snapshotterName, image.chainId),
      netnsPath: metadata.netnsPath,
      directory,
      shm,
    });
  const [mounts, spec] = await together(
    snapshotter.prepare({ ...ctx, step: true }, id, image.chainId, {
      labels: snapshotLabels(namespaces?.usernsOptions),
    }),
    makeSpec(),
    ownShm ? mountShm(shm) : undefined,
    writeEtcFiles(directory, config, sandboxHostname(config)),
  );
  const packed = jsonAny(TypeUrl.RuntimeSpec, encodeJson(spec));
  undoing('container', () => containers.delete(quiet, id).catch(ignoreMissing));
  undoing('task', () => tasks.delete(quiet, id).catch(ignoreMissing));
  // The record is on disk long before the runtime has made the process.
  const [, task] = await together(
    containers.create(ctx, {
      id,
      labels: { ...config.labels, [CriLabel.containerKind]: 'sandbox' },
      image: imageName,
      runtime: { name: runtimeName(handler), options: runtimeOptions(handler) },
      spec: packed,
      snapshotter: snapshotter.name,
      snapshotKey: id,
      extensions: { [Extension.sandbox]: sandboxExtension(metadata) },
      sandboxId: id,
    }),
    tasks.create(ctx, id, {
      spec: packed,
      rootfs: mounts,
      io: { stdin: '', stdout: '', stderr: '', terminal: false },
      runtime: runtimeName(handler),
      runtimeOptions: runtimeOptions(handler),
      sandboxId: id,
    }),
  );
  undo.move();
  return task;
}

/** The image that sandboxes are made of, brought if it is not there. */
async function pauseImage(
  ctx: RequestContext,
  { images, imagesConfig }: PodSandboxControllerOptions,
  snapshotter: string,
): Promise<CriImage> {
  const name = imagesConfig.pinned_images['sandbox'] ?? '';
  return (await images.find(ctx, name)) ?? (await images.pull(ctx, name, { snapshotter }));
}

function ignoreMissing(error: unknown): void {
  if (!hasCode(error, Code.NotFound)) throw error;
}
