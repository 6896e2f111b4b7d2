import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Code } from '@gantry/api';
import { loadNetworks, readNetworkList } from './network-config.ts';

describe('network configuration', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'gantry-cni-config-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const put = (name: string, content: unknown): void => {
    mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
    writeFileSync(path.join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
  };
  const list = (name: string, more: object = {}) => ({ cniVersion: '1.0.0', name, plugins: [{ type: 'p' }], ...more });
  const names = async (max: number) => (await loadNetworks(dir, max)).map(({ name }) => name);

  test('the first file by name is the default network; others follow up to the limit', async () => {
    put('20-b.conflist', list('b'));
    put('10-a.conf', { cniVersion: '0.3.1', name: 'a', type: 'bridge' });
    put('30-c.json', { name: 'c', type: 'macvlan' });
    put('05-ignored.txt', 'x');
    mkdirSync(path.join(dir, '01-folder.conf'));
    assert.deepEqual(await names(1), ['a']);
    assert.deepEqual(await names(2), ['a', 'b']);
    assert.deepEqual(await names(0), ['a', 'b', 'c']);
    const [single] = await loadNetworks(dir, 1);
    assert.deepEqual(single?.plugins, [{ cniVersion: '0.3.1', name: 'a', type: 'bridge' }]);
    assert.deepEqual(readNetworkList(single?.source ?? '').plugins, single?.plugins);
  });

  test('nothing there is not initialized; a mistake before enough are found spoils all', async () => {
    await assert.rejects(loadNetworks(dir, 1), {
      code: Code.FailedPrecondition,
      message: `no network config found in ${dir}: cni plugin not initialized`,
    });
    await assert.rejects(loadNetworks(path.join(dir, 'none'), 1), /no network config found/);
    put('20-good.conflist', list('good'));
    const cases: [string, unknown, RegExp][] = [
      [
        '10-x.conflist',
        '{"name": 1',
        /failed to load CNI config list file .*10-x\.conflist: error parsing configuration list: .*: invalid cni config$/,
      ],
      ['10-x.conflist', { plugins: [{ type: 'p' }] }, /error parsing configuration list: no name/],
      ['10-x.conflist', { name: 1, plugins: [] }, /invalid name type/],
      ['10-x.conflist', list('x', { plugins: [] }), /no plugins in list/],
      ['10-x.conflist', list('x', { plugins: {} }), /invalid 'plugins' type/],
      [
        '10-x.conflist',
        list('x', { plugins: [{}] }),
        /failed to parse plugin config 0: error parsing configuration: missing 'type'/,
      ],
      ['10-x.conflist', list('../x'), /invalid characters found in network name/],
      ['10-x.conflist', list('x', { disableCheck: 'perhaps' }), /invalid value "perhaps" for disableCheck/],
      [
        '10-x.conflist',
        { name: 'x', loadOnlyInlinedPlugins: true },
        /`loadOnlyInlinedPlugins` is true, and no 'plugins' key/,
      ],
      ['10-x.conflist', { name: 'x' }, /no plugin configs found/],
      [
        '10-x.conf',
        list('x'),
        /failed to load CNI config file .*10-x\.conf: error parsing configuration: missing 'type': invalid cni config$/,
      ],
      ['10-x.conf', '[]', /it is no object/],
      ['10-x.conf', { type: 'p', name: 'x', capabilities: { a: 1 } }, /capabilities are true or false/],
    ];
    for (const [name, content, reason] of cases) {
      put(name, content);
      await assert.rejects(
        loadNetworks(dir, 1),
        { code: Code.InvalidArgument, message: reason },
        JSON.stringify(content),
      );
      rmSync(path.join(dir, name));
    }
    put('30-bad.conflist', '{');
    assert.deepEqual(await names(1), ['good']);
    await assert.rejects(loadNetworks(dir, 2), /30-bad/);
  });

  test('what 1.1 says of a network: versions, flags, plugins in a directory of their own', async () => {
    put(
      '10-n.conflist',
      list('n', { cniVersions: ['0.4.0', '1.1.0', '2.0.0'], disableGC: 'true', disableCheck: true }),
    );
    put('n/20-second.conf', { type: 'second' });
    put('n/10-first.conf', { type: 'first' });
    put('n/not-one.conflist', { type: 'third' });
    const [network] = await loadNetworks(dir, 1);
    assert.equal(network?.cniVersion, '1.1.0');
    assert.deepEqual([network?.disableGC, network?.disableCheck], [true, true]);
    const types = (of: typeof network) => of!.plugins.map(({ type }) => type);
    assert.deepEqual(types(network), ['p', 'first', 'second']);
    // What is remembered of a pod's network has to be whole without the directory.
    assert.deepEqual(types(readNetworkList(network?.source ?? '')), ['p', 'first', 'second']);
    put('10-n.conflist', list('n', { loadOnlyInlinedPlugins: true }));
    assert.deepEqual(types((await loadNetworks(dir, 1))[0]!), ['p']);
    put('10-n.conflist', { name: 'n', cniVersion: '1.1.0' });
    assert.deepEqual(types((await loadNetworks(dir, 1))[0]!), ['first', 'second']);
  });
});
