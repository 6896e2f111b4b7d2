import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseAddresses, combineResults } from './results.ts';

const loopback = {
  cniVersion: '0.3.1',
  interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: '/ns' }],
  ips: [
    { address: '127.0.0.1/8', interface: 0 },
    { address: '::1/128', interface: 0 },
  ],
};
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

test('results become interfaces with their addresses', () => {
  const result = combineResults([loopback, plugin]);
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
  assert.deepEqual(
    result.Interfaces['lo']?.IPConfigs?.map(({ IP }) => IP),
    ['127.0.0.1', '::1'],
  );
  assert.deepEqual(result.DNS, [{}, {}]);
  assert.deepEqual(result.Routes, [{ dst: '0.0.0.0/0' }]);
});

test('an address that is on no interface is on the default one; one on an interface that is not there is an error', () => {
  const alone = combineResults([{ cniVersion: '1.0.0', ips: [{ address: '10.0.0.9/8' }] }]);
  assert.equal(alone.Interfaces['eth0']?.IPConfigs?.[0]?.IP, '10.0.0.9');
  const wrong = { cniVersion: '1.1.0', ips: [{ address: '10.1.2.3/24', interface: 7 }] };
  assert.throws(() => combineResults([wrong]), /\(interface number 7 is > number of interfaces 0\): invalid result/);
});

test('the address of a pod is chosen by preference', () => {
  const result = combineResults([plugin]);
  const six = { ...plugin, ips: plugin.ips.toReversed() };
  assert.deepEqual(chooseAddresses(result, ''), { ip: '10.0.0.2', additionalIps: ['fd00::2'] });
  assert.deepEqual(chooseAddresses(result, 'ipv6'), { ip: 'fd00::2', additionalIps: ['10.0.0.2'] });
  assert.deepEqual(chooseAddresses(combineResults([six]), 'ipv4'), { ip: '10.0.0.2', additionalIps: ['fd00::2'] });
  assert.deepEqual(chooseAddresses(combineResults([six]), 'cni'), { ip: 'fd00::2', additionalIps: ['10.0.0.2'] });
  assert.deepEqual(chooseAddresses(combineResults([loopback]), ''), { ip: '', additionalIps: [] });
});
