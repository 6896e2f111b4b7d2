import { notFound, StatusError } from '@gantry/api';
import { ContainerState, type LinuxContainerResources } from '@gantry/api/gen/cri/v1/api_pb.js';
import { type ContainerUpdate, Event } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import { warnOf } from '@gantry/daemon/core/warnings/deprecations.ts';
import { applyAdjustment } from '@gantry/nri/runtime/apply-adjustment.ts';
import type { Consequences } from '@gantry/nri/runtime/nri-events.ts';
import { NriHost, type NriSettings, type NriState } from '@gantry/nri/runtime/nri-host.ts';
import type { RuntimeSpec, SpecResources } from '@gantry/oci';
import type { Cri } from '../cri.ts';
import { applyNamedClass } from '../spec/classes.ts';
import { mergeResources } from '../spec/resources.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';
import { stopRunningContainer } from '../verbs/stop-container.ts';
import { setLimits } from '../verbs/update-container-resources.ts';
import { containerMessage, podMessage, toldLimits, wantedLimits } from './messages.ts';
import type { PodHooks } from './pod-hooks.ts';

interface Making {
  sandbox: PodSandbox;
  container: CriContainer;
  spec: RuntimeSpec;
}

const notCreated = 'failed to create containerd container';

/** Plugins of the Node Resource Interface take part in the life of pods and containers. */
export class NriHooks implements PodHooks {
  readonly #host: NriHost;
  readonly #cri: () => Cri;
  readonly #log: Logger;
  /** What plugins were told of, and the daemon's lists do not have yet. */
  readonly #pods = new Map<string, PodSandbox>();
  readonly #containers = new Map<string, Making>();
  /** Pods and containers whose end was told. */
  readonly #ended = new Set<string>();

  constructor(settings: NriSettings, cri: () => Cri, log: Logger) {
    this.#cri = cri;
    this.#log = log;
    const state: NriState = {
      list: () => this.#list(),
      update: (updates) => this.#update(updates),
      evict: (evictions) => this.#evict(evictions),
      deprecated: (plugin) => {
        log.warn('NRI: a plugin is told of events by StateChange, which is deprecated', { plugin });
        warnOf(cri().warnings, 'nri-plugin-interface').catch((error) => log.warn('deprecation', { error }));
      },
    };
    this.#host = new NriHost(settings, state, log);
  }

  /** When pods and containers of before are known again. Resolves when the installed plugins take part. */
  start(): Promise<void> {
    return this.#host.start();
  }

  stop(): Promise<void> {
    return this.#host.stop();
  }

  async runPodSandbox(sandbox: PodSandbox): Promise<void> {
    this.#pods.set(sandbox.id, sandbox);
    try {
      await this.#tellOfPod('runPodSandbox', Event.RUN_POD_SANDBOX, sandbox);
    } catch (error) {
      await this.undoRunPodSandbox(sandbox);
      throw StatusError.wrap(error, 'NRI RunPodSandbox failed');
    }
  }

