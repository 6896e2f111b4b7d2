import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { Code, hasCode, invalidArgument, jsonAny, notFound, now, StatusError, TypeUrl } from '@gantry/api';
import {
  type ContainerConfig,
  ContainerEventType,
  type CreateContainerRequest,
  NamespaceMode,
  Signal,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import { removeAllBeneath } from '@gantry/mount';
import { encodeJson, type ImageConfig, type RuntimeSpec } from '@gantry/oci';
import { annotatedDevices } from '@gantry/oci/cdi/device-name.ts';
import { openCheckpoint, restoreLog, restoreRoot } from '../checkpoint/restore.ts';
import { type Cri, criContext, dirs } from '../cri.ts';
import type { CriImage } from '../images/cri-image.ts';
import { CriLabel, Extension } from '../labels.ts';
import { imageVolumes } from '../run/container-volumes.ts';
import { publishContainerEvent } from '../run/publish-event.ts';
import { processLabel, runtimeName, runtimeOptions } from '../run/runtime-handlers.ts';
import { streamAddress } from '../run/stream-bridge.ts';
import { together } from '../run/together.ts';
import { relabel } from '../selinux/relabel.ts';
import { askedMounts, podMounts } from '../spec/container-mounts.ts';
import { containerSpec } from '../spec/container-spec.ts';
import { toldResources } from '../spec/resources.ts';
import { podIdMapping, snapshotLabels } from '../spec/user-namespace.ts';
import { newStatus, writeStatus } from '../store/container-status.ts';
import {
  type ContainerMetadata,
  type CriContainer,
  containerExtension,
  containerName,
} from '../store/cri-container.ts';
import { type PodSandbox, requireRunning } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';

/** Makes a container in a pod, not started. What was made is undone if it fails. */
export async function createContainer(
  cri: Cri,
  request: CreateContainerRequest,
  signal: AbortSignal,
): Promise<{ containerId: string }> {
  const { config: given } = request;
  if (!given?.metadata) throw invalidArgument('container config must include metadata');
  const sandbox = cri.sandboxes.get(request.podSandboxId);
  requireRunning(sandbox);
  const sandboxConfig = request.sandboxConfig ?? sandbox.metadata.config;
  const handler = cri.handlers.forPod(sandbox.metadata.config, sandbox.metadata.runtimeHandler);
  // Found out when it is started, it would be too late.
  await streamAddress(cri, sandbox);
  if (Signal[given.stopSignal] === undefined)
    throw invalidArgument(`unknown CRI stop signal ${given.stopSignal}: invalid argument`);
  const id = randomBytes(32).toString('hex');
  const name = containerName(given, sandboxConfig);
  await using undo = new AsyncDisposableStack();
  const undoing = (what: string, work: () => unknown): void =>
    undo.defer(async () => {
      try {
        await work();
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) cri.log.warn(`cannot undo: ${what}`, { error, id });
      }
    });
  try {
    cri.containerNames.reserve(name, id);
  } catch (error) {
    throw StatusError.wrap(error, `failed to reserve container name "${name}"`);
  }
  undoing('name', () => cri.containerNames.release(name, id));
  const ctx = criContext(signal, sandbox.id);
  const quiet = criContext();

  const snapshotterName = handler.snapshotter || cri.config.images.snapshotter;
  const root = dirs.containerRoot(cri, id);
  const state = dirs.containerState(cri, id);
  undoing('directory', () => removeAllBeneath(root));
  undoing('state directory', () => removeAllBeneath(state));
  await together(mkdir(root, { recursive: true, mode: 0o755 }), mkdir(state, { recursive: true, mode: 0o755 }));
  const restored = await openCheckpoint(cri, ctx, given, sandboxConfig, { root, snapshotter: snapshotterName });
  const config = restored?.config ?? given;
  const image = restored?.image ?? (await imageOf(cri, ctx, config));
  const imageName = image.tags[0] ?? image.digests[0] ?? image.id;
  await cri.unpacker.ensure(ctx, snapshotterName, image);

  const options = config.linux?.securityContext?.namespaceOptions;
  const snapshotter = cri.snapshotters.get(ctx, snapshotterName);
  undoing('snapshot', () => snapshotter.remove(quiet, id));
  const podLabel = sandbox.metadata.processLabel;
  const labels = cri.selinux.labels(config.linux?.securityContext?.selinuxOptions, podLabel);
  if (labels.process !== podLabel) undoing('label', () => cri.selinux.release(labels.process));
  const makeSpec = async () => {
    const ids = podIdMapping(options?.usernsOptions);
    const volumeOwner = { sandboxId: sandbox.id, snapshotter: snapshotterName, userNamespace: options?.usernsOptions };
    const asked = await askedMounts(await cri.imageVolumes.resolve(ctx, config.mounts, volumeOwner));
    const volumes = cri.config.runtime.ignore_image_defined_volumes
      ? []
      : imageVolumes(image.config, config.mounts, root, ids);
    const shm = options?.ipc === NamespaceMode.NODE ? '/dev/shm' : `${dirs.sandboxState(cri, sandbox.id)}/shm`;
    const shared = await podMounts(config.mounts, {
      directory: dirs.sandboxRoot(cri, sandbox.id),
      shm,
      readonlyRoot: config.linux?.securityContext?.readonlyRootfs ?? false,
      ids,
    });
    const mounts = [...asked, ...shared, ...volumes];
    for (const { recursiveReadonly, hostPath } of asked) {
      if (recursiveReadonly) await cri.features.requireRecursiveReadonly(handler, hostPath);
    }
    if (mounts.some(({ uidMappings }) => uidMappings && uidMappings.length > 0)) {
      await cri.features.requireIdmappedMounts(handler);
    }
    const spec = await containerSpec({
      id,
      config,
      sandboxId: sandbox.id,
      sandboxConfig,
      sandboxPid: sandbox.status.pid,
      targetPid: targetPid(cri, sandbox, config),
      handler,
      settings: cri.config.runtime,
      image: image.config,
      imageName: config.image?.userSpecifiedImage || imageName,
      userFiles: await cri.userFiles.read(ctx, snapshotterName, image.chainId),
      mounts,
      machine: cri.machine,
      classes: cri.classes,
      selinux: { ...labels, process: processLabel(cri.selinux, handler, labels.process) },
      warn: (message) => cri.log.warn(message, { id }),
    });
    if (config.CDIDevices.length > 0 || Object.keys(config.annotations).length > 0)
      await injectDevices(cri, spec, config);
    return { spec, volumes, mounts };
  };
  const metadata: ContainerMetadata = {
    id,
    name,
    sandboxId: sandbox.id,
    config,
    imageRef: image.id,
    logPath:
      sandboxConfig.logDirectory === '' || config.logPath === ''
        ? ''
        : path.join(sandboxConfig.logDirectory, config.logPath),
    stopSignal: stopSignalOf(config, image.config),
    processLabel: labels.process,
  };
  // All but the record while the snapshot is made.
  const describe = async () => {
    const { spec, volumes, mounts } = await makeSpec().catch((error: unknown) => {
      throw StatusError.wrap(error, `failed to generate container "${id}" spec`);
    });
    const container: CriContainer = {
      id,
      metadata,
      status: newStatus(nanosOf(now()), toldResources(spec, undefined, config.linux?.resources)),
      exited: Promise.resolve(),
    };
    await cri.hooks.createContainer(sandbox, container, spec);
    undoing('plugins', () => cri.hooks.undoCreateContainer(sandbox, container));
    container.status.resources = toldResources(spec, undefined, config.linux?.resources);
    container.user = spec.process?.user;
    if (restored) container.status.restore = true;
    await writeStatus(root, container.status);
    return { spec, volumes, mounts, container };
  };
  const [{ spec, volumes, mounts, container }, rootfs] = await together(
    describe(),
    // The container's record, which is durable, comes after it.
    snapshotter.prepare({ ...ctx, step: true }, id, image.chainId, { labels: snapshotLabels(options?.usernsOptions) }),
  );

  if (podIdMapping(options?.usernsOptions)) {
    await cri.volumes.copyUpUnmapped(ctx, snapshotter, image.chainId, volumes);
  } else await cri.volumes.copyUp(ctx, rootfs, volumes);
  for (const mount of mounts) if (mount.relabel) await relabel(mount.hostPath, labels.mount);
  if (restored) {
    await restoreRoot(cri, ctx, restored, rootfs);
    await restoreLog(restored, metadata.logPath);
  }
  undoing('container', () => cri.records.containers.delete(quiet, id));
  await cri.records.containers.create(ctx, {
    id,
    labels: { ...config.labels, [CriLabel.containerKind]: 'container' },
    image: imageName,
    runtime: { name: runtimeName(handler), options: runtimeOptions(handler) },
    spec: jsonAny(TypeUrl.RuntimeSpec, encodeJson(spec)),
    snapshotter: snapshotter.name,
    snapshotKey: id,
    extensions: { [Extension.container]: containerExtension(metadata) },
    sandboxId: sandbox.id,
  });
  signal.throwIfAborted();
  // Whoever removes the pod has not seen this container among its own.
  requireRunning(sandbox);
  undo.move();
  cri.containers.set(id, container);
  await cri.hooks.postCreateContainer(sandbox, container).catch((error) => cri.log.warn('hook', { error, id }));
  publishContainerEvent(cri, id, sandbox.id, ContainerEventType.CONTAINER_CREATED_EVENT);
  return { containerId: id };
}

