import path from 'node:path';
import { packAny } from '@gantry/api';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import { run } from '../test/lib/processes.ts';
import { TestRegistry } from '../test/lib/registry.ts';
import { FreshDisk } from './disk.ts';
import { buildBenchImages, sharingImages } from './image-data.ts';
import type { Peer } from './peers.ts';
import type { Row } from './report.ts';

const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch };

/** Pull and unpack through the transfer service, as `ctr image pull` does. Milliseconds. */
export async function pull(peer: Peer, reference: string): Promise<number> {
  const startedAt = performance.now();
  await peer.transfer.transfer({
    source: packAny(OCIRegistrySchema, { reference, resolver: { defaultScheme: 'http' } }),
    destination: packAny(ImageStoreSchema, {
      name: reference,
      platforms: [platform],
      unpacks: [{ platform, snapshotter: 'overlayfs' }],
    }),
  });
  return performance.now() - startedAt;
}

async function push(peer: Peer, name: string, reference: string): Promise<void> {
  await peer.transfer.transfer({
    source: packAny(ImageStoreSchema, { name }),
    destination: packAny(OCIRegistrySchema, { reference, resolver: { defaultScheme: 'http' } }),
  });
}

/** Removes an image and all that only it used. */
export async function forget(peer: Peer, reference: string): Promise<void> {
  await peer.images.delete({ name: reference, sync: true });
}

/** The top snapshot of the only image present: the one that is nobody's parent. */
export async function topSnapshot(peer: Peer): Promise<string> {
  const names = new Set<string>();
  const parents = new Set<string>();
  for await (const { info } of peer.snapshots.list({ snapshotter: 'overlayfs' })) {
    for (const snapshot of info) {
      names.add(snapshot.name);
      parents.add(snapshot.parent);
    }
  }
  const top = [...names].find((name) => name.startsWith('sha256:') && !parents.has(name));
  if (top === undefined) throw new Error(`${peer.name} has no snapshots`);
  return top;
}

/** What one piece of work took. */
interface Cost {
  seconds: number;
  /** User and system time of the daemon and of the helpers it ran. */
  cpu: number;
  /** Bytes. */
  peak: number;
  /** The longest that a JavaScript event loop was held up, seconds; undefined for others. */
  blocked: number | undefined;
}

async function measured(peer: Peer, work: () => Promise<unknown>): Promise<Cost> {
  await run('sync', []);
  peer.resetPeak();
  await peer.longestBlock();
  const cpu = peer.cpuSeconds();
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  return { seconds, cpu: peer.cpuSeconds() - cpu, peak: peer.peakMemory(), blocked: await peer.longestBlock() };
}

/** The better time of each, the worst memory: noise adds to the first, chance takes from the second. */
function merged(a: Cost | undefined, b: Cost): Cost {
  if (!a) return b;
  return {
    seconds: Math.min(a.seconds, b.seconds),
    cpu: Math.min(a.cpu, b.cpu),
    peak: Math.max(a.peak, b.peak),
    blocked: b.blocked === undefined ? undefined : Math.max(a.blocked ?? 0, b.blocked),
  };
}

export interface ImageBench {
  /** Where file systems and the registries lie. */
  directory: string;
  /** Where built images are kept, and found again. */
  images: string;
  /** A small image in `registry`, to warm up with. */
  warmUp: string;
  registry: TestRegistry;
  /** Makes the daemons anew, to be started by this. */
  peers: readonly ((directory: string) => Peer)[];
  ctr: string;
  quick: boolean;
  /** How often each case is measured. */
  rounds: number;
  only: ReadonlySet<string>;
}

interface Case {
  key: string;
  what: string;
  /** Runs before the measurement; answers the work to measure. */
  prepare(peer: Peer, round: number): Promise<() => Promise<unknown>>;
}

/**
 * Every case and round: a fresh file system, a daemon started on it and warmed up by a small pull, then the work; the daemons take turns.
 */
