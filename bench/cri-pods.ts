import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { lanes } from './containers.ts';
import { containerImage } from './cri-lab.ts';
import type { Peer } from './peers.ts';

/** Milliseconds of each call of a pod's life, by the names of the calls. */
export type CallTimes = Map<string, number[]>;

async function timed<T>(times: CallTimes | undefined, name: string, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  const result = await work();
  if (times) {
    const all = times.get(name) ?? [];
    all.push(performance.now() - startedAt);
    times.set(name, all);
  }
  return result;
}

function podConfig(peer: Peer, name: string) {
  return {
    metadata: { name, namespace: 'bench', uid: randomUUID(), attempt: 0 },
    logDirectory: path.join(peer.directory, 'logs', name),
    labels: { bench: 'yes' },
    linux: { cgroupParent: peer.account.path },
  };
}

/** A pod with running containers: one, unless more are asked for; the first is answered. */
export async function startPod(
  peer: Peer,
  name: string,
  times?: CallTimes,
  containers = 1,
): Promise<{ pod: string; container: string }> {
  const { pods } = peer;
  const config = podConfig(peer, name);
  const { podSandboxId: pod } = await timed(times, 'run pod', () => pods.runPodSandbox({ config }));
  const ids: string[] = [];
  for (let index = 0; index < containers; index++) {
    const { containerId } = await timed(times, 'create container', () =>
      pods.createContainer({
        podSandboxId: pod,
        sandboxConfig: config,
        config: {
          metadata: { name: `main${index}`, attempt: 0 },
          image: { image: containerImage },
          command: ['sleep', '100000'],
          logPath: `main${index}.log`,
          linux: {},
        },
      }),
    );
    await timed(times, 'start container', () => pods.startContainer({ containerId }));
    ids.push(containerId);
  }
  const container = ids[0]!;
  return { pod, container };
}

export async function removePod({ pods }: Peer, pod: string, times?: CallTimes): Promise<void> {
  await timed(times, 'stop pod', () => pods.stopPodSandbox({ podSandboxId: pod }));
  await timed(times, 'remove pod', () => pods.removePodSandbox({ podSandboxId: pod }));
}

/** One pod with one container, from run to removal: what `cri:cpu` measures. */
export async function podLife(peer: Peer, name: string): Promise<void> {
  const { pod, container } = await startPod(peer, name);
  await peer.pods.podSandboxStatus({ podSandboxId: pod });
  await peer.pods.containerStatus({ containerId: container });
  await removePod(peer, pod);
}

/** Pods with a container each, all of them idle. */
export class PodCrowd {
  readonly #peer: Peer;
  readonly #containers: number;
  readonly #pods: { pod: string; container: string }[] = [];

  /** @param containers of each pod */
  constructor(peer: Peer, containers = 1) {
    this.#peer = peer;
    this.#containers = containers;
  }

  /** The first container of each. */
  get containers(): string[] {
    return this.#pods.map(({ container }) => container);
  }

  async grow(size: number): Promise<void> {
    let next = this.#pods.length;
    await lanes(2, async () => {
      while (next < size) this.#pods.push(await startPod(this.#peer, `idle-${next++}`, undefined, this.#containers));
    });
  }

  /** Calls that only ask, so many of each, into `times`. */
  async ask(rounds: number, times: CallTimes | undefined): Promise<void> {
    const { pods } = this.#peer;
    const ask = async (name: string, size: number, work: () => Promise<number>): Promise<void> => {
      const found = await timed(times, name, work);
      if (found < size) throw new Error(`${this.#peer.name}: ${found} of ${size} were listed`);
    };
    const all = this.#pods.length;
    for (let round = 0; round < rounds; round++) {
      const { pod, container } = this.#pods[round % all]!;
      await ask('list pods', all, async () => (await pods.listPodSandbox({})).items.length);
      await ask('list containers', all, async () => (await pods.listContainers({})).containers.length);
      await timed(times, 'pod status', () => pods.podSandboxStatus({ podSandboxId: pod }));
      await timed(times, 'container status', () => pods.containerStatus({ containerId: container }));
      await timed(times, 'status', () => pods.status({}));
      await timed(times, 'version', () => pods.version({}));
    }
  }

  /** Proportional memory of daemon and shims, bytes, once what the starts left behind is gone. */
  async memory(): Promise<number> {
    await new Promise((resolve) => setTimeout(resolve, 4000));
    return this.#peer.memory();
  }

  async disperse(): Promise<void> {
    await lanes(2, async () => {
      for (let one = this.#pods.pop(); one; one = this.#pods.pop()) await removePod(this.#peer, one.pod);
    });
  }
}
