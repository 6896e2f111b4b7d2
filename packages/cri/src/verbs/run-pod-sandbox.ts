import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { Code, hasCode, invalidArgument, jsonAny, packAny, StatusError } from '@gantry/api';
import {
  ContainerEventType,
  NamespaceMode,
  type PodSandboxConfig,
  PodSandboxConfigSchema,
  type RunPodSandboxRequest,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { expectCgroupMove } from '@gantry/cgroups';
import { defaultNetnsDirectory, keepNetnsOf, newNetnsPath, openNetns, removeNetns } from '@gantry/cni/netns.ts';
import type { NetworkedPod } from '@gantry/cni/pod-network.ts';
import { removeAllBeneath } from '@gantry/mount';
import { type Cri, criContext, dirs } from '../cri.ts';
import { CriLabel, Extension, ExtensionType } from '../labels.ts';
import { watchSandbox } from '../run/exit-watch.ts';
import { publishContainerEvent } from '../run/publish-event.ts';
import { runtimeName, runtimeOptions } from '../run/runtime-handlers.ts';
import { together } from '../run/together.ts';
import { writeEtcFiles } from '../sandbox/etc-files.ts';
import { selinuxLabel } from '../sandbox/pod-sandbox-controller.ts';
import { sandboxHostname } from '../spec/sandbox-spec.ts';
import { podIdMapping } from '../spec/user-namespace.ts';
import { type PodSandbox, type SandboxMetadata, sandboxExtension, sandboxName } from '../store/pod-sandbox.ts';
import { nanosOf } from '../time.ts';

/** Makes a pod: network, namespaces, and the process that holds them. What was made is undone if it fails. */
export async function runPodSandbox(
  cri: Cri,
  request: RunPodSandboxRequest,
  signal: AbortSignal,
): Promise<{ podSandboxId: string }> {
  const { config } = request;
  if (!config?.metadata) throw invalidArgument('sandbox config must include metadata');
  const handler = cri.handlers.forPod(config, request.runtimeHandler);
  const id = randomBytes(32).toString('hex');
  const name = sandboxName(config);
  await using undo = new AsyncDisposableStack();
  const undoing = (what: string, work: () => unknown): void =>
    undo.defer(async () => {
      try {
        await work();
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) cri.log.warn(`cannot undo: ${what}`, { error, id });
      }
    });
  reserve(cri, name, id);
  undoing('name', () => cri.sandboxNames.release(name, id));
  expectCgroupMove();
  const controller = cri.controllers.get(handler.sandboxer);
  if (!controller)
    throw invalidArgument(`sandbox controller "${handler.sandboxer}" of runtime "${handler.name}" is not there`);
  const ctx = criContext(signal, id);
  const quiet = criContext();
  // What networks gave and do not take back keeps the pod, so that someone can remove it later.
  let stays = false;
  undoing('lease', () => (stays ? undefined : cri.records.leases.delete(quiet, id)));

  const metadata: SandboxMetadata = {
    id,
    name,
    config,
    netnsPath: '',
    ip: '',
    additionalIps: [],
    runtimeHandler: request.runtimeHandler,
    processLabel: '',
  };
  const record = (unfinished = false) => ({
    id,
    labels: { ...config.labels, name: config.metadata?.name ?? '' },
    runtime: { name: runtimeName(handler), options: runtimeOptions(handler) },
    sandboxer: handler.sandboxer,
    extensions: {
      [Extension.sandbox]: sandboxExtension(metadata),
      ...(unfinished && { [Extension.unfinished]: jsonAny(ExtensionType.unfinished, '{}') }),
    },
  });
  if (!usesHostNetwork(config)) metadata.netnsPath = newNetnsPath(netnsDirectory(cri));
  undoing('sandbox record', () => (stays ? undefined : cri.records.sandboxes.delete(quiet, id)));
  // From here on a daemon that is killed finds what there is to take down. The store keeps the order of the two.
  const recorded = together(
    cri.records.leases.create({ ...quiet, step: true }, { id, labels: { [CriLabel.sandboxLease]: 'true' } }),
    cri.records.sandboxes.create(ctx, record(true)),
  );
  if (controller.prepare) {
    undoing('what was prepared', () => controller.shutdown(quiet, id));
    controller.prepare(ctx, record());
  }
  // A user namespace of the pod's own has to own its network namespace, which the runtime then makes.
  const mapped = podIdMapping(config.linux?.securityContext?.namespaceOptions?.usernsOptions) !== undefined;
  // Awaited below, unless what comes before fails.
  recorded.catch(() => undefined);
  // Until it is kept at its path nothing of it outlives the daemon: it need not wait for the record.
  using netns = metadata.netnsPath !== '' && !mapped ? openNetns() : undefined;
  await recorded;
  if (metadata.netnsPath !== '') {
    netns?.keep(metadata.netnsPath);
    undoing('network namespace', () => (stays ? undefined : removeNetns(metadata.netnsPath)));
  }

  const sandbox: PodSandbox = {
    id,
    metadata,
    status: { state: 'unknown', pid: 0, createdAt: 0n, exitedAt: 0n, exitStatus: 0 },
    sandboxer: handler.sandboxer,
    exited: Promise.resolve(),
  };
  if (handler.sandboxer !== 'podsandbox') {
    // That one makes them itself, as containerd's does.
    const directory = dirs.sandboxRoot(cri, id);
    undoing('directory', () => (stays ? undefined : removeAllBeneath(directory)));
    await mkdir(directory, { recursive: true, mode: 0o755 });
    await writeEtcFiles(directory, config, sandboxHostname(config));
  }
  await controller.create(ctx, record(), {
    netnsPath: metadata.netnsPath,
    // What controllers of other runtimes make the sandbox by.
    options: packAny(PodSandboxConfigSchema, config),
    annotations: { ...config.annotations },
  });
  undoing('sandbox', () => controller.shutdown(quiet, id));
  const starting = () =>
    cri.metrics
      .timeOf('sandbox_runtime_create', handler.runtime_type, () => controller.start(ctx, id))
      .catch((error: unknown) => {
        throw StatusError.wrap(error, `failed to start sandbox "${id}"`);
      });
  const connecting = async (): Promise<void> => {
    if (metadata.netnsPath === '') return;
    undoing('network', async () => {
      try {
        await cri.network.tearDown(networked(metadata));
      } catch (error) {
        stays = true;
        cri.sandboxes.set(id, { ...sandbox, status: { ...sandbox.status, state: 'notready', pid: 0 } });
        throw error;
      }
    });
    await connect(cri, metadata, signal);
  };
  // The process does not care whether its network is there yet, so that both are made at once.
  const [started] = mapped ? [await starting()] : await together(starting(), connecting());
  if (mapped) {
    if (metadata.netnsPath !== '') keepNetnsOf(started.pid, metadata.netnsPath);
    await connecting();
  }
  metadata.processLabel = started.labels[selinuxLabel] ?? '';
  undoing('label', () => cri.selinux.release(metadata.processLabel));
  sandbox.status = { ...sandbox.status, state: 'ready', pid: started.pid, createdAt: nanosOf(started.createdAt) };
  await cri.hooks.runPodSandbox(sandbox);
  undoing('plugins', () => cri.hooks.undoRunPodSandbox(sandbox));
  await cri.records.sandboxes.update(ctx, record(), ['extensions']);
  signal.throwIfAborted();
  undo.move();
  cri.sandboxes.set(id, sandbox);
  watchSandbox(cri, sandbox);
  publishContainerEvent(cri, id, id, ContainerEventType.CONTAINER_CREATED_EVENT);
  publishContainerEvent(cri, id, id, ContainerEventType.CONTAINER_STARTED_EVENT);
  return { podSandboxId: id };
}

function reserve(cri: Cri, name: string, id: string): void {
  try {
    cri.sandboxNames.reserve(name, id);
  } catch (error) {
    throw StatusError.wrap(error, `failed to reserve sandbox name "${name}"`);
  }
}

export function usesHostNetwork(config: PodSandboxConfig): boolean {
  return config.linux?.securityContext?.namespaceOptions?.network === NamespaceMode.NODE;
}

function netnsDirectory(cri: Cri): string {
  return cri.config.runtime.netns_mounts_under_state_dir ? `${cri.state}/netns` : defaultNetnsDirectory;
}

async function connect(cri: Cri, metadata: SandboxMetadata, signal: AbortSignal): Promise<void> {
  const { result, ip, additionalIps } = await cri.network.setUp(networked(metadata), signal);
  metadata.cniResult = result;
  metadata.ip = ip;
  metadata.additionalIps = additionalIps;
}

/** A pod as its networks see it. */
function networked({ id, netnsPath, config, runtimeHandler, cniResult: result }: SandboxMetadata): NetworkedPod {
  return { id, netnsPath, config, runtimeHandler, result };
}