async function imageOf(cri: Cri, ctx: RequestContext, { image }: ContainerConfig): Promise<CriImage> {
  try {
    return await cri.images.get(ctx, image?.image ?? '');
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
    throw notFound(`failed to resolve image ${JSON.stringify(image?.image ?? '')}: not found`, error);
  }
}

/** The process whose namespace is to be seen. @throws NotFound, InvalidArgument if there is none */
function targetPid(cri: Cri, sandbox: PodSandbox, config: ContainerConfig): number | undefined {
  const options = config.linux?.securityContext?.namespaceOptions;
  if (options?.pid !== NamespaceMode.TARGET) return undefined;
  const target = cri.containers.find(options.targetId);
  if (!target) throw notFound(`invalid target container: container "${options.targetId}" does not exist: not found`);
  if (target.metadata.sandboxId !== sandbox.id) {
    throw invalidArgument(`invalid target container: container "${target.id}" is not in sandbox "${sandbox.id}"`);
  }
  if (target.status.pid === 0)
    throw invalidArgument(`invalid target container: container "${target.id}" is not running`);
  return target.status.pid;
}

function stopSignalOf(config: ContainerConfig, image: ImageConfig): string {
  // The names of the enumeration are the kernel's, with a prefix that real-time signals write differently.
  const asked = config.stopSignal === Signal.RUNTIME_DEFAULT ? '' : Signal[config.stopSignal];
  return asked
    ? asked.replace(/^SIGRTMINPLUS/, 'SIGRTMIN+').replace(/^SIGRTMAXMINUS/, 'SIGRTMAX-')
    : (image.config?.StopSignal ?? '');
}

/** Devices by the field for them, and by annotations `cdi.k8s.io/…`. */
async function injectDevices(cri: Cri, spec: RuntimeSpec, config: ContainerConfig): Promise<void> {
  if (!cri.config.runtime.enable_cdi) return;
  const named = config.CDIDevices.map(({ name }) => name);
  try {
    await cri.cdi.inject(spec, [...new Set([...named, ...annotatedDevices(config.annotations)])]);
  } catch (reason) {
    const told = StatusError.from(reason);
    throw told.message.startsWith('CDI device injection failed')
      ? told
      : StatusError.wrap(told, 'CDI device injection failed');
  }
}
