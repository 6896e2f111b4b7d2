import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { ContainerState, type ContainerStatus, PodSandboxState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { eventually } from '../lib/processes.ts';
import { gather } from './connection.ts';
import { addresses, bridgePorts, cgroupsBeneath, held } from './pods-held.ts';
import type { PodsLab } from './pods-lab.ts';
import { PodCalls } from './pods-lanes.ts';
import { type KnownContainer, type PodLedger, wrongContainer, wrongExit, wrongPod } from './pods-ledger.ts';

/** How long a daemon may take to have put away what another left half-made, on a busy machine. */
const settleMs = 60_000;

interface ListedPod {
  id: string;
  metadata: { name: string };
  state: keyof typeof PodSandboxState;
}

interface ListedContainer {
  id: string;
  podSandboxId: string;
  metadata: { name: string };
  state: keyof typeof ContainerState;
}

/** After a kill: crictl shows what clients were answered, and of what they were not answered all or nothing. */
export async function checkTruth(lab: PodsLab, ledger: PodLedger): Promise<void> {
  let wrong: string[] = [];
  await eventually(
    'crictl shows what is',
    async () => {
      wrong = await compare(lab, ledger);
      return wrong.length === 0 ? true : undefined;
    },
    settleMs,
  ).catch((error) => {
    throw new Error(`${(error as Error).message}\n${wrong.join('\n')}`);
  });
  // One of each kind as crictl inspects it, and all by their status.
  const there = ledger.containers.filter(({ id, state }) => id !== undefined && state !== 'removing');
  const kinds = new Map(there.map((container) => [container.state, container]));
  for (const { id } of kinds.values()) {
    const { status } = await lab.cri.json<{ status: { id: string; state: string } }>('inspect', id!);
    assert.equal(status.id, id);
  }
  for (const container of ledger.containers) if (container.id) await checkExit(lab, container);
}

async function compare(lab: PodsLab, ledger: PodLedger): Promise<string[]> {
  const wrong: (string | undefined)[] = [];
  const learn: (() => void)[] = [];
  const { items } = await lab.cri.json<{ items: ListedPod[] }>('pods', '-o', 'json');
  const { containers } = await lab.cri.json<{ containers: ListedContainer[] }>('ps', '-a', '-o', 'json');
  const pods = new Map(items.map((pod) => [pod.metadata.name, pod]));
  if (pods.size !== items.length) wrong.push(`a pod is there twice: ${items.map(({ metadata }) => metadata.name)}`);
  for (const pod of ledger.pods) {
    const name = pod.config.metadata?.name ?? '';
    const found = pods.get(name);
    pods.delete(name);
    wrong.push(wrongPod(pod, found && PodSandboxState[found.state]));
    if (found && pod.id !== undefined && found.id !== pod.id) wrong.push(`pod ${name} is ${found.id}, not ${pod.id}`);
    if (found) learn.push(() => (pod.id ??= found.id));
    for (const container of pod.containers) {
      const there = containers.findIndex(
        (one) => one.podSandboxId === found?.id && one.metadata.name === container.config.metadata?.name,
      );
      const [listed] = there < 0 ? [] : containers.splice(there, 1);
      wrong.push(wrongContainer(container, listed && ContainerState[listed.state]));
      if (listed) learn.push(() => (container.id ??= listed.id));
    }
  }
  for (const [name, { id, state }] of pods) wrong.push(`pod ${name} (${id}, ${state}) is nobody's`);
  for (const { id, metadata, state } of containers)
    wrong.push(`container ${metadata.name} (${id}, ${state}) is nobody's`);
  const found = wrong.filter((one) => one !== undefined);
  // What is half-made, and about to go, teaches nothing.
  if (found.length === 0) for (const note of learn) note();
  return found;
}

async function checkExit(lab: PodsLab, container: KnownContainer): Promise<void> {
  const status = await statusOf(lab, container.id!);
  const wrong = status && wrongExit(container, status);
  if (wrong) assert.fail(wrong);
}

async function statusOf(lab: PodsLab, containerId: string): Promise<ContainerStatus | undefined> {
  const { containers } = await lab.client.runtime.listContainers({ filter: { id: containerId } });
  if (containers.length === 0) return undefined;
  return (await lab.client.runtime.containerStatus({ containerId })).status;
}

/** Clients ask again for what was cut off, as the kubelet does: under the same names, and once more than is needed. */
export async function resumePods(lab: PodsLab, ledger: PodLedger): Promise<void> {
  const calls = new PodCalls(lab, ledger);
  const { runtime } = lab.client;
  for (const pod of [...ledger.pods]) {
    if (pod.state === 'making') {
      if (pod.id === undefined) await calls.run(pod);
      else pod.state = 'ready';
    }
    if (pod.state === 'removing') {
      await calls.removePod(pod);
      await runtime.removePodSandbox({ podSandboxId: pod.id! });
      await runtime.stopPodSandbox({ podSandboxId: pod.id! });
      continue;
    }
    for (const container of [...pod.containers]) await resumeContainer(lab, calls, container);
    if (pod.state !== 'stopping') continue;
    await calls.stopPod(pod);
    await runtime.stopPodSandbox({ podSandboxId: pod.id! });
  }
}

async function resumeContainer(lab: PodsLab, calls: PodCalls, container: KnownContainer): Promise<void> {
  const { runtime } = lab.client;
  const alive = container.pod.state === 'ready';
  switch (container.state) {
    case 'making':
      if (container.id !== undefined) container.state = 'created';
      else if (alive) await calls.create(container);
      else container.pod.containers.splice(container.pod.containers.indexOf(container), 1);
      return;
    case 'starting': {
      const status = await statusOf(lab, container.id!);
      if (status?.state === ContainerState.CONTAINER_RUNNING) container.state = 'running';
      else if (status?.state === ContainerState.CONTAINER_EXITED) await calls.ended(container);
      else if (alive) await calls.start(container);
      else container.state = 'created';
      return;
    }
    case 'stopping': {
      await calls.stop(container, 0n);
      const status = await statusOf(lab, container.id!);
      // One that was never started stays as it is.
      if (status?.state === ContainerState.CONTAINER_CREATED) container.state = 'created';
      await runtime.stopContainer({ containerId: container.id!, timeout: 0n });
      return;
    }
    case 'removing':
      await calls.remove(container);
      await runtime.removeContainer({ containerId: container.id! });
      return;
    case 'running':
      await calls.ended(container);
      return;
    default:
  }
}

/** Disk, kernel and records hold what the pods that are there need, and nothing else. */
export async function surveyPods(lab: PodsLab, ledger: PodLedger): Promise<void> {
  let last: unknown;
  await eventually(
    'nothing is left over',
    async () => {
      try {
        await surveyOnce(lab, ledger);
        return true;
      } catch (error) {
        last = error;
        return undefined;
      }
    },
    settleMs,
  ).catch((error) => {
    throw new Error(`${(error as Error).message}: ${(last as Error).message}`, { cause: last });
  });
}

async function surveyOnce(lab: PodsLab, ledger: PodLedger): Promise<void> {
  const pods = [...ledger.pods];
  const connected = pods.filter(({ state }) => state !== 'stopped').length;
  assert.equal(addresses(lab).length, connected, 'addresses');
  assert.equal(bridgePorts(lab.cri.network.bridge).length, connected, 'interfaces on the bridge');
  const { netns, mounts, fifos } = await held(lab);
  assert.equal(netns, connected, 'network namespaces');

  const { connection, daemon } = lab;
  const podIds = pods.map(({ id }) => id!).sort();
  const containerIds = ledger.containers.map(({ id }) => id!).sort();
  const ids = new Set([...podIds, ...containerIds]);
  assert.deepEqual((await connection.sandboxes.list({})).list.map(({ sandboxId }) => sandboxId).sort(), podIds, 'pods');
  const records = (await connection.containers.list({})).containers.map(({ id }) => id).sort();
  assert.deepEqual(records, [...ids].sort(), 'records of containers');
  assert.deepEqual((await connection.leases.list({})).leases.map(({ id }) => id).sort(), podIds, 'leases');
  const snapshots = await gather(connection.snapshots.list({ snapshotter: 'overlayfs' }), ({ info }) => info);
  const active = snapshots.filter(({ name }) => !name.startsWith('sha256:')).map(({ name }) => name);
  assert.deepEqual(active.sort(), [...ids].sort(), 'snapshots');
  const tasks = (await connection.tasks.list({})).tasks.map(({ id }) => id);
  assert.deepEqual(
    tasks.filter((id) => !ids.has(id)),
    [],
    'tasks',
  );
  // Of each task its root, of each pod that runs its shared memory and its namespace.
  assert.equal(mounts, tasks.length + 2 * connected, 'mounts');
  for (const top of [daemon.root, daemon.state])
    for (const [kind, known] of [
      ['sandboxes', podIds],
      ['containers', containerIds],
    ] as const)
      assert.deepEqual(names(top, 'io.containerd.grpc.v1.cri', kind), known, `${top} ${kind}`);
  const runtime = 'io.containerd.runtime.v2.task/k8s.io';
  for (const top of [daemon.root, daemon.state])
    assert.deepEqual(names(top, runtime), [...tasks].sort(), `${top} bundles`);
  for (const group of cgroupsBeneath(lab.cgroup)) assert.ok(tasks.includes(path.basename(group)), `cgroup ${group}`);
  // Two of each container that was ever started.
  assert.ok(fifos <= 2 * containerIds.length, `${fifos} FIFOs for ${containerIds.length} containers`);
}

function names(...parts: string[]): string[] {
  const directory = path.join(...parts);
  return existsSync(directory) ? readdirSync(directory).sort() : [];
}
