import { killTask, type Rate, rate, runOnce, startSleeper, type Template } from './containers.ts';
import { Crowd } from './crowd.ts';
import { execOnce, execSlope } from './execs.ts';
import { firstBytes, quantile } from './first-byte.ts';
import { outputRate } from './output.ts';
import { type Peer, pss } from './peers.ts';
import type { Row } from './report.ts';
import { execAlone } from './runtime-alone.ts';

export interface RuntimeBench {
  gantry: Peer;
  containerd: Peer;
  /** Gantry again, where crun runs. */
  crun: Peer | undefined;
  template: Template;
  /** Name of the image, in both. */
  image: string;
  /** The client, for both. */
  ctr: string;
  quick: boolean;
  /** Processes of the case `execs`. */
  execs: number;
  /** Containers of the case `thousand`. */
  crowd: number;
  only: ReadonlySet<string>;
}

const megabyte = 1e6;

/** Daemons run for weeks: JavaScript is compiled in the first seconds. Both daemons get this before a rate is measured, and ten runs of `ctr` before those. */
const warmUpSeconds = 3;

/** The cases of `runtime`, each measured with both daemons in turns. */
export async function* benchRuntime(bench: RuntimeBench): AsyncGenerator<Row> {
  const wanted = (name: string): boolean => bench.only.size === 0 || bench.only.has(name);
  if (wanted('containers') || wanted('crun')) yield* containers(bench, wanted('crun'));
  if (wanted('exec')) yield* execs(bench);
  if (wanted('first-byte')) yield* firstByte(bench);
  if (wanted('output')) yield* output(bench);
  if (wanted('memory')) yield* memory(bench, wanted('thousand'));
  else if (wanted('thousand')) yield* thousand(bench, new Crowd(bench.gantry, bench.template), undefined);
  if (wanted('execs')) yield* manyExecs(bench);
}

function rows(what: string, gantry: Rate, peer: Rate, times: number): Row[] {
  return [
    { what, unit: '/s', gantry: gantry.perSecond, peer: peer.perSecond, better: 'more', aim: { times } },
    { what: '  CPU time each', unit: 'ms', gantry: gantry.cpuMs, peer: peer.cpuMs, better: 'less' },
  ];
}

async function* containers(bench: RuntimeBench, withCrun: boolean): AsyncGenerator<Row> {
  const { template, crun } = bench;
  const seconds = bench.quick ? 4 : 10;
  const measure = async (peer: Peer, parallel: number, { runtime, parents }: Template): Promise<Rate> => {
    if (parallel === 1)
      await rate(peer, 4, warmUpSeconds, (name) => runOnce(peer, { runtime, parents }, `warm${name}`));
    const result = await rate(peer, parallel, seconds, (name) => runOnce(peer, { runtime, parents }, name));
    console.error(
      `  ${parallel} at a time: ${peer.name} with ${runtime} ${result.perSecond.toFixed(1)} /s, CPU ${result.cpuMs.toFixed(1)} ms`,
    );
    return result;
  };
  const theirs = new Map<number, Rate>();
  for (const parallel of [1, 4, 16]) {
    const ours = await measure(bench.gantry, parallel, template);
    theirs.set(parallel, await measure(bench.containerd, parallel, template));
    yield* rows(`containers, ${parallel} at a time (${template.runtime})`, ours, theirs.get(parallel)!, 3);
  }
  if (!withCrun || !crun) return;
  for (const parallel of [1, 4, 16]) {
    const ours = await measure(crun, parallel, { ...template, runtime: 'crun' });
    yield* rows(
      `containers, ${parallel} at a time (crun; containerd ${template.runtime})`,
      ours,
      theirs.get(parallel)!,
      5,
    );
  }
}

async function* execs({ gantry, containerd, crun, template, quick }: RuntimeBench): AsyncGenerator<Row> {
  const theirs = new Map<number, Rate>();
  const measure = async (peer: Peer, parallel: number) => {
    if (parallel === 1) await rate(peer, 4, warmUpSeconds, (name) => execOnce(peer, 'exec', `warm${name}`));
    return rate(peer, parallel, quick ? 4 : 8, (name) => execOnce(peer, 'exec', `e${name}`));
  };
  for (const peer of [gantry, containerd]) await startSleeper(peer, template, 'exec');
  for (const parallel of [1, 4]) {
    const ours = await measure(gantry, parallel);
    theirs.set(parallel, await measure(containerd, parallel));
    yield* rows(`execs, ${parallel} at a time (${template.runtime})`, ours, theirs.get(parallel)!, 2);
  }
  const alone = await execAlone(gantry, 'exec', template.runtime, quick ? 4 : 8);
  yield { what: `${template.runtime} exec alone, 1 at a time`, unit: '/s', gantry: alone.perSecond, better: 'more' };
  yield { what: '  CPU time each', unit: 'ms', gantry: alone.cpuMs, better: 'less' };
  for (const peer of [gantry, containerd]) await killTask(peer, 'exec');
  if (!crun) return;
  await startSleeper(crun, { ...template, runtime: 'crun' }, 'exec');
  for (const parallel of [1, 4]) {
    const what = `execs, ${parallel} at a time (crun; containerd ${template.runtime})`;
    yield* rows(what, await measure(crun, parallel), theirs.get(parallel)!, 2);
  }
  await killTask(crun, 'exec');
}

