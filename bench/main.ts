/**
 * `npm run bench -- --peer PATH-TO-containerd [--runtime runc] [--quick] [--images DIR] [containers] [images[:CASE]] [calls] [memory] [start]`:
 * both daemons, the same work in turns in one run, ratios. Absolute numbers are this machine's; the ratios are the point.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { removeEmptyCgroup } from '@gantry/cgroups';
import { buildImage, busyboxLayer } from '../test/lib/images.ts';
import { TestRegistry } from '../test/lib/registry.ts';
import { makeTempDir } from '../test/lib/temp-dir.ts';
import { callsPerSecond, contentThroughput, versionCommand } from './calls.ts';
import { containersPerSecond, memoryWith } from './containers.ts';
import { benchImages, forget, pull, topSnapshot } from './images.ts';
import { Peer } from './peers.ts';
import { type Row, report } from './report.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string' },
    runtime: { type: 'string', default: 'runc' },
    quick: { type: 'boolean', default: false },
    images: { type: 'string' },
    rounds: { type: 'string' },
    'no-igzip': { type: 'boolean', default: false },
  },
});
if (!values.peer || !existsSync(values.peer)) {
  console.error(
    'usage: npm run bench -- --peer PATH-TO-containerd [--runtime runc] [--quick] [--images DIR] [--rounds N] [--no-igzip] [sections]',
  );
  console.error('  sections: start calls containers memory images, or of the last only images:CASE');
  console.error(
    '  cases: many large real small sharing push export import; --images keeps the built images for the next run',
  );
  console.error('  --no-igzip: neither daemon may use igzip or unpigz');
  console.error(
    '  the peer is containerd 2.3.4: go install github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}@v2.3.4',
  );
  process.exit(2);
}
if (process.getuid?.() !== 0) {
  console.error('the benchmark runs containers: it needs root');
  process.exit(2);
}

const sections = new Set(positionals.length > 0 ? positionals : ['start', 'calls', 'containers', 'memory', 'images']);
const { runtime, quick, peer: peerPath } = values;
const temp = makeTempDir('bench');
const rows: Row[] = [];
const gantry = Peer.gantry(path.join(temp.path, 'g'));
const containerd = Peer.containerd(path.join(temp.path, 'c'), path.resolve(values.peer));
const peers = [gantry, containerd] as const;
let registry: TestRegistry | undefined;

/** Measures both, one after the other, and notes a row. */
async function both(
  what: string,
  unit: string,
  better: Row['better'],
  measure: (peer: Peer) => Promise<number>,
): Promise<void> {
  const numbers: number[] = [];
  for (const peer of peers) numbers.push(await measure(peer));
  rows.push({ what, unit, gantry: numbers[0]!, peer: numbers[1]!, better });
  console.error(`${what}: gantry ${numbers[0]!.toFixed(1)} ${unit}, containerd ${numbers[1]!.toFixed(1)} ${unit}`);
}

try {
  const starts = new Map<Peer, number>();
  for (const peer of peers) {
    await peer.start();
    await peer.stop();
    starts.set(peer, await peer.start());
  }
  registry = await TestRegistry.start(temp.path);
  const layout = path.join(temp.path, 'images/busybox');
  await buildImage(layout, [busyboxLayer], { Cmd: ['sh'] });
  const busybox = await registry.fill(layout, 'bench/busybox:latest');

  if (sections.has('start')) {
    await both('daemon start until it answers', 'ms', 'less', async (peer) => starts.get(peer)!);
    await both('ctr version', 'ms', 'less', (peer) => versionCommand(peer, quick ? 5 : 15));
  }
  if (sections.has('calls')) {
    const seconds = quick ? 2 : 5;
    for (const parallel of [1, 16]) {
      await both(`gRPC calls, ${parallel} at a time`, '/s', 'more', (peer) => callsPerSecond(peer, parallel, seconds));
    }
    const throughput = new Map<Peer, { write: number; read: number }>();
    for (const peer of peers) throughput.set(peer, await contentThroughput(peer, quick ? 128 : 512));
    await both('content write', 'MB/s', 'more', async (peer) => throughput.get(peer)!.write);
    await both('content read', 'MB/s', 'more', async (peer) => throughput.get(peer)!.read);
  }
  if (sections.has('containers') || sections.has('memory')) {
    for (const peer of peers) await pull(peer, busybox);
    const parents = new Map<Peer, string>();
    for (const peer of peers) parents.set(peer, await topSnapshot(peer));
    if (sections.has('containers')) {
      const seconds = quick ? 5 : 15;
      for (const parallel of [1, 4]) {
        await both(`containers, ${parallel} at a time (${runtime})`, '/s', 'more', (peer) =>
          containersPerSecond(peer, parents.get(peer)!, runtime, parallel, seconds),
        );
      }
    }
    if (sections.has('memory')) {
      const numbers = quick ? [1, 15, 30] : [1, 15, 30, 100];
      const sizes = new Map<Peer, number[]>();
      for (const peer of peers) sizes.set(peer, await memoryWith(peer, parents.get(peer)!, runtime, numbers));
      for (const [index, number] of numbers.entries()) {
        await both(
          `memory (PSS) with ${number} containers`,
          'MB',
          'less',
          async (peer) => sizes.get(peer)![index]! / 1e6,
        );
      }
    }
    for (const peer of peers) await forget(peer, busybox);
  }
  const cases = [...sections].filter((section) => section.startsWith('images:')).map((section) => section.slice(7));
  if (sections.has('images') || cases.length > 0) {
    for (const peer of peers) await peer.stop();
    const environment = values['no-igzip'] ? { CONTAINERD_DISABLE_IGZIP: '1', CONTAINERD_DISABLE_PIGZ: '1' } : {};
    const withEnvironment = (make: (directory: string) => Peer) => (directory: string) => {
      const peer = make(directory);
      Object.assign(peer.environment, environment);
      return peer;
    };
    const bench = benchImages({
      directory: temp.path,
      images: values.images ?? path.join(temp.path, 'images'),
      warmUp: busybox,
      registry,
      peers: [
        withEnvironment((directory) => Peer.gantry(directory)),
        withEnvironment((directory) => Peer.containerd(directory, path.resolve(peerPath))),
      ],
      ctr: containerd.ctr,
      quick,
      rounds: Number(values.rounds ?? (quick ? 1 : 3)),
      only: new Set(sections.has('images') ? [] : cases),
    });
    for await (const row of bench) rows.push(row);
  }
  console.log(report(rows));
} finally {
  for (const peer of peers) await peer.stop();
  await registry?.close();
  // The group above the containers' groups, of either daemon.
  await removeEmptyCgroup('/bench');
  await temp.remove();
}
