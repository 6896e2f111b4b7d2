import { jsonAny, packAny, TypeUrl } from '@gantry/api';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { defaultSpec, withImageConfig } from '@gantry/oci';
import type { Peer } from './peers.ts';

/** A snapshot, container and task without streams, from the busybox image whose top layer is `parent`. */
export async function createTask(
  peer: Peer,
  id: string,
  parent: string,
  args: readonly string[],
  runtime: string,
): Promise<void> {
  const spec = defaultSpec('bench', id);
  withImageConfig(spec, {}, args);
  const options = packAny(OptionsSchema, { binaryName: runtime });
  const { mounts } = await peer.snapshots.prepare({
    snapshotter: 'overlayfs',
    key: id,
    parent,
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
  await peer.tasks.create({ containerId: id, rootfs: mounts });
}

export async function removeTask(peer: Peer, id: string): Promise<void> {
  await peer.tasks.delete({ containerId: id });
  await removeContainer(peer, id);
}

async function removeContainer(peer: Peer, id: string): Promise<void> {
  await peer.containers.delete({ id });
  await peer.snapshots.remove({ snapshotter: 'overlayfs', key: id });
}

/** Create, start, wait, delete: once, whole. */
export async function runOnce(peer: Peer, id: string, parent: string, runtime: string): Promise<void> {
  await createTask(peer, id, parent, ['true'], runtime);
  const exited = peer.tasks.wait({ containerId: id });
  await peer.tasks.start({ containerId: id });
  const { exitStatus } = await exited;
  if (exitStatus !== 0) throw new Error(`${peer.name}: ${id} ended with ${exitStatus}`);
  await removeTask(peer, id);
}

/** Containers per second over `seconds`, `parallel` at a time. */
export async function containersPerSecond(
  peer: Peer,
  parent: string,
  runtime: string,
  parallel: number,
  seconds: number,
): Promise<number> {
  let done = 0;
  const startedAt = performance.now();
  const until = startedAt + seconds * 1000;
  await Promise.all(
    Array.from({ length: parallel }, async (_, lane) => {
      for (let number = 0; performance.now() < until; number++) {
        await runOnce(peer, `b${parallel}-${lane}-${number}`, parent, runtime);
        done++;
      }
    }),
  );
  return (done * 1000) / (performance.now() - startedAt);
}

/** Proportional memory with each number of sleeping containers, bytes, in ascending order of numbers. */
export async function memoryWith(
  peer: Peer,
  parent: string,
  runtime: string,
  numbers: readonly number[],
): Promise<number[]> {
  const sizes: number[] = [];
  let running = 0;
  for (const number of numbers) {
    for (; running < number; running++) {
      await createTask(peer, `m${running}`, parent, ['sleep', '3600'], runtime);
      await peer.tasks.start({ containerId: `m${running}` });
    }
    // Let the starters' garbage go, in both alike.
    await new Promise((resolve) => setTimeout(resolve, 3000));
    sizes.push(peer.memory());
  }
  for (let index = 0; index < running; index++) {
    const exited = peer.tasks.wait({ containerId: `m${index}` });
    await peer.tasks.kill({ containerId: `m${index}`, signal: 9, all: true });
    await exited;
    await removeTask(peer, `m${index}`);
  }
  return sizes;
}