  async undoRunPodSandbox(sandbox: PodSandbox): Promise<void> {
    await this.stopPodSandbox(sandbox).catch((error) => this.#log.warn('NRI: a pod was not made', { error }));
    await this.removePodSandbox(sandbox).catch((error) => this.#log.warn('NRI: a pod was not made', { error }));
  }

  async stopPodSandbox(sandbox: PodSandbox): Promise<void> {
    if (!this.#endsNow(sandbox.id)) return;
    await this.#tellOfPod('stopPodSandbox', Event.STOP_POD_SANDBOX, sandbox);
  }

  async removePodSandbox(sandbox: PodSandbox): Promise<void> {
    this.#pods.delete(sandbox.id);
    this.#ended.delete(sandbox.id);
    await this.#tellOfPod('removePodSandbox', Event.REMOVE_POD_SANDBOX, sandbox);
  }

  async updatePodSandbox(
    sandbox: PodSandbox,
    changes: { overhead?: LinuxContainerResources | undefined; resources?: LinuxContainerResources | undefined },
  ): Promise<void> {
    const { events } = this.#host;
    if (!events.wanted(Event.UPDATE_POD_SANDBOX)) return;
    const pod = await podMessage(this.#cri(), sandbox);
    try {
      await events.updatePodSandbox(pod, toldLimits(changes.overhead), toldLimits(changes.resources));
    } catch (error) {
      throw StatusError.wrap(error, 'NRI sandbox update failed');
    }
  }

  postUpdatePodSandbox(sandbox: PodSandbox): Promise<void> {
    return this.#tellOfPod('postUpdatePodSandbox', Event.POST_UPDATE_POD_SANDBOX, sandbox);
  }

  async createContainer(sandbox: PodSandbox, container: CriContainer, spec: RuntimeSpec): Promise<void> {
    this.#containers.set(container.id, { sandbox, container, spec });
    const { events } = this.#host;
    if (!events.wanted(Event.CREATE_CONTAINER)) return;
    const cri = this.#cri();
    try {
      const pod = await podMessage(cri, sandbox);
      const { adjustment, ...others } = await events
        .createContainer(pod, await containerMessage(cri, container, spec))
        .catch((error) => {
          throw StatusError.wrap(error, `${notCreated}: failed to get NRI adjustment for container`);
        });
      const adjusted = structuredClone(spec);
      const rules = { classes: cri.classes, settings: cri.config.runtime.containerd };
      await applyAdjustment(adjusted, adjustment, {
        injectCdi: (target, devices) => cri.cdi.inject(target, devices),
        mergeResources: (base, over) => this.#merge(base, over),
        applyBlockIoClass: (target, name) => applyNamedClass('blockio', target, name, rules),
        applyRdtClass: (target, name) => applyNamedClass('rdt', target, name, rules),
      }).catch((error) => {
        throw StatusError.wrap(error, `${notCreated}: failed to NRI-adjust container Spec`);
      });
      Object.assign(spec, adjusted);
      await this.#carryOut(others);
    } catch (error) {
      await this.undoCreateContainer(sandbox, container);
      throw error;
    }
  }

  async undoCreateContainer(sandbox: PodSandbox, container: CriContainer): Promise<void> {
    const spec = this.#containers.get(container.id)?.spec;
    this.#containers.delete(container.id);
    try {
      await this.#stopped(sandbox, container, spec);
      this.#ended.delete(container.id);
      await this.#tellOfContainer('removeContainer', Event.REMOVE_CONTAINER, sandbox, container, spec);
    } catch (error) {
      this.#log.warn('NRI: a container was not made', { error, id: container.id });
    }
  }

  async postCreateContainer(sandbox: PodSandbox, container: CriContainer): Promise<void> {
    this.#containers.delete(container.id);
    await this.#tellOfContainer('postCreateContainer', Event.POST_CREATE_CONTAINER, sandbox, container);
  }

  async startContainer(sandbox: PodSandbox, container: CriContainer): Promise<void> {
    try {
      await this.#tellOfContainer('startContainer', Event.START_CONTAINER, sandbox, container);
    } catch (error) {
      throw StatusError.wrap(error, 'NRI container start failed');
    }
  }

  postStartContainer(sandbox: PodSandbox, container: CriContainer): Promise<void> {
    return this.#tellOfContainer('postStartContainer', Event.POST_START_CONTAINER, sandbox, container);
  }

  async updateContainer(
    sandbox: PodSandbox,
    container: CriContainer,
    resources: SpecResources,
    asked: LinuxContainerResources,
  ): Promise<void> {
    const { events } = this.#host;
    if (!events.wanted(Event.UPDATE_CONTAINER)) return;
    const cri = this.#cri();
    const pod = await podMessage(cri, sandbox);
    const message = await containerMessage(cri, container);
    const { resources: wanted, ...others } = await events
      .updateContainer(pod, message, toldLimits(asked))
      .catch((error) => {
        throw StatusError.wrap(error, 'NRI container update failed');
      });
    Object.assign(resources, this.#merge(resources, wantedLimits(wanted)));
    await this.#carryOut(others);
  }

  postUpdateContainer(sandbox: PodSandbox, container: CriContainer): Promise<void> {
    return this.#tellOfContainer('postUpdateContainer', Event.POST_UPDATE_CONTAINER, sandbox, container);
  }

  stopContainer(sandbox: PodSandbox, container: CriContainer, pid: number): Promise<void> {
    return this.#stopped(sandbox, container, undefined, pid);
  }

  async removeContainer(sandbox: PodSandbox, container: CriContainer): Promise<void> {
    // One that was never started has not ended either.
    if (stateOf(container.status) === ContainerState.CONTAINER_CREATED) await this.#stopped(sandbox, container);
    this.#ended.delete(container.id);
    await this.#tellOfContainer('removeContainer', Event.REMOVE_CONTAINER, sandbox, container);
  }

  /** Whether its end is yet to be told. */
  #endsNow(id: string): boolean {
    if (this.#ended.has(id)) return false;
    this.#ended.add(id);
    return true;
  }

  async #stopped(sandbox: PodSandbox, container: CriContainer, spec?: RuntimeSpec, pid?: number): Promise<void> {
    if (!this.#endsNow(container.id)) return;
    const { events } = this.#host;
    if (!events.wanted(Event.STOP_CONTAINER)) return;
    const cri = this.#cri();
    const pod = await podMessage(cri, sandbox);
    await this.#carryOut(await events.stopContainer(pod, await containerMessage(cri, container, spec, pid)));
  }

  async #tellOfPod(
    name: 'runPodSandbox' | 'stopPodSandbox' | 'removePodSandbox' | 'postUpdatePodSandbox',
    event: Event,
    sandbox: PodSandbox,
  ): Promise<void> {
    const { events } = this.#host;
    if (events.wanted(event)) await events.notify(name, await podMessage(this.#cri(), sandbox));
  }

  async #tellOfContainer(
    name: 'postCreateContainer' | 'startContainer' | 'postStartContainer' | 'postUpdateContainer' | 'removeContainer',
    event: Event,
    sandbox: PodSandbox,
    container: CriContainer,
    spec?: RuntimeSpec,
  ): Promise<void> {
    const { events } = this.#host;
    if (!events.wanted(event)) return;
    const cri = this.#cri();
    await events.notify(name, await podMessage(cri, sandbox), await containerMessage(cri, container, spec));
  }

  #merge(base: SpecResources, over: SpecResources): SpecResources {
    const { machine, config } = this.#cri();
    const { hugepageLimits, pids, ...limits } = over;
    const merged = mergeResources(base, limits);
    if (pids) merged.pids = pids;
    if (hugepageLimits && machine.hugepages && !config.runtime.disable_hugetlb_controller) {
      const set = new Set(hugepageLimits.map(({ pageSize }) => pageSize));
      const kept = (base.hugepageLimits ?? []).filter(({ pageSize }) => !set.has(pageSize));
      merged.hugepageLimits = [...kept, ...hugepageLimits];
    }
    if (merged.memory && !machine.swap) delete merged.memory.swap;
    return merged;
  }

  /** What plugins want of other containers. That it fails does not undo what they were asked about. */
  async #carryOut({ updates, evictions }: Consequences): Promise<void> {
    await this.#update(updates);
    this.#evict(evictions);
  }

  #evict(evictions: Consequences['evictions']): void {
    const cri = this.#cri();
    for (const { containerId, reason } of evictions) {
      const container = cri.containers.find(containerId);
      this.#log.info('NRI: a plugin evicts a container', { id: containerId, reason, found: container !== undefined });
      if (!container) continue;
      // It may take its time, and ends with an event of its own.
      void stopRunningContainer(cri, container, 0).catch((error) =>
        this.#log.warn('NRI: a container cannot be evicted', { error, id: containerId }),
      );
    }
  }

  /** Answers those that could not be updated. */
  async #update(updates: readonly ContainerUpdate[]): Promise<ContainerUpdate[]> {
    const cri = this.#cri();
    const failed: ContainerUpdate[] = [];
    for (const update of updates) {
      const { containerId: id, linux, ignoreFailure } = update;
      try {
        const container = cri.containers.find(id);
        if (!container) throw notFound(`container "${id}" in k8s.io: not found`);
        const limits = wantedLimits(linux?.resources ?? toldLimits(undefined));
        await setLimits(cri, container, this.#merge({}, limits));
      } catch (error) {
        this.#log.warn('NRI: limits of a container cannot be set', { error, id });
        if (!ignoreFailure) failed.push(update);
      }
    }
    return failed;
  }

  async #list() {
    const cri = this.#cri();
    const known = new Set(cri.containers.list().map(({ id }) => id));
    for (const { id } of cri.sandboxes.list()) this.#pods.delete(id);
    const pods = [...cri.sandboxes.list(), ...this.#pods.values()].filter(({ status }) => status.state !== 'unknown');
    const running = cri.containers.list().filter(({ status }) => {
      const state = stateOf(status);
      return state === ContainerState.CONTAINER_CREATED || state === ContainerState.CONTAINER_RUNNING;
    });
    const making = [...this.#containers.values()].filter(({ container }) => !known.has(container.id));
    return {
      pods: await Promise.all(pods.map((pod) => podMessage(cri, pod))),
      containers: [
        ...(await Promise.all(running.map((container) => containerMessage(cri, container)))),
        ...(await Promise.all(making.map(({ container, spec }) => containerMessage(cri, container, spec)))),
      ],
    };
  }
}
