import { jsonAny, packAny, TypeUrl } from '@gantry/api';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { defaultSpec, withImageConfig } from '@gantry/oci';
import type { Peer } from './peers.ts';

/** What containers are made of. */
export interface Template {
  /** The top layer of the image, by peer. */
  parents: ReadonlyMap<Peer, string>;
  /** The OCI runtime: a name or a path. */
  runtime: string;
}

/** Streams of a task: paths of FIFOs. */
export interface Streams {
  stdout?: string;
  stderr?: string;
}

/** A snapshot, container and task without streams, from the busybox image. */
export async function createTask(
  peer: Peer,
  { parents, runtime }: Template,
  id: string,
  args: readonly string[],
  streams: Streams = {},
): Promise<void> {
  const spec = defaultSpec('bench', id);
  withImageConfig(spec, {}, args);
  spec.linux!.cgroupsPath = `${peer.account.path}/${id}`;
  // crun 1.8 takes no later version; runc does not look.
  spec.ociVersion = '1.0.2';
  const options = packAny(OptionsSchema, { binaryName: runtime, root: peer.runtimeRoot });
  const { mounts } = await peer.snapshots.prepare({
    snapshotter: 'overlayfs',
    key: id,
    parent: parents.get(peer)!,
    // No collection may take it before its container is there.
    labels: { 'containerd.io/gc.root': 'bench' },
  });
  await peer.containers.create({
    container: {
      id,
      image: 'bench',
      runtime: { name: 'io.containerd.runc.v2', options },
      spec: jsonAny(TypeUrl.RuntimeSpec, JSON.stringify(spec)),
      snapshotter: 'overlayfs',
      snapshotKey: id,
    },
  });
  await peer.tasks.create({ containerId: id, rootfs: mounts, ...streams });
}

/** The process document of an exec. */
export function processAny(args: readonly string[]) {
  const { process } = defaultSpec('bench', 'exec');
  return jsonAny(
    TypeUrl.RuntimeSpecProcess,
    JSON.stringify({ ...process, args, env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] }),
  );
}

export async function removeTask(peer: Peer, id: string): Promise<void> {
  await peer.tasks.delete({ containerId: id });
  await peer.containers.delete({ id });
  await peer.snapshots.remove({ snapshotter: 'overlayfs', key: id });
}

/** A container that sleeps until it is killed. */
export async function startSleeper(peer: Peer, template: Template, id: string): Promise<void> {
  await createTask(peer, template, id, ['sleep', '36000']);
  await peer.tasks.start({ containerId: id });
}

export async function killTask(peer: Peer, id: string): Promise<void> {
  const exited = peer.tasks.wait({ containerId: id });
  await Promise.all([exited, peer.tasks.kill({ containerId: id, signal: 9, all: true })]);
  await removeTask(peer, id);
}

/** Create, start, wait, delete: once, whole. */
export async function runOnce(peer: Peer, template: Template, id: string): Promise<void> {
  await createTask(peer, template, id, ['true']);
  const exited = peer.tasks.wait({ containerId: id });
  await peer.tasks.start({ containerId: id });
  const { exitStatus } = await exited;
  if (exitStatus !== 0) throw new Error(`${peer.name}: ${id} ended with ${exitStatus}`);
  await removeTask(peer, id);
}

/** How often something was done a second, and what that took. */
export interface Rate {
  perSecond: number;
  /** Milliseconds of processor time each: daemon, shims, runtimes and containers. */
  cpuMs: number;
}

/** Does `work` again and again for some seconds, in lanes beside each other. */
export async function rate(
  peer: Peer,
  parallel: number,
  seconds: number,
  work: (name: string) => Promise<void>,
): Promise<Rate> {
  let done = 0;
  const cpu = peer.account.seconds();
  const startedAt = performance.now();
  const until = startedAt + seconds * 1000;
  await lanes(parallel, async (lane) => {
    for (let number = 0; performance.now() < until; number++) {
      await work(`${parallel}-${lane}-${number}`);
      done++;
    }
  });
  const elapsed = performance.now() - startedAt;
  return { perSecond: (done * 1000) / elapsed, cpuMs: ((peer.account.seconds() - cpu) * 1000) / done };
}

/** Runs something once in each of so many lanes; the first failure counts once all have ended. */
export async function lanes(parallel: number, work: (lane: number) => Promise<void>): Promise<void> {
  const ended = await Promise.allSettled(Array.from({ length: parallel }, (_, lane) => work(lane)));
  for (const one of ended) if (one.status === 'rejected') throw one.reason;
}
