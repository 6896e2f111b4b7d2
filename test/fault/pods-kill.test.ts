import assert from 'node:assert/strict';
import { rmdirSync } from 'node:fs';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerEventType } from '@gantry/api/gen/cri/v1/api_pb.js';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually } from '../lib/processes.ts';
import { exitCodesKept, type Victim } from './outlive-lab.ts';
import { checkTruth, resumePods, surveyPods } from './pods-after.ts';
import { held } from './pods-held.ts';
import { PodsLab } from './pods-lab.ts';
import { PodLanes } from './pods-lanes.ts';
import { PodLedger } from './pods-ledger.ts';
import { Random } from './random.ts';
import { faultRounds } from './rounds.ts';
import { cgroupFolders, nothingRuns } from './survey.ts';

/**
 * `kill -9` of the daemon, of the shim, and of both, while pods come and go: afterwards crictl shows what is, clients can go on under the
 * names they had, and nothing is held that no pod needs. `GANTRY_FAULT_SEED` repeats the choices of a run, `GANTRY_FAULT_ROUNDS` sets the
 * number of kills.
 */
const rounds = faultRounds(6);
const lanes = 4;

describe('daemon and shim killed while pods come and go', { skip: CriLab.missing() }, () => {
  const lab = new PodsLab('pods-kill', { bridge: 'gantrypods1', subnet: '10.204.0.0/16' });
  const random = Random.fromEnvironment();
  const ledger = new PodLedger();
  before(() => lab.open());
  after(() => lab.close());

  test(`${rounds} kills at random moments`, { timeout: 120_000 + rounds * 60_000 }, async (t) => {
    t.diagnostic(`GANTRY_FAULT_SEED=${random.seed}`);
    const order: Victim[] = ['daemon', 'shim', 'both'];
    for (let round = 1; round <= rounds; round++) {
      const victim = round <= 2 * order.length ? order[(round - 1) % order.length]! : random.pick(order);
      try {
        await oneRound(round, victim, t);
      } catch (error) {
        throw new Error(
          `round ${round} (${victim}), GANTRY_FAULT_SEED=${random.seed}: ${(error as Error).stack}\n${lab.log()}`,
          { cause: error },
        );
      }
    }
  });

  async function oneRound(round: number, victim: Victim, t: TestContext): Promise<void> {
    const clients = new PodLanes(lab, ledger, random, lanes);
    await sleep(random.between(20, 1200));
    clients.dying();
    ledger.suffer(victim, exitCodesKept);
    const under = [...ledger.pods].map(({ state }) => state).filter((state) => state.endsWith('ing'));
    await lab.kill(victim);
    // What ends now is seen by nobody.
    await sleep(random.between(0, 300));
    if (victim !== 'shim') {
      // Now and then the next one dies too, while it clears up after the first.
      if (random.chance(0.3)) {
        const starting = lab.daemon.start().catch(() => undefined);
        await sleep(random.between(50, 1000));
        await lab.daemon.kill();
        await starting;
      }
      await lab.start();
    }
    await clients.over();
    t.diagnostic(`kill ${round}: ${victim}; ${ledger.pods.size} pods, calls under way: ${under.join(' ')}`);
    assert.deepEqual(clients.failures, []);
    await checkTruth(lab, ledger);
    await resumePods(lab, ledger);
    await surveyPods(lab, ledger);
    await tellsOfAnEnd();
  }

  /** Whoever listens after the kill hears what happens then. */
  async function tellsOfAnEnd(): Promise<void> {
    const container = ledger.containers.find(({ state, code }) => state === 'running' && code === undefined);
    if (!container) return;
    const stop = new AbortController();
    const events = lab.client.runtime.getContainerEvents({}, { signal: stop.signal });
    const heard = (async () => {
      for await (const { containerId, containerEventType, containersStatuses } of events) {
        if (containerId !== container.id || containerEventType !== ContainerEventType.CONTAINER_STOPPED_EVENT) continue;
        return containersStatuses.find(({ id }) => id === container.id);
      }
      return undefined;
    })();
    try {
      // The subscription is there when the daemon has answered a call that came after it.
      await lab.client.runtime.version({});
      process.kill(await lab.pidOf('container', container.id!), 'SIGKILL');
      const status = await Promise.race([heard, sleep(60_000, undefined, { ref: false })]);
      assert.equal(status?.exitCode, 137, `the end of ${container.id} is told`);
      container.state = 'ended';
      container.told = 137;
    } finally {
      stop.abort();
      await heard.catch(() => undefined);
    }
  }

  test('leaves nothing behind', async () => {
    await lab.cri.ok('rmp', '-a', '-f');
    ledger.pods.clear();
    await surveyPods(lab, ledger);
    const { records, leases, tasks, fifos, addresses: ips, netns, mounts } = await held(lab);
    assert.deepEqual([records, leases, tasks, fifos, ips, netns, mounts], [0, 0, 0, 0, 0, 0, 0]);
    lab.disconnect();
    await lab.cri.close();
    await nothingRuns(lab.directory);
    for (const folder of cgroupFolders(lab.cgroup)) rmdirSync(folder);
    await eventually('no shim', () => (lab.shims().length === 0 ? true : undefined));
  });
});
