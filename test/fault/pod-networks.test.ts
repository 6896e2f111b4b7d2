import assert from 'node:assert/strict';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { setLoopbackUp } from '@gantry/cni/loopback.ts';
import { CLONE, unshare } from '@gantry/sys';
import { CriLab } from '../lib/cri-lab.ts';
import { cachedResults, networkLeftovers, noLeftovers, resultCache } from '../lib/network-leftovers.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { Random } from './random.ts';
import { faultRounds } from './rounds.ts';

const rounds = faultRounds(4);
const podsAtOnce = 6;
const patience = 120_000;

describe('the daemon is killed while pods come and go', { skip: CriLab.missing() }, () => {
  const random = Random.fromEnvironment();
  const temp = makeTempDir('pod-networks');
  const bridge = 'gantrycni1';
  const subnet = '10.204.0.0/24';
  const lab = new CriLab(temp.path, { bridge, subnet }, 'netns_mounts_under_state_dir = true');

  before(async () => {
    // All that this process starts, and itself, are in a network of their own from here on, and bridges go with it.
    unshare(CLONE.NEWNET);
    setLoopbackUp();
    await lab.start();
    for (const image of ['busybox:1', 'registry.k8s.io/pause:3.10.2']) await lab.ok('pull', image);
    const ranges = [[{ subnet }], [{ subnet: 'fd00:204::/64' }]];
    const ipam = { type: 'host-local', dataDir: `${temp.path}/ipam`, ranges };
    const plugins: object[] = [{ type: 'bridge', bridge, isGateway: true, ipam }];
    if (existsSync('/usr/sbin/iptables')) plugins.push({ type: 'firewall' });
    const network = { cniVersion: '1.0.0', name: bridge, plugins };
    writeFileSync(path.join(temp.path, 'cni/10-lab.conflist'), JSON.stringify(network));
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    for (const name of cachedResults(lab)) rmSync(path.join(resultCache, name), { force: true });
    await temp.remove();
  });

  test(`every address, interface, namespace and note is given back (${rounds} rounds)`, async (t) => {
    t.diagnostic(`GANTRY_FAULT_SEED=${random.seed}`);
    for (let round = 0; round < rounds; round += 1) {
      const churn = Array.from({ length: podsAtOnce }, async (_, index) => {
        const removed = random.chance(0.6);
        const { code, stdout } = await lab.crictl(['runp', lab.pod(`churn-${round}-${index}`)], { mayFail: true });
        if (code === 0 && removed) await lab.crictl(['rmp', '-f', stdout.trim()], { mayFail: true });
      });
      await sleep(random.between(20, 900));
      await lab.daemon.kill();
      await Promise.all(churn);
      await lab.daemon.start();
    }
    let found = await networkLeftovers(lab);
    await eventually(
      'all pods can be removed, and nothing is left',
      async () => {
        await lab.crictl(['rmp', '-a', '-f'], { mayFail: true });
        found = await networkLeftovers(lab);
        return JSON.stringify(found) === JSON.stringify(noLeftovers) ? true : undefined;
      },
      patience,
    ).catch((error) => assert.fail(`${error}: ${JSON.stringify(found)} (seed ${random.seed})`));
    assert.equal(await lab.ok('pods', '-q'), '');
  });
});
