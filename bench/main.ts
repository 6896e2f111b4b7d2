/**
 * `npm run bench -- --peer PATH-TO-containerd [--runtime runc] [--quick] [--images DIR] [--execs N] [start] [calls] [runtime[:CASE]] [images[:CASE]] [cri[:CASE]]`:
 * both daemons, the same work in turns in one run, ratios. Absolute numbers are this machine's; the ratios are the point.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { lookPath } from '../packages/shim/src/oci-runtime.ts';
import { buildImage, busyboxLayer } from '../test/lib/images.ts';
import { TestRegistry } from '../test/lib/registry.ts';
import { makeTempDir } from '../test/lib/temp-dir.ts';
import { callsPerSecond, contentThroughput, versionCommand } from './calls.ts';
import { CpuAccount } from './cpu-account.ts';
import { benchCri } from './cri.ts';
import {
  configureCri,
  containerImage,
  fillCriImages,
  missingForCri,
  removeNetwork,
  removePods,
  tolerantCrun,
} from './cri-lab.ts';
import { benchImages, forget, pull, topSnapshot } from './images.ts';
import { Peer } from './peers.ts';
import { type Row, report } from './report.ts';
import { benchRuntime } from './runtime.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string' },
    runtime: { type: 'string', default: 'runc' },
    quick: { type: 'boolean', default: false },
    images: { type: 'string' },
    rounds: { type: 'string' },
    'no-igzip': { type: 'boolean', default: false },
    execs: { type: 'string', default: '2000' },
    crowd: { type: 'string', default: '1000' },
    critest: { type: 'string' },
  },
});
if (!values.peer || !existsSync(values.peer)) {
  console.error(
    'usage: npm run bench -- --peer PATH-TO-containerd [--runtime runc] [--quick] [--images DIR] [--rounds N] [--no-igzip] [--execs N] [--crowd N] [--critest PATH] [sections]',
  );
  console.error(
    '  sections: start calls runtime images cri, or of the last three only runtime:CASE, images:CASE, cri:CASE',
  );
  console.error(
    '  cases of runtime: containers crun exec first-byte output memory thousand execs; --execs: processes of the last, --crowd: not 1,000',
  );
  console.error(
    '  cases of images: many large real small sharing push export import; --images keeps the built images for the next run',
  );
  console.error(
    '  cases of cri: critest cpu crowd logs restart, and nri by its name only; --critest: its binary, of sigs.k8s.io/cri-tools v1.36 (default: beside the peer)',
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

/** 10.N.0.0/16 is the network of the first daemon's pods; the others follow. */
const criNetwork = 231;
const sections = new Set(positionals.length > 0 ? positionals : ['start', 'calls', 'runtime', 'images', 'cri']);
const { runtime, quick, peer: peerPath } = values;
const critest = path.resolve(values.critest ?? path.join(path.dirname(peerPath), 'critest'));
const missing = casesOf('cri') && missingForCri(critest);
if (missing) {
  console.error(`the section cri needs ${missing}`);
  // What nobody named is left out; what somebody did is not, and better now than at the end of all the others.
  if (positionals.length > 0) process.exit(2);
  sections.delete('cri');
}
const temp = makeTempDir('bench');
const rows: Row[] = [];
const gantry = Peer.gantry(path.join(temp.path, 'g'));
const containerd = Peer.containerd(path.join(temp.path, 'c'), path.resolve(values.peer));
const peers = [gantry, containerd] as const;
let registry: TestRegistry | undefined;
let crun: Peer | undefined;
/** Those of the section `cri`, which have a configuration of their own. */
const criPeers: Peer[] = [];
let client: CpuAccount | undefined;

