import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseAddresses, combineResults } from './results.ts';

const plugin = {
  cniVersion: '1.0.0',
  interfaces: [
    { name: 'br0', mac: 'a' },
    { name: 'eth0', mac: 'b', sandbox: '/ns' },
  ],
  ips: [
    { address: '10.0.0.2/24', gateway: '10.0.0.1', interface: 1 },
    { address: 'fd00::2/64', interface: 1 },
  ],
  routes: [{ dst: '0.0.0.0/0' }],
};

test('results become interfaces with their addresses, loopback among them', () => {
  const result = combineResults([plugin], '/ns');
  assert.deepEqual(result.Interfaces['eth0'], {
    IPConfigs: [
      { IP: '10.0.0.2', Gateway: '10.0.0.1' },
      { IP: 'fd00::2', Gateway: '' },
    ],
    Mac: 'b',
    Sandbox: '/ns',
    PciID: '',
    SocketPath: '',
  });
  assert.equal(result.Interfaces['br0']?.IPConfigs, null);
  assert.equal(result.Interfaces['lo']?.IPConfigs?.[0]?.IP, '127.0.0.1');
  assert.deepEqual(result.Routes, [{ dst: '0.0.0.0/0' }]);
});

test('the address of a pod is chosen by preference', () => {
  const result = combineResults([plugin], '/ns');
  assert.deepEqual(chooseAddresses(result, ''), { ip: '10.0.0.2', additionalIps: ['fd00::2'] });
  assert.deepEqual(chooseAddresses(result, 'ipv6'), { ip: 'fd00::2', additionalIps: ['10.0.0.2'] });
  assert.deepEqual(chooseAddresses(result, 'cni'), { ip: '10.0.0.2', additionalIps: ['fd00::2'] });
});
