import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerState, PodSandboxState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { PodCrowd } from './cri-pods.ts';
import { quantile } from './first-byte.ts';
import type { Peer } from './peers.ts';
import type { Row } from './report.ts';

/** What a start is like that finds many pods, milliseconds since the process was made. */
interface Restart {
  /** The socket takes connections. */
  listens: number;
  /** CRI's Status says that the runtime and the network are ready. */
  ready: number;
  /** Every pod and container is listed as it is, one that ended meanwhile too. */
  listed: number;
  /** Processor time of the daemon and of what it ran until then. */
  cpu: number;
  /** And three seconds later, when all that it puts off is done too. */
  cpuAfter: number;
  /** Proportional memory of the daemon and all shims then, bytes. */
  memory: number;
}

/** Pods of two containers that are there while the daemon is ended and started again, in turns with the peer. */
export async function* restarts(peers: readonly [Peer, Peer], quick: boolean): AsyncGenerator<Row> {
  const size = quick ? 30 : 150;
  const crowds = new Map(peers.map((peer) => [peer, new PodCrowd(peer, 2)]));
  for (const many of crowds.values()) await many.grow(size);
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const all = new Map<Peer, Restart[]>(peers.map((peer) => [peer, []]));
    for (let round = 0; round < (quick ? 3 : 5); round++) {
      for (const [peer, many] of crowds) all.get(peer)!.push(await restart(peer, many, signal));
    }
    for (const [key, what, unit, divisor] of [
      ['listens', 'until the socket answers', 'ms', 1],
      ['ready', 'until CRI says that it is ready', 'ms', 1],
      ['listed', 'until all is listed as it is', 'ms', 1],
      ['cpu', '  CPU time until then', 'ms', 1],
      ['cpuAfter', '  CPU time three seconds later', 'ms', 1],
      ['memory', '  memory (PSS) of daemon and shims then', 'MB', 1e6],
    ] as const) {
      const [gantry, peer] = peers.map((one) => median(all.get(one)!.map((each) => each[key])) / divisor);
      yield {
        what: what.startsWith(' ') ? what : `start after ${signal}, ${size} pods of two containers, ${what}`,
        unit,
        gantry: gantry!,
        peer: peer!,
        better: 'less',
        aim: { times: 1 },
      };
    }
  }
  for (const many of crowds.values()) await many.disperse();
}

async function restart(peer: Peer, many: PodCrowd, signal: NodeJS.Signals): Promise<Restart> {
  const { length: pods } = (await peer.pods.listPodSandbox({})).items;
  const before = (await peer.pods.listContainers({})).containers;
  const running = before.filter(({ state }) => state === ContainerState.CONTAINER_RUNNING);
  const victim = many.containers.find((id) => running.some((one) => one.id === id))!;
  const { info } = await peer.pods.containerStatus({ containerId: victim, verbose: true });
  const { pid } = JSON.parse(info['info'] ?? '{}') as { pid: number };
  await peer.stop(signal);
  process.kill(pid, 'SIGKILL');
  await sleep(1000);
  const startedAt = performance.now();
  await peer.launch();
  const listens = await peer.listening(startedAt);
  await until(async () => {
    const { status } = await peer.pods.status({}, { timeoutMs: 30_000 });
    return status?.conditions.every((one) => one.status || !/^(Runtime|Network)Ready$/.test(one.type));
  });
  const ready = performance.now() - startedAt;
  await until(async () => {
    const { items } = await peer.pods.listPodSandbox({ filter: { state: { state: PodSandboxState.SANDBOX_READY } } });
    const { containers } = await peer.pods.listContainers({});
    const left = containers.filter(({ state }) => state === ContainerState.CONTAINER_RUNNING);
    return items.length === pods && containers.length === before.length && left.length === running.length - 1;
  });
  const listed = performance.now() - startedAt;
  const cpu = peer.cpuSeconds() * 1000;
  await sleep(3000);
  return { listens, ready, listed, cpu, cpuAfter: peer.cpuSeconds() * 1000, memory: peer.memory() };
}

/** Asks every two milliseconds; a daemon that does not serve yet is asked again. */
async function until(ask: () => Promise<boolean | undefined>): Promise<void> {
  const end = performance.now() + 60_000;
  for (let failure: unknown; ; ) {
    try {
      if (await ask()) return;
    } catch (error) {
      failure = error;
    }
    if (performance.now() > end) throw new Error('not within a minute', { cause: failure });
    await sleep(2);
  }
}

function median(values: readonly number[]): number {
  return quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  );
}
