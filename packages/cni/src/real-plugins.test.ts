import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CLONE, unshare } from '@gantry/sys';
import { setLoopbackUp } from './loopback.ts';
import { createNetns, removeNetns } from './netns.ts';
import { addNetwork, checkNetwork, networkStatus, releaseNetwork } from './network-calls.ts';
import { readNetworkList } from './network-config.ts';
import { ResultCache } from './result-cache.ts';
import { combineResults } from './results.ts';
import { compareVersions, knownVersions } from './version.ts';

const debian = '/usr/lib/cni';
const newer = path.resolve(import.meta.dirname, '../../../.cache/go-bin/cni');

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'networks need root';
  return existsSync(`${debian}/bridge`) ? false : 'Debian’s containernetworking-plugins is not installed';
}

describe('real plugins, in every version', { skip: missing() }, () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'gantry-cni-real-'));
  const cache = new ResultCache(path.join(dir, 'cache'));
  const results = () => readdirSync(path.join(dir, 'cache/results'));

  before(() => {
    // What they make goes with this network, which this process and all that it starts are in from here on.
    unshare(CLONE.NEWNET);
    setLoopbackUp();
  });
  after(() => rmSync(dir, { recursive: true }));

  for (const [index, version] of knownVersions.entries()) {
    const new11 = version === '1.1.0';
    const skip = new11 && !existsSync(`${newer}/bridge`) ? 'its plugins are not in .cache/go-bin/cni' : false;
    test(version, { skip }, async () => {
      const directories = new11 ? [newer, debian] : [debian];
      const options = { directories, cache };
      const old = compareVersions(version, '0.3.0') < 0;
      const ranges = [[{ subnet: `10.77.${index}.0/24` }], ...(old ? [] : [[{ subnet: `fd00:77:${index}::/64` }]])];
      const ipam = { type: 'host-local', dataDir: `${dir}/ipam`, ranges, routes: [{ dst: '0.0.0.0/0' }] };
      const bridging = { type: 'bridge', bridge: `gantryv${index}`, isGateway: true, ipam };
      // Plugins of before 0.3.0 come alone.
      const tuning = old || new11 ? [] : [{ type: 'tuning', mtu: 1400 }];
      const name = `v${version}`;
      const list = { cniVersion: version, name, plugins: [bridging, ...tuning] };
      const network = readNetworkList(JSON.stringify(list));
      const netns = path.join(dir, `ns${index}`);
      const attachment = { containerId: 'c', netns, interfaceName: 'eth0', args: [], capabilityArgs: {} };
      const leases = () => readdirSync(`${dir}/ipam/${name}`).filter((file) => /^[\da-f]+[.:]/.test(file));
      await networkStatus(network, options);
      createNetns(netns);
      try {
        const result = await addNetwork(network, attachment, options);
        assert.equal(result.cniVersion, version);
        const addresses = combineResults([result]).Interfaces['eth0']?.IPConfigs?.map(({ IP }) => IP) ?? [];
        assert.equal(addresses.length, old ? 1 : 2);
        assert.deepEqual(leases().sort(), [...addresses].sort());
        assert.deepEqual(results(), [`${name}-c-eth0`]);
        if (compareVersions(version, '0.4.0') >= 0) {
          await checkNetwork(network, attachment, options);
          const elsewhere = { ...attachment, netns: path.join(dir, 'other') };
          createNetns(elsewhere.netns);
          await assert.rejects(checkNetwork(network, elsewhere, options), /./, 'it is not there');
          await removeNetns(elsewhere.netns);
        }
        await releaseNetwork(network, attachment, options);
        assert.deepEqual([leases(), results()], [[], []]);
        // A second time, and without a namespace, it is well.
        await releaseNetwork(network, { ...attachment, netns: '' }, options);
      } finally {
        await removeNetns(netns);
      }
    });
  }
});
