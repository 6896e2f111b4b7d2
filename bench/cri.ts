import { rate } from './containers.ts';
import { type CallTimes, PodCrowd, podLife } from './cri-pods.ts';
import { restarts } from './cri-restart.ts';
import { critestBenchmark, fromScratch, scratchBenchmark } from './critest.ts';
import { quantile } from './first-byte.ts';
import { benchLogs } from './log-cases.ts';
import { benchNri } from './nri.ts';
import type { Peer } from './peers.ts';
import type { Row } from './report.ts';

export interface CriBench {
  gantry: Peer;
  containerd: Peer;
  /** Gantry again, where crun runs. */
  crun: Peer | undefined;
  /** The OCI runtime of the other two. */
  runtime: string;
  /** The binary. */
  critest: string;
  quick: boolean;
  only: ReadonlySet<string>;
}

/** critest's operations, what they are called here, and how many times faster they are meant to be. */
const operations: readonly [name: string, what: string, times: number][] = [
  [fromScratch, 'pod and container, from start to removal', 2],
  ['CreatePod', 'pod start', 2],
  ['StatusPod', 'pod status', 1],
  ['StopPod', 'pod stop', 1],
  ['RemovePod', 'pod remove', 1],
  ['CreateContainer', 'container create', 1],
  ['StartContainer', 'container start', 2],
  ['StatusContainer', 'container status', 1],
  ['StopContainer', 'container stop', 1],
  ['RemoveContainer', 'container remove', 1],
  ['PullImage', 'image pull', 1],
  ['StatusImage', 'image status', 1],
  ['RemoveImage', 'image remove', 1],
  ['ListImages', 'image list', 1],
];

const shares = [
  ['p50', 0.5],
  ['p90', 0.9],
] as const;

/** The cases of `cri`, each measured with both daemons in turns. */
export async function* benchCri(bench: CriBench): AsyncGenerator<Row> {
  const wanted = (name: string): boolean => bench.only.size === 0 || bench.only.has(name);
  if (wanted('critest')) yield* critest(bench);
  if (wanted('cpu')) yield* cpu(bench);
  if (wanted('crowd')) yield* crowd(bench);
  if (wanted('logs')) yield* benchLogs([bench.gantry, bench.containerd], bench.quick);
  if (wanted('restart')) yield* restarts([bench.gantry, bench.containerd], bench.quick);
  if (bench.gantry.nri) yield* benchNri([bench.gantry, bench.containerd], bench.quick);
}

async function* critest(bench: CriBench): AsyncGenerator<Row> {
  const { gantry, containerd, crun, quick } = bench;
  const peers = [gantry, containerd, ...(crun ? [crun] : [])];
  const times = new Map<Peer, CallTimes>(peers.map((peer) => [peer, new Map()]));
  // Both have done this before: what is compiled, loaded and pulled at first does not count.
  for (const peer of peers) await critestBenchmark(bench.critest, peer, 3, new Map());
  for (let round = 0; round < (quick ? 2 : 6); round++) {
    // Half as much of what is only shown beside the others; and whoever was last is first, as each leaves the kernel some work.
    const order = round % 2 === 0 ? peers : [containerd, gantry];
    for (const peer of order) {
      await critestBenchmark(bench.critest, peer, quick ? 4 : 7, times.get(peer)!);
      await scratchBenchmark(bench.critest, peer, quick ? 2 : 4, times.get(peer)!);
    }
  }
  for (const [name, what, aim] of operations) yield* latencies(name, what, aim, times, gantry, containerd);
  if (!crun) return;
  for (const [name, what, aim] of operations.filter((one) => /^(From|Create|Start|Stop)/.test(one[0]))) {
    yield* latencies(name, `${what} (crun; containerd ${bench.runtime})`, aim, times, crun, containerd);
  }
}

function* latencies(
  name: string,
  what: string,
  aim: number,
  times: ReadonlyMap<Peer, CallTimes>,
  ours: Peer,
  theirs: Peer,
): Generator<Row> {
  const sorted = (peer: Peer): number[] => [...(times.get(peer)!.get(name) ?? [])].sort((a, b) => a - b);
  const [gantry, peer] = [sorted(ours), sorted(theirs)];
  if (gantry.length === 0 || peer.length === 0) throw new Error(`${name} was not measured`);
  for (const [label, share] of shares) {
    yield {
      what: `${what}, ${label}`,
      unit: 'ms',
      gantry: quantile(gantry, share),
      peer: quantile(peer, share),
      better: 'less',
      aim: { times: aim },
    };
  }
}

/** Processor time of a pod's whole life, which says more than latencies where other work goes on. */
async function* cpu({ gantry, containerd, crun, quick, runtime }: CriBench): AsyncGenerator<Row> {
  const measure = async (peer: Peer) => {
    await rate(peer, 2, 2, (name) => podLife(peer, `warm-${name}`));
    return rate(peer, 1, quick ? 5 : 10, (name) => podLife(peer, name));
  };
  const ours = await measure(gantry);
  const theirs = await measure(containerd);
  const withCrun = crun && (await measure(crun));
  const what = 'pod of one container, from run to removal';
  for (const [name, one] of [
    [runtime, ours],
    ...(withCrun ? [[`crun; containerd ${runtime}`, withCrun] as const] : []),
  ] as const) {
    yield {
      what: `${what} (${name})`,
      unit: '/s',
      gantry: one.perSecond,
      peer: theirs.perSecond,
      better: 'more',
    };
    yield { what: '  CPU time each', unit: 'ms', gantry: one.cpuMs, peer: theirs.cpuMs, better: 'less' };
  }
}

/** What many pods hold, and how they are asked for. */
async function* crowd({ gantry, containerd, quick }: CriBench): AsyncGenerator<Row> {
  const size = quick ? 20 : 50;
  const peers = [gantry, containerd];
  const memory = new Map<Peer, number>();
  const times = new Map<Peer, CallTimes>(peers.map((peer) => [peer, new Map()]));
  const crowds = new Map(peers.map((peer) => [peer, new PodCrowd(peer)]));
  for (const [peer, many] of crowds) {
    await many.grow(size);
    memory.set(peer, await many.memory());
    await many.ask(100, undefined);
  }
  for (let round = 0; round < 5; round++) {
    for (const [peer, many] of crowds) await many.ask(100, times.get(peer));
  }
  for (const many of crowds.values()) await many.disperse();
  yield {
    what: `memory (PSS) with ${size} pods of one container`,
    unit: 'MB',
    gantry: memory.get(gantry)! / 1e6,
    peer: memory.get(containerd)! / 1e6,
    better: 'less',
    aim: { times: 1 },
  };
  for (const name of ['list pods', 'list containers', 'pod status', 'container status', 'status', 'version']) {
    yield* latencies(name, `${name} (${size} pods)`, 1, times, gantry, containerd);
  }
}
