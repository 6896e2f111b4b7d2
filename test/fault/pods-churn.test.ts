import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually } from '../lib/processes.ts';
import { PodCrowd } from './pods-crowd.ts';
import { controlSocket, type Held, held, knowLines, type Usage, usage } from './pods-held.ts';
import { PodsLab } from './pods-lab.ts';
import { Random } from './random.ts';
import { lineThrough } from './slope.ts';
import { nothingRuns } from './survey.ts';

/**
 * Pods of two containers each, started, listed, killed and removed again and again: at rest after each round there is what there was
 * after the first. `npm run test:pods` does it with 100 pods for 10 minutes (`GANTRY_PODS`, `GANTRY_PODS_SECONDS`).
 */
const size = Number(process.env['GANTRY_PODS'] ?? 4);
const seconds = Number(process.env['GANTRY_PODS_SECONDS'] ?? 0);
const shortRounds = 3;
/** After so long at rest daemon and shim have given back the memory that they do not need (`idle-memory.ts`). */
const restMs = 4000;
/** Rounds after which caches are full, code is compiled and heaps have grown to what they need. */
const warmUp = seconds > 0 ? 3 : 1;

/** What may be left of each pod and its containers in memory, KiB. V8’s heap still takes a little for code that has become hot late. */
const perPod = { heap: 1, anonymous: 20, rss: 20, pss: 20 } as const;

interface Sample {
  held: Held;
  daemon: Usage;
  shim: Usage;
}

describe('pods that come and go', { skip: CriLab.missing() }, () => {
  const lab = new PodsLab('pods', { bridge: 'gantrypods0', subnet: '10.203.0.0/16' });
  const random = Random.fromEnvironment();
  const crowd = new PodCrowd(lab, random, size);
  before(async () => {
    await lab.open();
    crowd.listen();
  });
  after(async () => {
    await crowd.close();
    await lab.close();
  });

  test(`${size} pods, for ${seconds > 0 ? `${seconds} s` : `${shortRounds} rounds`}: nothing grows`, {
    timeout: 300_000 + 3 * seconds * 1000,
  }, async (t) => {
    const say = seconds > 0 ? console.log : (text: string) => t.diagnostic(text);
    say(`GANTRY_FAULT_SEED=${random.seed}`);
    // One pod stays, and with it the shim, whose memory is looked at too.
    const anchor = lab.podConfig('anchor');
    const anchorId = await lab.runPod(anchor);
    const samples: Sample[] = [];
    const end = performance.now() + seconds * 1000;
    while (seconds > 0 ? performance.now() < end : samples.length < shortRounds) {
      if (seconds > 0 && samples.length === warmUp - 1) await Promise.all(debugSockets().map(knowLines));
      const begun = performance.now();
      const startedMs = await crowd.round();
      const tookMs = performance.now() - begun;
      const sample = await atRest(samples[0]);
      samples.push(sample);
      say(describeSample(samples.length, startedMs, tookMs, sample));
    }
    await lab.client.runtime.removePodSandbox({ podSandboxId: anchorId });
    judge(samples, say);
  });

  test('and at the end there is nothing', async () => {
    await crowd.close();
    let left: object = {};
    await eventually(
      'nothing of a pod is left',
      async () => {
        const { state: _, root: __, snapshots: ___, processes: ____, ...counts } = await held(lab);
        left = counts;
        return Object.values(counts).every((count) => count === 0) ? true : undefined;
      },
      60_000,
    ).catch((error) => assert.fail(`${(error as Error).message}: ${JSON.stringify(left)}`));
    lab.disconnect();
    await lab.cri.close();
    await nothingRuns(lab.directory);
  });

  /** What is let go of a moment after the answer is waited for. */
  async function atRest(first: Sample | undefined): Promise<Sample> {
    // What nobody names any more goes now.
    await lab.connection.leases.create({ id: 'collect' });
    await lab.connection.leases.delete({ id: 'collect', sync: true });
    const rest = await eventually(
      'what there was after the first round',
      async () => {
        const now = await held(lab);
        // The kernel removes interfaces some time after their namespace.
        if (!first) return now.interfaces === now.netns ? now : undefined;
        return Object.entries(now).every(([name, value]) => value <= first.held[name as keyof Held]) ? now : undefined;
      },
      30_000,
    ).catch(() => held(lab));
    if (seconds > 0) await sleep(restMs);
    const [shim = 0, ...more] = lab.shims();
    assert.deepEqual(more, [], 'one shim has all');
    return {
      held: rest,
      daemon: await usage(lab.daemon.pid, debugSockets()[0]!),
      shim: await usage(shim, debugSockets()[1]!),
    };
  }

  function debugSockets(): string[] {
    return [path.join(lab.directory, 'debug.sock'), controlSocket(lab)];
  }

  function judge(samples: readonly Sample[], say: (text: string) => void): void {
    const warm = samples.slice(Math.min(warmUp, samples.length - 2));
    const grown: string[] = [];
    const loose = seconds > 0 ? 0.5 : size / 2;
    // In a few rounds memory grows by what V8 compiles.
    const judged = warm.length >= 5;
    if (seconds > 0 && !judged) say(`${warm.length} rounds after the first are too few to judge memory by`);
    const row = (name: string, of: (sample: Sample) => number, bound: number, slack = 0): void => {
      const values = warm.map(of);
      const { slope, error } = lineThrough(values);
      // A count that is strictly more at the end than at the beginning has grown, whatever the line.
      const more = values.at(-1)! - values[0]!;
      const grows = bound > 0 ? slope - 2 * error > bound && more > slack : more > 0 && slope > 0;
      const verdict = grows ? 'GROWS' : Number.isFinite(bound) ? 'steady' : 'not judged';
      const told = `${values[0]} … ${values.at(-1)}`;
      const limit = bound > 0 && Number.isFinite(bound) ? `, bound ${bound}` : '';
      say(
        `${name.padEnd(20)} ${told.padStart(20)}  slope ${slope.toFixed(2).padStart(8)} ±${error.toFixed(2)} a round${limit}: ${verdict}`,
      );
      if (grows) grown.push(`${name}: ${values.join(' ')}`);
    };
    for (const name of Object.keys(warm[0]!.held) as (keyof Held)[]) row(name, (sample) => sample.held[name], 0);
    for (const who of ['daemon', 'shim'] as const) {
      // Connections and threads that come and go by themselves; one of each pod would be many more.
      row(`${who} descriptors`, (sample) => sample[who].descriptors, loose, 2);
      row(`${who} threads`, (sample) => sample[who].threads, loose, 2);
      if (seconds === 0) continue;
      for (const kind of ['heap', 'anonymous', 'rss', 'pss'] as const)
        row(
          `${who} ${kind} KiB`,
          (sample) => sample[who][kind],
          judged ? perPod[kind] * size : Number.POSITIVE_INFINITY,
        );
    }
    assert.deepEqual(grown, []);
  }
});

function describeSample(
  round: number,
  startedMs: number,
  tookMs: number,
  { held: rest, daemon, shim }: Sample,
): string {
  const counts = Object.entries(rest).map(([name, value]) => `${name} ${value}`);
  const of = (name: string, { descriptors, threads, rss, pss, anonymous, heap }: Usage): string =>
    `${name}: fds ${descriptors}, threads ${threads}, RSS ${rss}, PSS ${pss}, anonymous ${anonymous}, heap ${heap} KiB`;
  return `round ${round}: ${(startedMs / 1000).toFixed(1)} s until all ran, ${(tookMs / 1000).toFixed(1)} s; ${counts.join(', ')}; ${of('daemon', daemon)}; ${of('shim', shim)}`;
}