/** The cases asked for of a section; none: all of them; undefined: the section was not asked for. */
function casesOf(section: string): ReadonlySet<string> | undefined {
  if (sections.has(section)) return new Set();
  const cases = [...sections]
    .filter((one) => one.startsWith(`${section}:`))
    .map((one) => one.slice(section.length + 1));
  return cases.length > 0 ? new Set(cases) : undefined;
}

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
  const runtimeCases = casesOf('runtime');
  if (runtimeCases) {
    const wantsCrun = runtimeCases.size === 0 || runtimeCases.has('crun') || runtimeCases.has('exec');
    const crunToo = wantsCrun && lookPath('crun') !== undefined;
    if (crunToo) {
      crun = Peer.gantry(path.join(temp.path, 'gc'));
      crun.legacyCgroups = true;
      await crun.start();
    }
    const all = [...peers, ...(crun ? [crun] : [])];
    const parents = new Map<Peer, string>();
    for (const peer of all) {
      await pull(peer, busybox);
      parents.set(peer, await topSnapshot(peer));
    }
    const bench = benchRuntime({
      gantry,
      containerd,
      crun,
      template: { parents, runtime },
      image: busybox,
      ctr: containerd.ctr,
      quick,
      execs: Number(values.execs),
      crowd: Number(values.crowd),
      only: runtimeCases,
    });
    for await (const row of bench) {
      rows.push(row);
      console.error(`${row.what}: ${row.gantry.toFixed(1)} ${row.peer?.toFixed(1) ?? ''} ${row.unit}`);
    }
    for (const peer of all) await forget(peer, busybox);
    await crun?.stop();
  }
  const imageCases = casesOf('images');
  if (imageCases) {
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
      only: imageCases,
    });
    for await (const row of bench) rows.push(row);
  }
  const criCases = casesOf('cri');
  if (criCases) {
    for (const peer of peers) await peer.stop();
    await fillCriImages(temp.path, registry);
    criPeers.push(
      Peer.gantry(path.join(temp.path, 'gk')),
      Peer.containerd(path.join(temp.path, 'ck'), path.resolve(peerPath)),
    );
    const crunBinary = lookPath('crun');
    if (crunBinary !== undefined && (criCases.size === 0 || criCases.has('crun'))) {
      const third = Peer.gantry(path.join(temp.path, 'gkc'));
      third.legacyCgroups = true;
      criPeers.push(third);
    }
    for (const [index, peer] of criPeers.entries()) {
      peer.nri = criCases.has('nri');
      configureCri(peer, index === 2 ? tolerantCrun(temp.path, crunBinary!) : runtime, criNetwork + index, registry);
      await peer.start();
      await peer.podImages.pullImage({ image: { image: containerImage } });
    }
    // The clients' calls are short: what else goes on would be most of their time.
    client = new CpuAccount(`gantry-bench-${process.pid}-client`);
    client.add(process.pid);
    for (const account of [client, ...criPeers.map((peer) => peer.account)]) account.goFirst();
    const [ours, theirs, withCrun] = criPeers;
    const bench = benchCri({
      gantry: ours!,
      containerd: theirs!,
      crun: withCrun,
      runtime,
      critest,
      quick,
      only: criCases,
    });
    for await (const row of bench) {
      rows.push(row);
      console.error(`${row.what}: ${row.gantry.toFixed(2)} ${row.peer?.toFixed(2) ?? ''} ${row.unit}`);
    }
  }
  console.log(report(rows));
} catch (error) {
  // Told before the tidying up, which may fail for it, and with what was measured until then.
  console.error(error);
  if (rows.length > 0) console.log(report(rows));
  process.exitCode = 1;
} finally {
  for (const peer of criPeers) await removePods(peer).catch((error: unknown) => console.error(error));
  for (const peer of [...peers, ...criPeers, ...(crun ? [crun] : [])])
    await peer.dispose().catch((error: unknown) => {
      console.error(error);
      process.exitCode = 1;
    });
  client?.release(process.pid);
  await client?.remove();
  for (const index of criPeers.keys()) await removeNetwork(criNetwork + index);
  await registry?.close();
  await temp.remove();
}
