import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  ContainerEventType,
  ContainerState,
  type ContainerStatus,
  NamespaceMode,
  PodSandboxState,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { mountsBeneath } from '../lib/temp-dir.ts';
import { cgroupsBeneath, held } from './pods-held.ts';
import { type ContainerConfig, type PodConfig, PodsLab } from './pods-lab.ts';
import { cgroupFolders, endProcesses } from './survey.ts';

/**
 * What a daemon finds that starts after something has happened which no kill at a random moment brings about: a reboot, a root from a
 * backup, a state directory that was lost, a shim that does not answer. crictl tells the truth then, everything can be removed, and
 * nothing is left.
 */

const patience = 60_000;
const waiting = 'trap "exit 7" TERM; echo started; while :; do sleep 1000 & wait; done';

interface Made {
  id: string;
  config: PodConfig;
  containers: Record<string, string>;
}

describe('a daemon that starts', { skip: CriLab.missing() }, () => {
  const lab = new PodsLab('pods-restart', { bridge: 'gantrypods5', subnet: '10.218.0.0/16' });
  const runtime = () => lab.client.runtime;
  before(() => lab.open());
  after(() => lab.close());

  /** A pod with containers that run, by name and command. */
  async function pod(
    name: string,
    commands: Record<string, string>,
    more: PodConfig = {},
    ofContainers: ContainerConfig = {},
  ): Promise<Made> {
    const config = lab.podConfig(name, more);
    const id = await lab.runPod(config);
    const containers: Record<string, string> = {};
    for (const [kind, command] of Object.entries(commands)) {
      containers[kind] = await lab.create(id, lab.containerConfig(kind, command, ofContainers), config);
      await runtime().startContainer({ containerId: containers[kind] });
    }
    return { id, config, containers };
  }

  async function statusOf(containerId: string): Promise<ContainerStatus> {
    const { status } = await runtime().containerStatus({ containerId });
    assert.ok(status);
    return status;
  }

  async function ended(containerId: string): Promise<ContainerStatus> {
    return await eventually(
      `${containerId} has ended`,
      async () => {
        const status = await statusOf(containerId);
        return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
      },
      patience,
    );
  }

  async function podState(podSandboxId: string): Promise<PodSandboxState | undefined> {
    return (await runtime().podSandboxStatus({ podSandboxId })).status?.state;
  }

  /** Everything is removed as the kubelet does it, and nothing is held any more. */
  async function removed(): Promise<void> {
    const { items } = await runtime().listPodSandbox({});
    for (const { id: podSandboxId } of items) {
      const { containers } = await runtime().listContainers({ filter: { podSandboxId } });
      for (const { id: containerId } of containers) {
        await runtime().stopContainer({ containerId, timeout: 0n });
        await runtime().removeContainer({ containerId });
      }
      await runtime().stopPodSandbox({ podSandboxId });
      await runtime().removePodSandbox({ podSandboxId });
    }
    let left = await leftovers();
    await eventually(
      'nothing is left',
      async () => {
        left = await leftovers();
        return Object.values(left).every((each) => each === 0) ? true : undefined;
      },
      patience,
    ).catch((error) => assert.fail(`${error}: ${JSON.stringify(left)}\n${lab.log()}`));
  }

  async function leftovers() {
    const { netns, mounts, interfaces, addresses, cgroups, fifos, records, leases, tasks } = await held(lab);
    const rootMounts = mountsBeneath(lab.daemon.root).filter((point) => point === lab.daemon.root).length;
    const active = readdirSync(path.join(lab.daemon.root, 'io.containerd.grpc.v1.cri/containers')).length;
    const bundles = [lab.daemon.state, lab.daemon.root]
      .map((top) => path.join(top, 'io.containerd.runtime.v2.task/k8s.io'))
      .flatMap((folder) => (existsSync(folder) ? readdirSync(folder) : [])).length;
    const running = processesMentioning(lab.directory).filter(
      ({ command }) => !/gantryd|gantry-shim|registry/.test(command),
    ).length;
    return {
      netns,
      mounts: mounts - rootMounts,
      interfaces,
      addresses,
      cgroups,
      fifos,
      records,
      leases,
      tasks,
      active,
      bundles,
      running,
    };
  }

  /** The machine goes off: every process ends, what is mounted, and what is in memory, is gone. What is on disk stays. */
  async function reboot(): Promise<void> {
    await lab.kill('both');
    for (const group of cgroupsBeneath(lab.cgroup).reverse()) await empty(group);
    await endProcesses(lab.directory);
    for (const point of mountsBeneath(lab.directory).reverse()) execFileSync('umount', ['-l', point]);
    rmSync(lab.daemon.state, { recursive: true, force: true });
    for (const group of cgroupFolders(lab.cgroup)) rmdirSync(group);
    await run('ip', ['link', 'del', lab.cri.network.bridge], { mayFail: true });
  }

  async function empty(group: string): Promise<void> {
    await eventually(`${group} is empty`, () => {
      const pids = readFileSync(path.join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
      for (const pid of pids) process.kill(pid, 'SIGKILL');
      if (pids.length > 0) return undefined;
      rmdirSync(group);
      return true;
    });
  }

  test('tells how containers ended while there was none', async () => {
    const made = await pod('ended', {
      done: 'echo begun; until [ -e /go ]; do sleep 0.05; done; echo done',
      failed: 'until [ -e /go ]; do sleep 0.05; done; exit 7',
      killed: waiting,
    });
    const limits = { linux: { resources: { memoryLimitInBytes: 16n << 20n } } };
    const hungry = 'until [ -e /go ]; do sleep 0.05; done; exec tail /dev/zero';
    made.containers['hungry'] = await lab.create(made.id, lab.containerConfig('hungry', hungry, limits), made.config);
    await runtime().startContainer({ containerId: made.containers['hungry'] });
    const pids = await Promise.all(Object.values(made.containers).map((id) => lab.pidOf('container', id)));
    const killed = await lab.pidOf('container', made.containers['killed']!);
    await lab.kill('daemon');
    const from = nanos();
    process.kill(killed, 'SIGKILL');
    for (const pid of pids) if (pid !== killed) writeFileSync(`/proc/${pid}/root/go`, '');
    for (const pid of pids) await eventually(`${pid} ends`, () => (alive(pid) ? undefined : true), patience);
    const until = nanos();
    await lab.start();
    const told = listen();
    const ends: Record<string, unknown[]> = {};
    for (const [name, id] of Object.entries(made.containers)) {
      const { exitCode, reason, finishedAt } = await ended(id);
      ends[name] = [exitCode, reason];
      assert.ok(finishedAt > from && finishedAt < until, `${name} ended at ${finishedAt}, not in ${from} to ${until}`);
    }
    assert.deepEqual(ends, {
      done: [0, 'Completed'],
      failed: [7, 'Error'],
      killed: [137, 'Error'],
      hungry: [137, 'OOMKilled'],
    });
    const all = Object.values(made.containers).sort();
    await eventually('each end is told', () => (told().length >= all.length ? true : undefined), patience);
    assert.deepEqual(told().sort(), all);
    const log = readFileSync(path.join(lab.directory, 'logs/ended/done.log'), 'utf8');
    assert.deepEqual(
      log
        .trim()
        .split('\n')
        .map((line) => line.slice(line.indexOf(' ') + 1)),
      ['stdout F begun', 'stdout F done'],
    );
    assert.equal(await podState(made.id), PodSandboxState.SANDBOX_READY);
    await removed();
  });

  function nanos(): bigint {
    return BigInt(Date.now()) * 1_000_000n;
  }

  /** Whether a process runs; one that only waits to be waited for does not. */
  function alive(pid: number): boolean {
    try {
      return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
    } catch {
      return false;
    }
  }

  const stop = new AbortController();
  after(() => stop.abort());

  /** Subscribes as the kubelet does; answers whose ends were told so far. */
  function listen(): () => string[] {
    const ends: string[] = [];
    void (async () => {
      for await (const { containerId, containerEventType } of runtime().getContainerEvents({}, { signal: stop.signal }))
        if (containerEventType === ContainerEventType.CONTAINER_STOPPED_EVENT) ends.push(containerId);
    })().catch(() => undefined);
    return () => [...ends];
  }

  async function tell(containerId: string): Promise<[string | undefined, number, string]> {
    const { state, exitCode, reason } = await statusOf(containerId);
    return [ContainerState[state], exitCode, reason];
  }

  /** That a node works is shown by another pod. */
  async function anotherPod(name: string): Promise<void> {
    const { containers } = await pod(name, { running: waiting });
    assert.equal((await statusOf(containers['running']!)).state, ContainerState.CONTAINER_RUNNING);
  }

  test('after the machine was rebooted', async () => {
    const made = await pod('rebooted', { running: waiting, over: 'exit 3' });
    const { running, over } = made.containers;
    const created = await lab.create(made.id, lab.containerConfig('created', waiting), made.config);
    await ended(over!);
    const inHosts = {
      linux: { cgroupParent: `/${lab.cgroup}`, securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } },
    };
    const host = await pod('host', { running: waiting }, { hostname: '', ...inHosts });
    const images = (await lab.client.images.listImages({})).images.map(({ id }) => id).sort();
    await reboot();
    await lab.start();
    assert.deepEqual(await Promise.all([running!, over!, created, host.containers['running']!].map(tell)), [
      ['CONTAINER_EXITED', 255, 'Unknown'],
      ['CONTAINER_EXITED', 3, 'Error'],
      ['CONTAINER_CREATED', 0, ''],
      ['CONTAINER_EXITED', 255, 'Unknown'],
    ]);
    const gone = PodSandboxState.SANDBOX_NOTREADY;
    assert.deepEqual([await podState(made.id), await podState(host.id)], [gone, gone]);
    assert.deepEqual((await lab.client.images.listImages({})).images.map(({ id }) => id).sort(), images);
    await assert.rejects(runtime().startContainer({ containerId: created }), /is not running/);
    await anotherPod('after-reboot');
    await removed();
  });

  test('without its state directory, while everything runs', async () => {
    const made = await pod('stateless', { running: waiting });
    const pids = [await lab.pidOf('container', made.containers['running']!), await lab.pidOf('pod', made.id)];
    await lab.kill('daemon');
    for (const point of mountsBeneath(lab.daemon.state).reverse()) execFileSync('umount', ['-l', point]);
    rmSync(lab.daemon.state, { recursive: true, force: true });
    await lab.start();
    assert.deepEqual(await tell(made.containers['running']!), ['CONTAINER_EXITED', 255, 'Unknown']);
    assert.equal(await podState(made.id), PodSandboxState.SANDBOX_NOTREADY);
    assert.deepEqual(pids.map(alive), [false, false]);
    await anotherPod('after-loss');
    await removed();
    await eventually('no shim is left', () => (lab.shims().length === 0 ? true : undefined), patience);
  });

  test('with a root from a backup', async () => {
    const gone = await pod('gone', { running: waiting });
    const stays = await pod('stays', { running: waiting });
    await lab.daemon.stop();
    lab.disconnect();
    const [backup, newer] = ['backup', 'newer'].map((name) => path.join(lab.directory, name)) as [string, string];
    execFileSync('cp', ['-a', lab.daemon.root, backup]);
    await lab.start();
    await runtime().stopPodSandbox({ podSandboxId: gone.id });
    await runtime().removePodSandbox({ podSandboxId: gone.id });
    const younger = await pod('younger', { running: waiting });
    const pid = await lab.pidOf('container', younger.containers['running']!);
    await lab.kill('daemon');
    renameSync(lab.daemon.root, newer);
    renameSync(backup, lab.daemon.root);
    await lab.start();
    assert.deepEqual(await tell(gone.containers['running']!), ['CONTAINER_EXITED', 255, 'Unknown']);
    assert.deepEqual(await tell(stays.containers['running']!), ['CONTAINER_RUNNING', 0, '']);
    const states = [PodSandboxState.SANDBOX_NOTREADY, PodSandboxState.SANDBOX_READY];
    assert.deepEqual([await podState(gone.id), await podState(stays.id)], states);
    // No record knows it.
    await eventually('the younger one has ended', () => (alive(pid) ? undefined : true), patience);
    await anotherPod('after-backup');
    await removed();
    rmSync(newer, { recursive: true });
  });

  test('while a shim does not answer', async () => {
    const made = await pod('mute', { running: waiting });
    const pid = await lab.pidOf('container', made.containers['running']!);
    await lab.kill('daemon');
    const shims = lab.shims();
    for (const shim of shims) process.kill(shim, 'SIGSTOP');
    await lab.start();
    assert.deepEqual(await tell(made.containers['running']!), ['CONTAINER_RUNNING', 0, '']);
    assert.equal(await podState(made.id), PodSandboxState.SANDBOX_READY);
    assert.deepEqual(shims.map(alive), [false]);
    assert.ok(alive(pid));
    assert.equal((await lab.cri.ok('exec', '-s', made.containers['running']!, 'echo', 'well')).trim(), 'well');
    await runtime().stopContainer({ containerId: made.containers['running']!, timeout: 30n });
    assert.deepEqual(await tell(made.containers['running']!), ['CONTAINER_EXITED', 7, 'Error']);
    await removed();
  });

  test('on a disk that is full', async () => {
    // The root as it is, on a disk of its own.
    await lab.daemon.stop();
    lab.disconnect();
    const disk = path.join(lab.directory, 'disk.img');
    const copy = path.join(lab.directory, 'copy');
    closeSync(openSync(disk, 'wx'));
    truncateSync(disk, 96 << 20);
    execFileSync('mkfs.ext4', ['-q', '-F', '-m', '0', disk]);
    execFileSync('cp', ['-a', lab.daemon.root, copy]);
    execFileSync('mount', ['-o', 'loop', disk, lab.daemon.root]);
    execFileSync('cp', ['-a', `${copy}/.`, lab.daemon.root]);
    await lab.start();
    const made = await pod('full', { running: waiting, killed: waiting });
    const { running, killed } = made.containers;
    const pid = await lab.pidOf('container', killed!);
    await lab.kill('daemon');
    process.kill(pid, 'SIGKILL');
    const filler = path.join(lab.daemon.root, 'filler');
    fill(filler);
    await lab.start();
    assert.equal((await ended(killed!)).exitCode, 137);
    assert.deepEqual(await tell(running!), ['CONTAINER_RUNNING', 0, '']);
    assert.equal(await podState(made.id), PodSandboxState.SANDBOX_READY);
    await runtime().stopContainer({ containerId: running!, timeout: 30n });
    assert.deepEqual(await tell(running!), ['CONTAINER_EXITED', 7, 'Error']);
    await assert.rejects(lab.runPod(lab.podConfig('no-room')), /no space left on device/);
    // Nor does another start change anything.
    await lab.kill('daemon');
    await lab.start();
    assert.deepEqual(await Promise.all([running!, killed!].map(tell)), [
      ['CONTAINER_EXITED', 7, 'Error'],
      ['CONTAINER_EXITED', 137, 'Error'],
    ]);
    await removed();
    rmSync(filler);
    await anotherPod('after-full');
    await removed();
    await lab.daemon.stop();
    lab.disconnect();
    execFileSync('umount', [lab.daemon.root]);
    rmSync(disk);
    await lab.start();
  });

  /** Takes all the space of a file's disk. */
  function fill(file: string): void {
    const descriptor = openSync(file, 'a');
    try {
      for (let size = 1 << 20; size >= 512; size /= 2) {
        for (;;) {
          try {
            writeSync(descriptor, Buffer.alloc(size, 1));
          } catch (error) {
            if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
            break;
          }
        }
      }
    } finally {
      closeSync(descriptor);
    }
    execFileSync('sync', ['-f', path.dirname(file)]);
  }

  test('after one that had sessions open', async () => {
    const made = await pod('sessions', { running: waiting });
    const id = made.containers['running']!;
    const sessions = [
      ['exec', '-s', id, 'sleep', '4321'],
      ['exec', id, 'sleep', '4321'],
      ['attach', id],
    ].map((command) => lab.cri.crictl(command, { mayFail: true }));
    const group = cgroupsBeneath(lab.cgroup).find((directory) => directory.endsWith(id));
    const sleepers = (): number[] =>
      readFileSync(path.join(group!, 'cgroup.procs'), 'latin1')
        .split('\n')
        .filter(Boolean)
        .map(Number)
        .filter((pid) => commandOf(pid).includes('4321'));
    await eventually('both run', () => (sleepers().length === 2 ? true : undefined), patience);
    await lab.kill('daemon');
    // Nobody waits for an answer that will never come.
    await Promise.all(sessions);
    await lab.start();
    await eventually('what they ran is ended', () => (sleepers().length === 0 ? true : undefined), patience);
    const directory = path.join(lab.daemon.state, 'io.containerd.grpc.v1.cri/containers', id);
    await eventually('and its streams are gone', () =>
      readdirSync(directory).some((name) => name.startsWith('io-')) ? undefined : true,
    );
    assert.deepEqual(await tell(id), ['CONTAINER_RUNNING', 0, '']);
    assert.equal(await lab.cri.ok('exec', '-s', id, 'echo', 'well'), 'well');
    await removed();
  });

  function commandOf(pid: number): string {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    } catch {
      return '';
    }
  }
});
