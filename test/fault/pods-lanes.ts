import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerState } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { PodsLab } from './pods-lab.ts';
import { type KnownContainer, type KnownPod, type PodLedger, terminated } from './pods-ledger.ts';
import type { Random } from './random.ts';

const limits = { timeoutMs: 120_000 };
/** How many pods may wait for a later round, so that they live through several kills. */
const kept = 8;

/** What clients do to pods, each call noted before and after. */
export class PodCalls {
  readonly #lab: PodsLab;
  readonly #ledger: PodLedger;

  constructor(lab: PodsLab, ledger: PodLedger) {
    this.#lab = lab;
    this.#ledger = ledger;
  }

  get #runtime() {
    return this.#lab.client.runtime;
  }

  async run(pod: KnownPod): Promise<void> {
    this.#ledger.pods.add(pod);
    pod.state = 'making';
    pod.id = await this.#lab.runPod(pod.config);
    pod.state = 'ready';
  }

  async create(container: KnownContainer): Promise<void> {
    const { pod } = container;
    if (!pod.containers.includes(container)) pod.containers.push(container);
    container.state = 'making';
    container.id = await this.#lab.create(pod.id!, container.config, pod.config);
    container.state = 'created';
  }

  async start(container: KnownContainer): Promise<void> {
    container.state = 'starting';
    await this.#runtime.startContainer({ containerId: container.id! }, limits);
    container.state = 'running';
  }

  async stop(container: KnownContainer, timeout: bigint): Promise<void> {
    container.state = 'stopping';
    await this.#runtime.stopContainer({ containerId: container.id!, timeout }, limits);
    await this.ended(container);
  }

  /** Notes what it is told to have ended with. */
  async ended(container: KnownContainer): Promise<void> {
    const { status } = await this.#runtime.containerStatus({ containerId: container.id! }, limits);
    if (status?.state !== ContainerState.CONTAINER_EXITED) return;
    container.told = status.exitCode;
    container.state = 'ended';
  }

  async remove(container: KnownContainer): Promise<void> {
    container.state = 'removing';
    await this.#runtime.removeContainer({ containerId: container.id! }, limits);
    container.pod.containers.splice(container.pod.containers.indexOf(container), 1);
  }

  async stopPod(pod: KnownPod): Promise<void> {
    pod.state = 'stopping';
    for (const container of pod.containers) if (container.state === 'running') container.state = 'stopping';
    await this.#runtime.stopPodSandbox({ podSandboxId: pod.id! }, limits);
    pod.state = 'stopped';
    for (const container of pod.containers) if (container.state === 'stopping') container.state = 'ended';
  }

  async removePod(pod: KnownPod): Promise<void> {
    pod.state = 'removing';
    for (const container of pod.containers) container.state = 'removing';
    await this.#runtime.removePodSandbox({ podSandboxId: pod.id! }, limits);
    this.#ledger.pods.delete(pod);
  }
}

let number = 0;

/** Clients at work, until they are stopped or the daemon dies under them. */
export class PodLanes {
  readonly failures: string[] = [];
  readonly #calls: PodCalls;
  readonly #lab: PodsLab;
  readonly #ledger: PodLedger;
  readonly #random: Random;
  readonly #lanes: Promise<void>[];
  readonly #busy = new Set<KnownPod>();
  #dying = false;

  constructor(lab: PodsLab, ledger: PodLedger, random: Random, lanes: number) {
    this.#lab = lab;
    this.#ledger = ledger;
    this.#random = random;
    this.#calls = new PodCalls(lab, ledger);
    this.#lanes = Array.from({ length: lanes }, () => this.#lane());
  }

  /** From now on a call may fail because somebody dies, and nothing new is begun. */
  dying(): void {
    this.#dying = true;
  }

  async over(): Promise<void> {
    await Promise.all(this.#lanes);
  }

  async #lane(): Promise<void> {
    while (!this.#dying) {
      try {
        await this.#life();
      } catch (error) {
        if (!this.#dying) this.failures.push((error as Error).stack ?? String(error));
        return;
      }
    }
  }

  /** One pod from its beginning, or on from where it is; sometimes not to its end. */
  async #life(): Promise<void> {
    const random = this.#random;
    const waiting = [...this.#ledger.pods].filter((pod) => !this.#busy.has(pod));
    const old = waiting.length >= kept || (waiting.length > 0 && random.chance(0.3));
    const pod = old ? random.pick(waiting) : this.#newPod();
    this.#busy.add(pod);
    try {
      if (!old) await this.#begin(pod);
      if (!old && waiting.length < kept && random.chance(0.4)) return;
      await this.#end(pod);
    } finally {
      this.#busy.delete(pod);
    }
  }

  #newPod(): KnownPod {
    return { config: this.#lab.podConfig(`kill-${++number}`), state: 'making', containers: [] };
  }

  async #begin(pod: KnownPod): Promise<void> {
    const random = this.#random;
    await this.#calls.run(pod);
    const lasting = `trap 'exit ${terminated}' TERM; while :; do sleep 1000 & wait; done`;
    await this.#container(pod, 'long', lasting);
    const code = random.between(10, 100);
    await this.#container(pod, 'short', `sleep 0.${random.between(0, 9)}; exit ${code}`, code);
  }

  async #container(pod: KnownPod, name: string, command: string, code?: number): Promise<void> {
    const config = this.#lab.containerConfig(name, command);
    const container: KnownContainer = { pod, config, state: 'making', ...(code !== undefined && { code }) };
    if (this.#dying) return;
    await this.#calls.create(container);
    if (this.#random.chance(0.1) || this.#dying) return;
    await this.#calls.start(container);
  }

  async #end(pod: KnownPod): Promise<void> {
    const random = this.#random;
    for (const container of [...pod.containers]) {
      if (this.#dying) return;
      if (container.state === 'running' && random.chance(0.5))
        await this.#calls.stop(container, random.chance(0.5) ? 30n : 0n);
      if (container.state === 'ended' && random.chance(0.5)) await this.#calls.remove(container);
    }
    if (this.#dying) return;
    if (random.chance(0.6)) await this.#calls.stopPod(pod);
    await sleep(random.between(0, 20));
    if (!this.#dying) await this.#calls.removePod(pod);
  }
}
