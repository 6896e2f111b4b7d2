import assert from 'node:assert/strict';
import { ContainerEventType, ContainerState, PodSandboxState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { eventually } from '../lib/processes.ts';
import type { PodsLab } from './pods-lab.ts';
import type { Random } from './random.ts';

/** How many calls are under way at once. */
const lanes = 8;
const limits = { timeoutMs: 120_000 };

/** Exit codes of a container that ignores nothing: by its own will, by SIGTERM, by SIGKILL. */
const codes = { own: 3, terminated: 143, killed: 137 } as const;

interface Pod {
  id: string;
  containers: string[];
}

/** Pods of two containers each that are started, looked at, ended in every way there is, and removed. */
export class PodCrowd {
  readonly #lab: PodsLab;
  readonly #random: Random;
  readonly #size: number;
  /** Events by container or pod. */
  readonly #events = new Map<string, Set<ContainerEventType>>();
  readonly #stop = new AbortController();
  #listening: Promise<void> = Promise.resolve();
  #made = 0;

  constructor(lab: PodsLab, random: Random, size: number) {
    this.#lab = lab;
    this.#random = random;
    this.#size = size;
  }

  /** Listens to events of all rounds. */
  listen(): void {
    const events = this.#lab.client.runtime.getContainerEvents({}, { signal: this.#stop.signal });
    this.#listening = (async () => {
      for await (const { containerId, containerEventType } of events) {
        const seen = this.#events.get(containerId) ?? new Set();
        this.#events.set(containerId, seen.add(containerEventType));
      }
    })().catch((error) => {
      if (!this.#stop.signal.aborted) throw error;
    });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#listening;
  }

  /** From nothing to nothing. @returns milliseconds until all ran */
  async round(): Promise<number> {
    const begun = performance.now();
    const pods: Pod[] = [];
    await this.#each(Array.from({ length: this.#size }), async () => {
      pods.push(await this.#start());
    });
    const startedMs = performance.now() - begun;
    await this.#look(pods);
    await this.#each(pods, (pod) => this.#end(pod));
    await this.#check(pods);
    await this.#each(pods, (pod) => this.#remove(pod));
    await this.#told(pods);
    return startedMs;
  }

  /** Does something for each, a few at once. */
  async #each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const queue = [...items.entries()];
    await Promise.all(
      Array.from({ length: lanes }, async () => {
        for (let next = queue.shift(); next; next = queue.shift()) await work(next[1]);
      }),
    );
  }

  async #start(): Promise<Pod> {
    const { runtime } = this.#lab.client;
    const config = this.#lab.podConfig(`crowd-${++this.#made}`);
    const id = await this.#lab.runPod(config);
    const commands = [
      `trap 'exit ${codes.own}' TERM; echo begun; while :; do sleep 1000 & wait; done`,
      `echo begun >&2; exec sleep 1000`,
    ];
    const containers: string[] = [];
    for (const [index, command] of commands.entries()) {
      const container = await this.#lab.create(id, this.#lab.containerConfig(`c${index}`, command), config);
      await runtime.startContainer({ containerId: container }, limits);
      containers.push(container);
    }
    return { id, containers };
  }

  /** What the kubelet asks again and again, and now and then somebody. */
  async #look(pods: readonly Pod[]): Promise<void> {
    const { runtime } = this.#lab.client;
    const { items } = await runtime.listPodSandbox({ filter: { labelSelector: { app: 'churn' } } });
    const ready = items.filter(({ state }) => state === PodSandboxState.SANDBOX_READY).map(({ id }) => id);
    for (const { id } of pods) assert.ok(ready.includes(id), `pod ${id} is not listed as ready`);
    const { containers } = await runtime.listContainers({});
    const running = new Map(containers.map(({ id, state }) => [id, state]));
    for (const id of pods.flatMap((pod) => pod.containers))
      assert.equal(running.get(id), ContainerState.CONTAINER_RUNNING, `container ${id}`);
    assert.ok((await runtime.listContainerStats({})).stats.length >= 2 * pods.length, 'statistics of containers');
    assert.ok((await runtime.listPodSandboxStats({})).stats.length >= pods.length, 'statistics of pods');
    await runtime.listPodSandboxMetrics({});
    await runtime.status({ verbose: true });
    await this.#each(pods, async ({ id, containers: [first = '', second = ''] }) => {
      await runtime.podSandboxStatus({ podSandboxId: id, verbose: true });
      await runtime.containerStatus({ containerId: second, verbose: true });
      if (this.#random.chance(0.5)) return;
      const said = await runtime.execSync({ containerId: first, cmd: ['sh', '-c', 'hostname; exit 5'] }, limits);
      assert.deepEqual([said.stdout.toString().startsWith('crowd-'), said.exitCode], [true, 5]);
      await runtime.reopenContainerLog({ containerId: second });
      await runtime.updateContainerResources({ containerId: second, linux: { cpuShares: 512n } });
    });
  }

  /** By its signal, without mercy, by hand, or with the pod. */
  async #end({ id, containers: [first = '', second = ''] }: Pod): Promise<void> {
    const { runtime } = this.#lab.client;
    await runtime.stopContainer({ containerId: first, timeout: 30n }, limits);
    const way = this.#random.between(1, 3);
    if (way === 1) await runtime.stopContainer({ containerId: second, timeout: 0n }, limits);
    else if (way === 2) process.kill(await this.#lab.pidOf('container', second), 'SIGKILL');
    else await runtime.stopPodSandbox({ podSandboxId: id }, limits);
  }

  async #check(pods: readonly Pod[]): Promise<void> {
    const { runtime } = this.#lab.client;
    await this.#each(pods, async ({ containers: [first = '', second = ''] }) => {
      const { status } = await runtime.containerStatus({ containerId: first });
      assert.deepEqual([status?.state, status?.exitCode], [ContainerState.CONTAINER_EXITED, codes.own]);
      await eventually(
        `container ${second} has ended`,
        async () => {
          const { status: killed } = await runtime.containerStatus({ containerId: second });
          if (killed?.state !== ContainerState.CONTAINER_EXITED) return undefined;
          assert.equal(killed.exitCode, codes.killed);
          return true;
        },
        60_000,
      );
    });
  }

  /** Container by container, or all with the pod, stopped or not. */
  async #remove({ id, containers }: Pod): Promise<void> {
    const { runtime } = this.#lab.client;
    if (this.#random.chance(0.5))
      for (const containerId of containers) await runtime.removeContainer({ containerId }, limits);
    if (this.#random.chance(0.5)) await runtime.stopPodSandbox({ podSandboxId: id }, limits);
    await runtime.removePodSandbox({ podSandboxId: id }, limits);
  }

  /** Every one of them was told of: made, started, stopped, deleted. */
  async #told(pods: readonly Pod[]): Promise<void> {
    const { CONTAINER_CREATED_EVENT, CONTAINER_STARTED_EVENT, CONTAINER_STOPPED_EVENT, CONTAINER_DELETED_EVENT } =
      ContainerEventType;
    const all = [CONTAINER_CREATED_EVENT, CONTAINER_STARTED_EVENT, CONTAINER_STOPPED_EVENT, CONTAINER_DELETED_EVENT];
    const ids = pods.flatMap((pod) => [pod.id, ...pod.containers]);
    await eventually(
      'every pod and container has had its four events',
      () => (ids.every((id) => all.every((type) => this.#events.get(id)?.has(type))) ? true : undefined),
      60_000,
    ).catch((error) => {
      const missing = ids.filter((id) => !all.every((type) => this.#events.get(id)?.has(type)));
      const told = missing.map((id) => `${id}: ${[...(this.#events.get(id) ?? [])]}`);
      throw new Error(`${(error as Error).message}\n${told.join('\n')}`);
    });
    for (const id of ids) this.#events.delete(id);
  }
}
