import assert from 'node:assert/strict';
import { rmSync, unlinkSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { Code, hasCode, StatusError } from '@gantry/api';
import { ContainerEventType, ContainerState, NamespaceMode, PodSandboxState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually, run } from '../lib/processes.ts';
import { mountsBeneath } from '../lib/temp-dir.ts';
import { addresses, type Held, held, isNetns } from './pods-held.ts';
import { PodsLab } from './pods-lab.ts';

/** Clients that go away, ask for the same at once or for one thing during another, and somebody who does by hand what the daemon should do. */
const patience = 60_000;

describe('bad clients of CRI', { skip: CriLab.missing() }, () => {
  const lab = new PodsLab('pods-clients', { bridge: 'gantrypods2', subnet: '10.205.0.0/16' });
  const sleeping = 'exec sleep 1000';
  let clean: Held;
  let anchor: string;
  let made = 0;
  before(async () => {
    await lab.open();
    // One stays, and with it what would come and go with the others: the bridge, the shim, directories.
    anchor = (await pod()).id;
    const { id } = await pod();
    await container(id, sleeping);
    await runtime().removePodSandbox({ podSandboxId: id });
    // The kernel removes interfaces some time after their namespace.
    const settled = async () => ((await held(lab)).interfaces === 1 ? true : undefined);
    await eventually('one pod is left', settled, patience);
    clean = await collected();
  });
  afterEach(() => removeOthers());
  after(() => lab.close());

  const config = () => lab.podConfig(`client-${++made}`);
  const runtime = () => lab.client.runtime;

  async function pod() {
    const podConfig = config();
    return { id: await lab.runPod(podConfig), config: podConfig };
  }

  async function container(podId: string, command: string, podConfig = config()): Promise<string> {
    const id = await lab.create(podId, lab.containerConfig(`c${++made}`, command), podConfig);
    await runtime().startContainer({ containerId: id });
    return id;
  }

  async function removeOthers(): Promise<void> {
    const { items } = await runtime().listPodSandbox({});
    for (const { id } of items) if (id !== anchor) await runtime().removePodSandbox({ podSandboxId: id });
  }

  async function collected(): Promise<Held> {
    await lab.connection.leases.create({ id: 'collect' });
    await lab.connection.leases.delete({ id: 'collect', sync: true });
    return await held(lab);
  }

  /** Waits until there is what there was before. */
  async function nothingIsLeft(): Promise<void> {
    let left: Held | undefined;
    await eventually(
      'nothing is left',
      async () => {
        left = await collected();
        const more = Object.entries(left).filter(([name, count]) => count > clean[name as keyof Held]);
        return more.length === 0 ? true : undefined;
      },
      patience,
    ).catch((error) => {
      throw new Error(
        `${(error as Error).message}: ${JSON.stringify(left)}, not ${JSON.stringify(clean)}\n${lab.log()}`,
      );
    });
    assert.equal(await lab.cri.ok('pods', '-q', '--no-trunc'), anchor);
    assert.equal(await lab.cri.ok('ps', '-a', '-q'), '');
  }

  /** Calls, and goes away after so long. @returns what was answered, if it was faster */
  async function leaving<T>(ms: number, call: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), ms);
    try {
      return await call(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) throw error;
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  async function removeListed(name: string): Promise<void> {
    const { items } = await runtime().listPodSandbox({});
    for (const { id, metadata } of items)
      if (metadata?.name === name) await runtime().removePodSandbox({ podSandboxId: id });
  }

  const stateOf = async (containerId: string): Promise<ContainerState | undefined> =>
    (await runtime().containerStatus({ containerId })).status?.state;

  test('one who leaves during RunPodSandbox leaves nothing, and can have the name again', async () => {
    const moments = [0, 5, 10, 20, 30, 45, 60, 80, 100, 130, 160, 200];
    await Promise.all(
      moments.map(async (ms) => {
        const mine = config();
        await leaving(ms, (signal) => runtime().runPodSandbox({ config: mine }, { signal }));
        // It may have been done a moment before, and be listed; what is being undone has the name for a moment.
        const id = await eventually(
          'the name is free again',
          async () => {
            await removeListed(mine.metadata?.name ?? '');
            return await lab
              .runPod(mine)
              .catch((error) => (/is reserved for/.test(String(error)) ? undefined : Promise.reject(error)));
          },
          patience,
        );
        await runtime().removePodSandbox({ podSandboxId: id });
      }),
    );
    await nothingIsLeft();
  });

  test('nor does one whose deadline is too near', async () => {
    for (const timeoutMs of [1, 30, 60]) {
      const call = runtime().runPodSandbox({ config: config() }, { timeoutMs });
      await call.then(
        ({ podSandboxId }) => runtime().removePodSandbox({ podSandboxId }),
        (error) => assert.ok(hasCode(error, Code.DeadlineExceeded), String(error)),
      );
    }
    await nothingIsLeft();
  });

  test('nor does one who leaves during CreateContainer or PullImage', async () => {
    const { id: podSandboxId, config: sandboxConfig } = await pod();
    for (const ms of [0, 2, 5, 10, 20, 40]) {
      const request = { podSandboxId, config: lab.containerConfig(`left-${ms}`, sleeping), sandboxConfig };
      await leaving(ms, (signal) => runtime().createContainer(request, { signal }));
    }
    await eventually(
      'no container is left that cannot be removed',
      async () => {
        const { containers } = await runtime().listContainers({});
        for (const { id } of containers) await runtime().removeContainer({ containerId: id });
        return (await lab.connection.containers.list({})).containers.length === 2 ? true : undefined;
      },
      patience,
    );
    await runtime().removePodSandbox({ podSandboxId });
    const image = { image: 'volumes:1' };
    const { images } = lab.client;
    for (const ms of [0, 5, 20, 60]) {
      await leaving(ms, (signal) => images.pullImage({ image }, { signal }));
      await images.removeImage({ image });
    }
    // What was half fetched is kept for whoever comes back for it.
    await images.pullImage({ image });
    await images.removeImage({ image });
    await nothingIsLeft();
  });

  test('of 200 who want the same pod one gets it', async () => {
    const mine = config();
    const answers = await Promise.allSettled(Array.from({ length: 200 }, () => lab.runPod(mine)));
    const won = answers.filter(({ status }) => status === 'fulfilled');
    assert.equal(won.length, 1);
    for (const answer of answers)
      if (answer.status === 'rejected') assert.match(StatusError.from(answer.reason).message, /is reserved for/);
    assert.equal((await runtime().listPodSandbox({})).items.length, 2);
    assert.equal(addresses(lab).length, 2);
    await removeOthers();
    await nothingIsLeft();
  });

  test('a pod that is stopped while containers are made and started in it keeps none that runs', async () => {
    for (const wait of [0, 10, 40]) {
      const { id, config: podConfig } = await pod();
      const lives = Promise.allSettled(Array.from({ length: 6 }, () => container(id, sleeping, podConfig)));
      await new Promise((resolve) => setTimeout(resolve, wait));
      await runtime().stopPodSandbox({ podSandboxId: id });
      await lives;
      const { containers } = await runtime().listContainers({ filter: { podSandboxId: id } });
      for (const { state } of containers) assert.notEqual(state, ContainerState.CONTAINER_RUNNING);
      await runtime().removePodSandbox({ podSandboxId: id });
    }
    await nothingIsLeft();
  });

  test('a pod is removed as it is, by many at once, while others still make containers in it', async () => {
    const { id, config: podConfig } = await pod();
    await container(id, sleeping, podConfig);
    const late = Promise.allSettled(
      Array.from({ length: 4 }, (_, index) =>
        lab.create(id, lab.containerConfig(`late-${index}`, sleeping), podConfig),
      ),
    );
    const removals = Array.from({ length: 5 }, () => runtime().removePodSandbox({ podSandboxId: id }));
    await Promise.all(removals);
    await late;
    await nothingIsLeft();
  });

  test('a container that is removed while it starts is there and runs, or is gone', async () => {
    const { id, config: podConfig } = await pod();
    for (let wait = 0; wait < 60; wait += 10) {
      const made = await lab.create(id, lab.containerConfig(`removed-${wait}`, sleeping), podConfig);
      const started = runtime()
        .startContainer({ containerId: made })
        .then(
          () => true,
          () => false,
        );
      await new Promise((resolve) => setTimeout(resolve, wait));
      const removed = await runtime()
        .removeContainer({ containerId: made })
        .then(
          () => true,
          (error) => {
            assert.match(String(error), /in starting state/);
            return false;
          },
        );
      await started;
      const { containers } = await runtime().listContainers({ filter: { id: made } });
      assert.equal(containers.length, removed ? 0 : 1);
      if (!removed) assert.equal(containers[0]?.state, ContainerState.CONTAINER_RUNNING);
    }
    await runtime().removePodSandbox({ podSandboxId: id });
    await nothingIsLeft();
  });

  test('a pod whose process is killed by hand is not ready, and its containers can still be ended', async () => {
    const { id, config: podConfig } = await pod();
    // In a pid namespace of its own, or it would end with the pod's.
    const alone = { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } };
    const running = await lab.create(id, lab.containerConfig('alone', sleeping, { linux: alone }), podConfig);
    await runtime().startContainer({ containerId: running });
    const shared = await container(id, sleeping, podConfig);
    const stop = new AbortController();
    const told: ContainerEventType[] = [];
    const listening = (async () => {
      for await (const event of runtime().getContainerEvents({}, { signal: stop.signal }))
        if (event.containerId === id) told.push(event.containerEventType);
    })().catch(() => undefined);
    await runtime().version({});
    process.kill(await lab.pidOf('pod', id), 'SIGKILL');
    await eventually(
      'the pod is not ready',
      async () => {
        const { status } = await runtime().podSandboxStatus({ podSandboxId: id });
        return status?.state === PodSandboxState.SANDBOX_NOTREADY ? true : undefined;
      },
      patience,
    );
    await eventually('and an event tells of it', () =>
      told.includes(ContainerEventType.CONTAINER_STOPPED_EVENT) ? true : undefined,
    );
    stop.abort();
    await listening;
    await assert.rejects(container(id, sleeping, podConfig), /is not running/);
    assert.equal(await stateOf(running), ContainerState.CONTAINER_RUNNING);
    await runtime().stopContainer({ containerId: shared, timeout: 0n });
    await runtime().removeContainer({ containerId: shared });
    await runtime().stopContainer({ containerId: running, timeout: 0n });
    await runtime().removeContainer({ containerId: running });
    assert.equal(addresses(lab).length, 2);
    await runtime().stopPodSandbox({ podSandboxId: id });
    assert.equal(addresses(lab).length, 1);
    await runtime().removePodSandbox({ podSandboxId: id });
    await nothingIsLeft();
  });

  test('a network namespace that was removed by hand does not hold up the end of its pod', async () => {
    const { id, config: podConfig } = await pod();
    await container(id, sleeping, podConfig);
    const { info } = await runtime().podSandboxStatus({ podSandboxId: id, verbose: true });
    const file = mountsBeneath(lab.directory).find((point) => info['info']?.includes(point) && isNetns(point));
    assert.ok(file, 'no network namespace');
    await run('umount', ['-l', file]);
    unlinkSync(file);
    await runtime().stopPodSandbox({ podSandboxId: id });
    assert.equal(addresses(lab).length, 1);
    await runtime().removePodSandbox({ podSandboxId: id });
    await nothingIsLeft();
  });

  /** Removes directories with whatever is mounted in them. */
  async function removeByHand(...directories: string[]): Promise<void> {
    for (const directory of directories) {
      for (const point of mountsBeneath(directory).reverse()) await run('umount', ['-l', point]);
      rmSync(directory, { recursive: true });
    }
  }

  test('nor do bundles that were', async () => {
    const { id, config: podConfig } = await pod();
    const inside = await container(id, sleeping, podConfig);
    const bundles = path.join(lab.daemon.state, 'io.containerd.runtime.v2.task/k8s.io');
    await removeByHand(path.join(bundles, id), path.join(bundles, inside));
    await runtime().stopPodSandbox({ podSandboxId: id });
    await runtime().removePodSandbox({ podSandboxId: id });
    await nothingIsLeft();
  });

  test('nor directories of CRI, also after a restart', async () => {
    const { id, config: podConfig } = await pod();
    const inside = await container(id, sleeping, podConfig);
    const idle = await lab.create(id, lab.containerConfig('idle', sleeping), podConfig);
    for (const top of [lab.daemon.root, lab.daemon.state]) {
      const cri = path.join(top, 'io.containerd.grpc.v1.cri');
      await removeByHand(`${cri}/sandboxes/${id}`, `${cri}/containers/${inside}`, `${cri}/containers/${idle}`);
    }
    await lab.kill('daemon');
    await lab.start();
    assert.deepEqual(
      [await stateOf(inside), await stateOf(idle)],
      [ContainerState.CONTAINER_RUNNING, ContainerState.CONTAINER_EXITED],
    );
    await runtime().stopPodSandbox({ podSandboxId: id });
    await runtime().removePodSandbox({ podSandboxId: id });
    await nothingIsLeft();
  });
});
