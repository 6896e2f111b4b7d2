import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually } from '../lib/processes.ts';
import { held } from './pods-held.ts';
import { PodsLab } from './pods-lab.ts';
import { Random } from './random.ts';
import { faultRounds } from './rounds.ts';

/**
 * The programs that the daemon and its shim run, killed at any moment: the OCI runtime while it makes a container, plugins of the network
 * while they add a pod or take it down. The call fails, or it was done before; either way everything can be removed, and nothing is left.
 */
const rounds = faultRounds(3);
const podsAtOnce = 4;
const patience = 60_000;

describe('programs that pods need are killed', { skip: CriLab.missing() }, () => {
  const lab = new PodsLab('pods-programs', { bridge: 'gantrypods6', subnet: '10.219.0.0/16' });
  const random = Random.fromEnvironment();
  before(() => lab.open());
  after(() => lab.close());

  /** Kills processes of these programs that work for the lab, at random, until it is stopped. @returns how many were killed */
  async function killing(programs: RegExp, share: number, stopped: AbortSignal): Promise<number> {
    let killed = 0;
    const spared = new Set<number>();
    while (!stopped.aborted) {
      for (const pid of processes(programs)) {
        if (spared.has(pid)) continue;
        spared.add(pid);
        if (!random.chance(share)) continue;
        await sleep(random.between(0, 15));
        try {
          process.kill(pid, 'SIGKILL');
          killed += 1;
        } catch {
          // It was faster.
        }
      }
      await sleep(1);
    }
    return killed;
  }

  function processes(programs: RegExp): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((name) => {
        try {
          const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
          if (!programs.test(command[0] ?? '')) return false;
          return (
            command.some((argument) => argument.includes(lab.directory)) ||
            readFileSync(`/proc/${name}/environ`, 'utf8').includes(lab.directory)
          );
        } catch {
          return false;
        }
      })
      .map(Number);
  }

  async function life(name: string): Promise<string> {
    const { runtime } = lab.client;
    const config = lab.podConfig(name);
    let id = '';
    let step = 'run';
    try {
      id = await lab.runPod(config);
      step = 'create';
      const container = await lab.create(id, lab.containerConfig('main', 'sleep 1000'), config);
      step = 'start';
      await runtime.startContainer({ containerId: container }, { timeoutMs: patience });
      step = 'running';
      const { status } = await runtime.containerStatus({ containerId: container });
      assert.equal(status?.state, ContainerState.CONTAINER_RUNNING);
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      // What could not be started says so, and is not taken for one that may still come.
      if (step === 'start') {
        const { containers } = await runtime.listContainers({ filter: { podSandboxId: id } });
        assert.deepEqual(
          containers.map(({ state }) => state),
          [ContainerState.CONTAINER_EXITED],
        );
      }
      step = `${step}: ${(error as Error).message}`;
    }
    if (id !== '') await runtime.stopPodSandbox({ podSandboxId: id }).catch(() => undefined);
    return step;
  }

  async function churn(t: TestContext, programs: RegExp, share: number): Promise<void> {
    t.diagnostic(`GANTRY_FAULT_SEED=${random.seed}`);
    const told: string[] = [];
    for (let round = 0; round < rounds; round++) {
      const stop = new AbortController();
      const killed = killing(programs, share, stop.signal);
      const lives = Array.from({ length: podsAtOnce }, (_, index) => life(`p-${round}-${index}`));
      const steps = await Promise.all(lives).finally(() => stop.abort());
      told.push(`${await killed} killed; ${steps.map((step) => step.split(':')[0]).join(' ')}`);
      // Whoever was not answered in time is not there, or can be removed.
      const { items } = await lab.client.runtime.listPodSandbox({});
      for (const { id: podSandboxId } of items) {
        await lab.client.runtime.stopPodSandbox({ podSandboxId });
        await lab.client.runtime.removePodSandbox({ podSandboxId });
      }
      await nothingIsLeft();
    }
    t.diagnostic(told.join('\n'));
  }

  async function nothingIsLeft(): Promise<void> {
    let left = {};
    await eventually(
      'nothing is left',
      async () => {
        const { netns, mounts, interfaces, addresses, cgroups, fifos, records, leases, tasks } = await held(lab);
        left = { netns, mounts, interfaces, addresses, cgroups, fifos, records, leases, tasks };
        return Object.values(left).every((count) => count === 0) ? true : undefined;
      },
      patience,
    ).catch((error) => assert.fail(`${error}: ${JSON.stringify(left)} (seed ${random.seed})\n${lab.log()}`));
  }

  test('the OCI runtime', { timeout: 60_000 + rounds * 60_000 }, (t) => churn(t, /(^|\/)runc$/, 0.3));

  test('plugins of the network', { timeout: 60_000 + rounds * 60_000 }, (t) => churn(t, /\/usr\/lib\/cni\//, 0.3));
});