export async function* benchImages(bench: ImageBench): AsyncGenerator<Row> {
  const { quick, registry, directory } = bench;
  const megabytes = quick ? 200 : 1200;
  const layouts = await buildBenchImages(bench.images, { large: megabytes, shared: quick ? 40 : 200 });
  const second = await TestRegistry.start(path.join(directory, 'second'));
  try {
    const names = {
      many: await registry.fill(layouts.many, 'bench/many-files:latest'),
      large: await registry.fill(layouts.large, 'bench/large:latest'),
      real: await registry.fill(layouts.real, 'bench/real:latest'),
      small: await registry.fill(layouts.small, 'bench/small-layers:latest'),
    };
    const sharing: string[] = [];
    for (let tag = 0; tag < sharingImages; tag++) {
      sharing.push(await registry.fill(layouts.sharing, `bench/sharing-${tag}:latest`, String(tag)));
    }
    const pulled = (reference: string) => async (peer: Peer) => () => pull(peer, reference);
    const archive = path.join(directory, 'exported.tar');
    const ctr = (peer: Peer, ...args: string[]) =>
      run(bench.ctr, ['-a', peer.socket, '-n', 'bench', 'image', ...args], { timeoutMs: 600_000 });
    const cases: Case[] = [
      { key: 'many', what: 'pull, 42,000 files in 4 layers', prepare: pulled(names.many) },
      { key: 'large', what: `pull, ${megabytes} MB made up in 4 layers`, prepare: pulled(names.large) },
      { key: 'real', what: `pull, ${megabytes} MB of real files in 4 layers`, prepare: pulled(names.real) },
      { key: 'small', what: 'pull, 61 small layers', prepare: pulled(names.small) },
      {
        key: 'sharing',
        what: 'ten pulls at once that share layers',
        prepare: async (peer) => () => Promise.all(sharing.map((reference) => pull(peer, reference))),
      },
      {
        key: 'push',
        what: `push, ${megabytes} MB of real files`,
        prepare: async (peer, round) => {
          await pull(peer, names.real);
          return () => push(peer, names.real, `${second.address}/pushed/${peer.name}-${round}:latest`);
        },
      },
      {
        key: 'export',
        what: `export, ${megabytes} MB of real files`,
        prepare: async (peer) => {
          await pull(peer, names.real);
          return () => ctr(peer, 'export', archive, names.real);
        },
      },
      {
        key: 'import',
        what: `import, ${megabytes} MB of real files`,
        prepare: async (peer) => {
          await run('skopeo', [
            '--insecure-policy',
            'copy',
            '-q',
            `oci:${layouts.real}:latest`,
            `oci-archive:${archive}`,
          ]);
          return () => ctr(peer, 'import', archive);
        },
      },
    ];
    for (const one of cases) {
      if (bench.only.size > 0 && !bench.only.has(one.key)) continue;
      const costs = new Map<number, Cost>();
      const names: string[] = [];
      for (let round = 0; round < bench.rounds; round++) {
        for (const [index, make] of bench.peers.entries()) {
          await using disk = await FreshDisk.make(path.join(directory, `disk-${index}`));
          const peer = make(path.join(disk.path, 'd'));
          names[index] = peer.name;
          await peer.start();
          try {
            await pull(peer, bench.warmUp);
            const cost = await measured(peer, await one.prepare(peer, round));
            costs.set(index, merged(costs.get(index), cost));
            console.error(`  ${one.what}: ${peer.name} ${describe(cost)}`);
          } finally {
            await peer.dispose();
          }
        }
      }
      yield* rowsOf(one.what, costs.get(0)!, costs.get(1)!);
    }
  } finally {
    await second.close();
  }
}

function describe({ seconds, cpu, peak, blocked }: Cost): string {
  const loop = blocked === undefined ? '' : `, event loop ${(blocked * 1000).toFixed(0)} ms`;
  return `${seconds.toFixed(2)} s, CPU ${cpu.toFixed(2)} s, peak ${(peak / 1e6).toFixed(0)} MB${loop}`;
}

function* rowsOf(what: string, gantry: Cost, peer: Cost): Generator<Row> {
  yield { what, unit: 's', gantry: gantry.seconds, peer: peer.seconds, better: 'less' };
  yield { what: '  CPU time', unit: 's', gantry: gantry.cpu, peer: peer.cpu, better: 'less' };
  yield { what: '  peak memory (RSS)', unit: 'MB', gantry: gantry.peak / 1e6, peer: peer.peak / 1e6, better: 'less' };
  if (gantry.blocked !== undefined) {
    yield { what: '  event loop held up at most', unit: 'ms', gantry: gantry.blocked * 1000, better: 'less' };
  }
}
