import { mkdir } from 'node:fs/promises';
import type { Any } from '@bufbuild/protobuf/wkt';
import { Code, hasCode, jsonAny, StatusError, TypeUrl } from '@gantry/api';
import { NamespaceMode } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { NamespacedSnapshotter } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import type { Task } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { type Mount, unmountAll } from '@gantry/mount';
import { encodeJson } from '@gantry/oci';
import { MNT } from '@gantry/sys';
import type { CriImage } from '../images/cri-image.ts';
import { CriLabel, Extension } from '../labels.ts';
import { processLabel, runtimeName, runtimeOptions } from '../run/runtime-handlers.ts';
import { together } from '../run/together.ts';
import { sandboxHostname, sandboxSpec } from '../spec/sandbox-spec.ts';
import { snapshotLabels } from '../spec/user-namespace.ts';
import { type SandboxMetadata, sandboxExtension } from '../store/pod-sandbox.ts';
import { writeEtcFiles } from './etc-files.ts';
import type { PodSandboxControllerOptions } from './pod-sandbox-controller.ts';
import { mountShm, shmOf } from './pod-shm.ts';

/** What a sandbox's container is made of. */
export interface PreparedPause {
  spec: Any;
  rootfs: Mount[];
  image: string;
  snapshotter: NamespacedSnapshotter;
  /** SELinux label of its processes; '' for none. */
  processLabel: string;
  /** Takes it away again. */
  undo: AsyncDisposableStack;
}

/** Makes what a sandbox's container needs: directories, snapshot, shared memory, files of /etc, specification. */
export async function preparePause(
  ctx: RequestContext,
  options: PodSandboxControllerOptions,
  metadata: SandboxMetadata,
): Promise<PreparedPause> {
  const { id, config } = metadata;
  const { snapshotters, handlers, settings, imagesConfig, root, state } = options;
  const handler = handlers.get(metadata.runtimeHandler);
  const snapshotterName = handler.snapshotter || imagesConfig.snapshotter;
  const image = await pauseImage(ctx, options, snapshotterName);
  await options.unpacker.ensure(ctx, snapshotterName, image);
  const imageName = imagesConfig.pinned_images['sandbox'] ?? '';
  const snapshotter = snapshotters.get(ctx, snapshotterName);
  const namespaces = config.linux?.securityContext?.namespaceOptions;
  const directory = `${root}/sandboxes/${id}`;
  await using undo = new AsyncDisposableStack();
  const undoing = undoingIn(undo, options, id);
  const ownShm = namespaces?.ipc !== NamespaceMode.NODE;
  const shm = ownShm ? shmOf(`${state}/sandboxes/${id}`) : '/dev/shm';
  if (ownShm) undoing('shared memory', () => unmountAll(shm, MNT.DETACH));
  undoing('snapshot', () => snapshotter.remove({ ...ctx, signal: undefined }, id));
  const labels = options.selinux.labels(config.linux?.securityContext?.selinuxOptions);
  undoing('label', async () => options.selinux.release(labels.process));
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
      selinux: { ...labels, process: processLabel(options.selinux, handler, labels.process) },
    });
  const writeFiles = async () => {
    await mkdir(directory, { recursive: true, mode: 0o755 });
    await writeEtcFiles(directory, config, sandboxHostname(config));
  };
  const [rootfs, spec] = await together(
    snapshotter.prepare({ ...ctx, step: true }, id, image.chainId, {
      labels: snapshotLabels(namespaces?.usernsOptions),
    }),
    makeSpec(),
    ownShm ? mountShm(shm) : undefined,
    writeFiles(),
  );
  const packed = jsonAny(TypeUrl.RuntimeSpec, encodeJson(spec));
  return { spec: packed, rootfs, image: imageName, snapshotter, processLabel: labels.process, undo: undo.move() };
}

/** Makes the container of a sandbox and its task, not started. What was made, and was prepared, is undone if it fails. */
export async function createPause(
  ctx: RequestContext,
  options: PodSandboxControllerOptions,
  metadata: SandboxMetadata,
  prepared: PreparedPause,
): Promise<Task> {
  const { id, config } = metadata;
  const { containers, handlers, tasks } = options;
  const handler = handlers.get(metadata.runtimeHandler);
  const { spec, rootfs, image, snapshotter } = prepared;
  metadata.processLabel = prepared.processLabel;
  await using undo = prepared.undo;
  const undoing = undoingIn(undo, options, id);
  const quiet = { ...ctx, signal: undefined };
  undoing('container', () => containers.delete(quiet, id));
  undoing('task', () => tasks.delete(quiet, id));
  // The record is on disk long before the runtime has made the process.
  const [, task] = await together(
    containers.create(ctx, {
      id,
      labels: { ...config.labels, [CriLabel.containerKind]: 'sandbox' },
      image,
      runtime: { name: runtimeName(handler), options: runtimeOptions(handler) },
      spec,
      snapshotter: snapshotter.name,
      snapshotKey: id,
      extensions: { [Extension.sandbox]: sandboxExtension(metadata) },
      sandboxId: id,
    }),
    tasks
      .create(ctx, id, {
        spec,
        rootfs,
        io: { stdin: '', stdout: '', stderr: '', terminal: false },
        runtime: runtimeName(handler),
        runtimeOptions: runtimeOptions(handler),
        sandboxId: id,
      })
      .catch((error: unknown) => {
        throw StatusError.wrap(error, 'failed to create containerd task');
      }),
  );
  undo.move();
  return task;
}

function undoingIn(
  undo: AsyncDisposableStack,
  { log }: PodSandboxControllerOptions,
  id: string,
): (what: string, work: () => Promise<unknown>) => void {
  return (what, work) =>
    undo.defer(async () => {
      try {
        await work();
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) log.warn(`cannot undo: ${what}`, { error, id });
      }
    });
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
