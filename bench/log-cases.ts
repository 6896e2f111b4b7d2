import path from 'node:path';
import { type LogLoad, type LogRate, logRate, ordinaryLine, plainRate } from './cri-logs.ts';
import { quantile } from './first-byte.ts';
import type { Peer } from './peers.ts';
import type { Row } from './report.ts';

type Plain = Awaited<ReturnType<typeof plainRate>>;

/** Containers that flood their logs, in memory and on disk, and somebody who waits for a line among it. */
export async function* benchLogs(peers: readonly [Peer, Peer], quick: boolean): AsyncGenerator<Row> {
  const rounds = quick ? 1 : 3;
  const one: Omit<LogLoad, 'directory'> = {
    megabytes: quick ? 200 : 1000,
    lineBytes: ordinaryLine,
    containers: 1,
    quiet: false,
  };
  const many = { ...one, containers: 20, quiet: true };
  const short = { ...one, megabytes: quick ? 30 : 100, lineBytes: 10 };
  const inMemory = (peer: Peer): string => path.join(peer.state, 'bench-logs');
  const onDisk = (peer: Peer): string => path.join(peer.directory, 'bench-logs');

  yield* rates('log of a container that floods, lines of 106 bytes', await best(peers, one, inMemory, rounds));
  yield* rates(
    'the same, log on disk',
    await best(peers, one, onDisk, rounds),
    await plain(peers[0], one, onDisk, rounds),
  );
  yield* rates('the same, lines of 10 bytes', await best(peers, short, onDisk, rounds));
  const crowd = await best(peers, many, onDisk, rounds);
  yield* rates('20 containers at once, log on disk', crowd);
  for (const [label, share] of [
    ['p50', 0.5],
    ['p99', 0.99],
    ['worst', 1],
  ] as const) {
    const [gantry, peer] = crowd.map(({ delays }) => quantile(delays, share));
    yield {
      what: `  until a line of a quiet one is read, ${label}`,
      unit: 'ms',
      gantry: gantry!,
      peer,
      better: 'less',
    };
  }
}

/** The best of some rounds, in turns; all delays. */
async function best(
  peers: readonly [Peer, Peer],
  load: Omit<LogLoad, 'directory'>,
  where: (peer: Peer) => string,
  rounds: number,
): Promise<[LogRate, LogRate]> {
  const all: [LogRate[], LogRate[]] = [[], []];
  for (let round = 0; round < rounds; round++)
    for (const [index, peer] of peers.entries())
      all[index]!.push(await logRate(peer, { ...load, directory: where(peer) }));
  return [bestOf(all[0]), bestOf(all[1])];
}

function bestOf(all: readonly LogRate[]): LogRate {
  return {
    perSecond: Math.max(...all.map((one) => one.perSecond)),
    syncedPerSecond: Math.max(...all.map((one) => one.syncedPerSecond)),
    cpuMs: Math.min(...all.map((one) => one.cpuMs)),
    delays: all.flatMap(({ delays }) => delays).sort((a, b) => a - b),
  };
}

async function plain(
  peer: Peer,
  load: Omit<LogLoad, 'directory'>,
  where: (peer: Peer) => string,
  rounds: number,
): Promise<Plain> {
  const all: Plain[] = [];
  for (let round = 0; round < rounds; round++) all.push(await plainRate(peer, { ...load, directory: where(peer) }));
  return {
    perSecond: Math.max(...all.map((one) => one.perSecond)),
    syncedPerSecond: Math.max(...all.map((one) => one.syncedPerSecond)),
  };
}

function* rates(what: string, [ours, theirs]: readonly [LogRate, LogRate], written?: Plain): Generator<Row> {
  const row = (name: string, gantry: number, peer: number | undefined): Row => ({
    what: name,
    unit: 'MB/s',
    gantry: gantry / 1e6,
    peer: peer === undefined ? undefined : peer / 1e6,
    better: 'more',
  });
  yield row(what, ours.perSecond, theirs.perSecond);
  if (written) {
    yield row('  until it is synced', ours.syncedPerSecond, theirs.syncedPerSecond);
    yield row('  the same bytes written by dd', written.perSecond, undefined);
    yield row('  the same bytes written by dd, until they are synced', written.syncedPerSecond, undefined);
  }
  yield {
    what: '  CPU time of daemon and shims for 100 MB',
    unit: 'ms',
    gantry: ours.cpuMs * 100,
    peer: theirs.cpuMs * 100,
    better: 'less',
  };
}