async function* firstByte({ gantry, containerd, template, image, ctr, quick }: RuntimeBench): AsyncGenerator<Row> {
  await firstBytes([gantry, containerd], ctr, image, template.runtime, 10);
  const took = await firstBytes([gantry, containerd], ctr, image, template.runtime, quick ? 20 : 100);
  for (const [name, share] of [
    ['p50', 0.5],
    ['p99', 0.99],
  ] as const) {
    yield {
      what: `ctr run to its first byte, ${name}`,
      unit: 'ms',
      gantry: quantile(took.get(gantry)!, share),
      peer: quantile(took.get(containerd)!, share),
      better: 'less',
      aim: { times: 2 },
    };
  }
}

async function* output({ gantry, containerd, template, quick }: RuntimeBench): AsyncGenerator<Row> {
  for (const kind of ['container', 'exec'] as const) {
    const mode = kind === 'container' ? 'direct' : 'relayed';
    const ours = await outputRate(gantry, template, kind, quick ? 2048 : 8192);
    const theirs = await outputRate(containerd, template, kind, quick ? 2048 : 8192);
    yield {
      what: `output of one ${kind} (${mode})`,
      unit: 'MB/s',
      gantry: ours.perSecond / megabyte,
      peer: theirs.perSecond / megabyte,
      better: 'more',
      aim: { times: 1 },
    };
    yield {
      what: '  shim, of one core',
      unit: '%',
      gantry: ours.shim * 100,
      peer: theirs.shim * 100,
      better: 'less',
      ...(kind === 'container' ? { aim: { most: 1 } } : {}),
    };
  }
}

async function* memory(bench: RuntimeBench, withThousand: boolean): AsyncGenerator<Row> {
  const [few, many] = [10, 100];
  const sizes = new Map<Peer, [number, number]>();
  const ours = new Crowd(bench.gantry, bench.template);
  for (const peer of [bench.gantry, bench.containerd]) {
    const crowd = peer === bench.gantry ? ours : new Crowd(peer, bench.template);
    await crowd.grow(few);
    const small = await crowd.memory();
    await crowd.grow(many);
    sizes.set(peer, [small, await crowd.memory()]);
    if (peer !== bench.gantry || !withThousand) await crowd.disperse();
  }
  const [gantry, peer] = [sizes.get(bench.gantry)!, sizes.get(bench.containerd)!];
  yield {
    what: `memory (PSS) with ${many} idle containers`,
    unit: 'MB',
    gantry: gantry[1] / megabyte,
    peer: peer[1] / megabyte,
    better: 'less',
    aim: { times: 3 },
  };
  yield {
    what: `  for each container from ${few} to ${many}`,
    unit: 'KB',
    gantry: (gantry[1] - gantry[0]) / (many - few) / 1e3,
    peer: (peer[1] - peer[0]) / (many - few) / 1e3,
    better: 'less',
    aim: { most: 300 },
  };
  if (withThousand) yield* thousand(bench, ours, { size: many, memory: gantry[1] });
}

/** Gantry alone: a thousand containers, how long they took, how they are listed and what they hold. */
async function* thousand(
  { crowd: size, ctr }: RuntimeBench,
  crowd: Crowd,
  from: { size: number; memory: number } | undefined,
): AsyncGenerator<Row> {
  const startedAt = performance.now();
  await crowd.grow(size);
  const seconds = (performance.now() - startedAt) / 1000;
  const what = `${size.toLocaleString('en')} containers`;
  yield { what: `${what}: started`, unit: 's', gantry: seconds, better: 'less' };
  const held = await crowd.memory();
  yield { what: `  memory (PSS)`, unit: 'MB', gantry: held / megabyte, better: 'less' };
  if (from) {
    yield {
      what: `  for each container from ${from.size} on`,
      unit: 'KB',
      gantry: (held - from.memory) / (size - from.size) / 1e3,
      better: 'less',
      aim: { most: 300 },
    };
  }
  const { call, command } = await crowd.listTimes(ctr);
  yield { what: '  listed (call)', unit: 'ms', gantry: call, better: 'less', aim: { most: 100 } };
  yield { what: '  listed (ctr tasks ls)', unit: 'ms', gantry: command, better: 'less', aim: { most: 100 } };
  await crowd.disperse();
}

async function* manyExecs({ gantry, template, execs, quick }: RuntimeBench): AsyncGenerator<Row> {
  await startSleeper(gantry, template, 'slope');
  const shims = gantry.shims();
  const size = () => shims.reduce((sum, pid) => sum + pss(pid), 0);
  const { execs: number, slope, middle, end } = await execSlope(gantry, 'slope', quick ? 500 : execs, size);
  await killTask(gantry, 'slope');
  const what = `${number.toLocaleString('en')} execs`;
  yield { what: `${what}: shim in the middle (PSS)`, unit: 'MB', gantry: middle / megabyte, better: 'less' };
  yield { what: '  at the end', unit: 'MB', gantry: end / megabyte, better: 'less' };
  yield { what: '  growth in the second half, each exec', unit: 'bytes', gantry: slope, better: 'less' };
}
