import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PluginResult, readResult, resultAsVersion } from './plugin-result.ts';
import { compareVersions, knownVersions, negotiateVersion } from './version.ts';

const full: PluginResult = {
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', mac: 'aa:bb:cc:dd:ee:ff', sandbox: '/ns', mtu: 1400 }],
  ips: [
    { address: '10.1.2.3/24', gateway: '10.1.2.1', interface: 0 },
    { address: 'fd00::5/64', interface: 0 },
  ],
  routes: [{ dst: '0.0.0.0/0', gw: '10.1.2.1' }, { dst: '::/0' }],
  dns: { nameservers: ['10.1.2.1'] },
};

test('a result becomes that of each version, and is read again with what that version can hold', () => {
  for (const version of knownVersions) {
    const written = resultAsVersion(full, version);
    const again = readResult(written, '');
    assert.equal(again.cniVersion, version);
    assert.deepEqual(
      again.ips?.map(({ address, gateway }) => [address, gateway]),
      [
        ['10.1.2.3/24', '10.1.2.1'],
        ['fd00::5/64', undefined],
      ],
      version,
    );
    assert.deepEqual(again.routes, full.routes);
    assert.deepEqual(again.dns, full.dns);
    const old = compareVersions(version, '0.3.0') < 0;
    assert.deepEqual(again.interfaces?.[0]?.name, old ? undefined : 'eth0');
  }
  assert.deepEqual(resultAsVersion(full, '0.2.0'), {
    cniVersion: '0.2.0',
    ip4: { ip: '10.1.2.3/24', gateway: '10.1.2.1', routes: [{ dst: '0.0.0.0/0', gw: '10.1.2.1' }] },
    ip6: { ip: 'fd00::5/64', routes: [{ dst: '::/0' }] },
    dns: { nameservers: ['10.1.2.1'] },
  });
  const middle = resultAsVersion(full, '0.4.0') as { ips: object[]; interfaces: object[] };
  assert.deepEqual(middle.ips[1], { version: '6', address: 'fd00::5/64', interface: 0 });
  assert.deepEqual(middle.interfaces, [{ name: 'eth0', mac: 'aa:bb:cc:dd:ee:ff', sandbox: '/ns' }]);
  assert.deepEqual((resultAsVersion(full, '1.1.0') as PluginResult).interfaces?.[0]?.['mtu'], 1400);
});

test('the version is what the plugin says, else the configuration’s', () => {
  assert.equal(readResult({}, '0.4.0').cniVersion, '0.4.0');
  assert.equal(readResult({ cniVersion: '' }, '').cniVersion, '0.1.0');
  assert.equal(readResult(null, '1.1.0').cniVersion, '1.1.0');
  assert.equal(readResult({ cniVersion: '0.3.1' }, '1.0.0').cniVersion, '0.3.1');
  assert.deepEqual(readResult({ cniVersion: '0.2.0', ip4: { ip: '10.0.0.1/8' } }, '').ips, [{ address: '10.0.0.1/8' }]);
});

test('addresses are compared as text, so they are written in one way', () => {
  const { ips } = readResult({ cniVersion: '1.0.0', ips: [{ address: 'FD00:0:0::0005/64', gateway: '' }] }, '');
  assert.deepEqual(ips, [{ address: 'fd00::5/64' }]);
});

test('what is no result is refused', () => {
  const cases: [unknown, RegExp][] = [
    [{ cniVersion: '1.2.0' }, /^unsupported CNI result version "1\.2\.0"$/],
    [[], /failed to unmarshal raw result/],
    ['text', /failed to unmarshal raw result/],
    [{ ips: [{ address: 'nonsense' }] }, /^invalid CIDR address: nonsense$/],
    [{ ips: [{ address: '10.0.0.1/33' }] }, /invalid CIDR address/],
    [{ ips: [{ address: 'fe80::1%eth0/64' }] }, /invalid CIDR address/],
    [{ ips: [{}] }, /address is no text/],
    [{ ips: [{ address: '10.0.0.1/8', interface: -1 }] }, /interface number -1/],
    [{ ips: [{ address: '10.0.0.1/8', gateway: 'x' }] }, /invalid IP address: x/],
    [{ ips: {} }, /ips is no list/],
    [{ interfaces: [{}] }, /name is no text/],
    [{ routes: [{ dst: '1.2.3.4' }] }, /invalid CIDR address/],
  ];
  for (const [printed, reason] of cases) assert.throws(() => readResult(printed, '1.1.0'), { message: reason });
  assert.throws(() => resultAsVersion({ cniVersion: '1.0.0' }, '0.2.0'), /cannot convert: no valid IP addresses/);
  assert.throws(() => resultAsVersion(full, '2.0.0'), /cannot convert from "1\.1\.0" to "2\.0\.0"/);
});

test('of several versions the newest that is known is taken', () => {
  assert.equal(negotiateVersion('0.4.0', ['0.3.1', '1.0.0']), '1.0.0');
  assert.equal(negotiateVersion('1.0.0', ['0.4.0']), '1.0.0');
  assert.equal(negotiateVersion('', ['1.1.0', '1.9.0', '0.10.0']), '1.1.0');
  assert.equal(negotiateVersion('9.0.0', ['8.0.0']), '9.0.0');
  assert.equal(compareVersions('', '0.1.0'), 0);
  assert.ok(compareVersions('0.10.0', '0.9.9') > 0);
  assert.throws(() => compareVersions('x', '1.0.0'), /failed to parse CNI version "x"/);
});
