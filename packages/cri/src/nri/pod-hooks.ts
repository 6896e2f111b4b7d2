import type { LinuxContainerResources } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RuntimeSpec } from '@gantry/oci';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';

/**
 * Where others take part in the life of pods and containers (the Node Resource Interface). This file is the seam: verbs call it at these
 * points and know nothing of plugins. An error of a hook that comes before a change keeps the change from being made.
 */
export interface PodHooks {
  runPodSandbox(sandbox: PodSandbox): Promise<void>;
  /** The pod was not made after all. */
  undoRunPodSandbox(sandbox: PodSandbox): Promise<void>;
  stopPodSandbox(sandbox: PodSandbox): Promise<void>;
  removePodSandbox(sandbox: PodSandbox): Promise<void>;
  /** @param changes what it is about to have; what is absent stays */
  updatePodSandbox(
    sandbox: PodSandbox,
    changes: { overhead?: LinuxContainerResources | undefined; resources?: LinuxContainerResources | undefined },
  ): Promise<void>;
  postUpdatePodSandbox(sandbox: PodSandbox): Promise<void>;
  /** May change the specification that it is given. */
  createContainer(sandbox: PodSandbox, container: CriContainer, spec: RuntimeSpec): Promise<void>;
  /** The container was not made after all. */
  undoCreateContainer(sandbox: PodSandbox, container: CriContainer): Promise<void>;
  postCreateContainer(sandbox: PodSandbox, container: CriContainer): Promise<void>;
  startContainer(sandbox: PodSandbox, container: CriContainer): Promise<void>;
  postStartContainer(sandbox: PodSandbox, container: CriContainer): Promise<void>;
  /** May change the resources (of the OCI specification) that it is given. @param asked what the kubelet has said */
  updateContainer(
    sandbox: PodSandbox,
    container: CriContainer,
    resources: NonNullable<NonNullable<RuntimeSpec['linux']>['resources']>,
    asked: LinuxContainerResources,
  ): Promise<void>;
  postUpdateContainer(sandbox: PodSandbox, container: CriContainer): Promise<void>;
  /** Also when it ended by itself. @param pid of the process that it was, 0 if there was none */
  stopContainer(sandbox: PodSandbox, container: CriContainer, pid: number): Promise<void>;
  removeContainer(sandbox: PodSandbox, container: CriContainer): Promise<void>;
}

const nothing = async (): Promise<void> => undefined;

/** Nobody takes part. */
export const noHooks: PodHooks = {
  runPodSandbox: nothing,
  undoRunPodSandbox: nothing,
  stopPodSandbox: nothing,
  removePodSandbox: nothing,
  updatePodSandbox: nothing,
  postUpdatePodSandbox: nothing,
  createContainer: nothing,
  undoCreateContainer: nothing,
  postCreateContainer: nothing,
  startContainer: nothing,
  postStartContainer: nothing,
  updateContainer: nothing,
  postUpdateContainer: nothing,
  stopContainer: nothing,
  removeContainer: nothing,
};
