import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { Code } from '@gantry/api';
import type { Attachment } from './attachment.ts';
import {
  addNetwork,
  type CachedCallOptions,
  checkNetwork,
  collectNetwork,
  deleteNetwork,
  networkStatus,
  pluginVersions,
  releaseNetwork,
} from './network-calls.ts';
import { type NetworkConfig, readNetworkList } from './network-config.ts';
import { orphansGone } from './orphans.ts';
import { ResultCache } from './result-cache.ts';
import { type FakeAnswer, FakePlugins } from './testing/fake-plugin.ts';

describe('calls of plugins', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'gantry-cni-calls-'));
  const cache = new ResultCache(path.join(dir, 'cache'));
  const plugins = new FakePlugins(dir, ['first', 'second']);
  const options: CachedCallOptions = { directories: [path.join(dir, 'nowhere'), plugins.directory], cache };
  const results = () => (existsSync(`${dir}/cache/results`) ? readdirSync(`${dir}/cache/results`) : []);
  after(() => rmSync(dir, { recursive: true }));
  afterEach(() => {
    plugins.calls();
    rmSync(`${dir}/cache`, { recursive: true, force: true });
  });

  const attachment: Attachment = {
    containerId: 'c1',
    netns: '/run/ns/c1',
    interfaceName: 'eth0',
    args: [
      ['IgnoreUnknown', '1'],
      ['K8S_POD_NAME', 'p'],
    ],
    capabilityArgs: { portMappings: [{ hostPort: 1 }], aliases: ['a'] },
  };
  const result = { ips: [{ address: '10.0.0.2/24' }] };
  const network = (cniVersion: string, list: object[], more: object = {}): NetworkConfig =>
    readNetworkList(JSON.stringify({ cniVersion, name: 'net', plugins: list, ...more }));
  const answers = (fake: Record<string, FakeAnswer>, cniVersion = '1.1.0') =>
    network(cniVersion, [{ type: 'first', result, fake }]);

  test('ADD: results go from one to the next, and the last to the cache; each is told what it wants to know', async () => {
    const chain = network('1.0.0', [
      { type: 'first', result, capabilities: { portMappings: true, aliases: false } },
      { type: 'second', result: { ...result, dns: { domain: 'x' } } },
    ]);
    assert.deepEqual((await addNetwork(chain, attachment, options)).dns, { domain: 'x' });
    const [first, second, ...none] = plugins.calls();
    assert.deepEqual(none, []);
    const { input, ...call } = first!;
    assert.deepEqual(call, {
      plugin: 'first',
      command: 'ADD',
      id: 'c1',
      netns: '/run/ns/c1',
      interfaceName: 'eth0',
      args: 'IgnoreUnknown=1;K8S_POD_NAME=p',
      path: options.directories.join(':'),
    });
    assert.deepEqual([input.name, input.cniVersion, input.prevResult], ['net', '1.0.0', undefined]);
    assert.deepEqual(input.runtimeConfig, { portMappings: [{ hostPort: 1 }] });
    assert.deepEqual(second?.input.prevResult, { cniVersion: '1.0.0', ...result });
    assert.equal(second?.input.runtimeConfig, undefined);
    assert.deepEqual(results(), ['net-c1-eth0']);
    const file = JSON.parse(readFileSync(`${dir}/cache/results/net-c1-eth0`, 'utf8'));
    assert.deepEqual(Object.keys(file), [
      'kind',
      'containerId',
      'config',
      'ifName',
      'networkName',
      'netns',
      'cniArgs',
      'capabilityArgs',
      'result',
    ]);
    assert.equal(file.kind, 'cniCacheV1');
    assert.equal(Buffer.from(file.config, 'base64').toString(), chain.source);
    assert.deepEqual(file.cniArgs, attachment.args);
    assert.deepEqual(file.result, { cniVersion: '1.0.0', ...result, dns: { domain: 'x' } });
  });

  test('DEL and CHECK get the cached result in the version of the network; DEL ends the cache', async () => {
    const chain = network('0.4.0', [
      { type: 'first', result },
      { type: 'second', result },
    ]);
    await addNetwork(chain, attachment, options);
    plugins.calls();
    // Another process, as after a restart.
    const later = { ...options, cache: new ResultCache(path.join(dir, 'cache')) };
    await checkNetwork(chain, attachment, later);
    assert.deepEqual(
      plugins.calls().map(({ command, plugin, input }) => [command, plugin, input.prevResult.cniVersion]),
      [
        ['CHECK', 'first', '0.4.0'],
        ['CHECK', 'second', '0.4.0'],
      ],
    );
    const newer = { ...chain, cniVersion: '1.0.0' };
    await deleteNetwork(newer, { ...attachment, netns: '' }, later);
    const calls = plugins.calls();
    assert.deepEqual(
      calls.map(({ command, plugin, netns, input }) => [command, plugin, netns, input.prevResult.cniVersion]),
      [
        ['DEL', 'second', '', '1.0.0'],
        ['DEL', 'first', '', '1.0.0'],
      ],
    );
    assert.deepEqual(results(), []);
    await deleteNetwork(chain, attachment, options);
    assert.deepEqual(
      plugins.calls().map(({ input }) => input.prevResult),
      [undefined, undefined],
    );
  });

  test('before 0.4.0 there is no CHECK, and DEL gets no result; disableCheck asks nobody', async () => {
    const old = network('0.3.1', [{ type: 'first', result: { ips: [{ version: '4', address: '10.0.0.2/24' }] } }]);
    await addNetwork(old, attachment, options);
    await assert.rejects(checkNetwork(old, attachment, options), {
      code: Code.Unimplemented,
      message: 'configuration version "0.3.1" does not support the CHECK command',
    });
    plugins.calls();
    await deleteNetwork(old, attachment, options);
    assert.equal(plugins.calls()[0]?.input.prevResult, undefined);
    await checkNetwork({ ...old, cniVersion: '1.0.0', disableCheck: true }, attachment, options);
    assert.deepEqual(plugins.commands(), []);
  });

  test('half a cache file is as none, and one of the older form is understood', async () => {
    const one = answers({});
    await addNetwork(one, attachment, options);
    const file = `${dir}/cache/results/net-c1-eth0`;
    writeFileSync(file, '{"kind":"cniC');
    assert.deepEqual(await cache.list(), []);
    plugins.calls();
    await deleteNetwork(one, attachment, options);
    assert.equal(plugins.calls()[0]?.input.prevResult, undefined);
    assert.deepEqual(results(), []);
    await addNetwork(one, attachment, options);
    writeFileSync(file, JSON.stringify({ cniVersion: '0.2.0', ip4: { ip: '10.0.0.2/24' } }));
    plugins.calls();
    await deleteNetwork(one, attachment, options);
    assert.deepEqual(plugins.calls()[0]?.input.prevResult, { cniVersion: '1.1.0', ...result, routes: [] });
  });

  // The words are those of containerd 2.3.4 for the same plugins, but for what the JSON parser says.
  test('what goes wrong is told in its own words', async () => {
    const cases: [FakeAnswer, RegExp][] = [
      [
        { text: '{"cniVersion":"1.2.0"}' },
        /^plugin type="first" failed \(add\): unsupported CNI result version "1\.2\.0"$/,
      ],
      [{ text: 'rubbish' }, /^plugin type="first" failed \(add\): failed to unmarshal raw result: /],
      [{ text: '' }, /failed to unmarshal raw result: /],
      [{ exit: 3, text: '' }, /failed \(add\): netplugin failed with no error message: exit status 3$/],
      [{ exit: 1, text: '', errors: 'bad\n' }, /failed \(add\): netplugin failed: "bad"$/],
      [{ exit: 1, text: 'bad' }, /netplugin failed but error parsing its diagnostic message "bad": /],
      [{ dies: true, text: '' }, /netplugin failed with no error message: signal: killed$/],
      [{ exit: 1, print: { code: 7, msg: 'm', details: 'd' } }, /^plugin type="first" failed \(add\): m; d$/],
      [{ exit: 1, print: { code: 7 } }, /netplugin failed with no error message: exit status 1$/],
    ];
    for (const [answer, message] of cases)
      await assert.rejects(addNetwork(answers({ ADD: answer }), attachment, options), { code: Code.Unknown, message });
    const later = answers({ ADD: { exit: 1, print: { code: 11, msg: 'try again later' } } });
    await assert.rejects(addNetwork(later, attachment, options), { code: Code.Unavailable });
    await assert.rejects(addNetwork(network('1.0.0', [{ type: 'third' }]), attachment, options), {
      message: `plugin type="third" failed (add): failed to find plugin "third" in path [${options.directories.join(' ')}]`,
    });
    const named = network('1.0.0', [{ type: '../first', name: 'n' }]);
    await assert.rejects(addNetwork(named, attachment, options), /type="\.\.\/first" name="n" .*invalid plugin name/);
    await assert.rejects(
      addNetwork(answers({}), { ...attachment, containerId: '../x' }, options),
      /invalid characters/,
    );
    await assert.rejects(addNetwork(answers({}), { ...attachment, interfaceName: 'a/b' }, options), /interface name/);
    assert.deepEqual(results(), []);
  });

  test('one that hangs is killed with what it has started: when its time is over, or its caller goes', async () => {
    const hanging = answers({ ADD: { hangs: true, text: '' } });
    await assert.rejects(addNetwork(hanging, attachment, { ...options, timeoutMs: 1500 }), {
      code: Code.DeadlineExceeded,
      message: 'plugin type="first" failed (add): ADD took more than 1.5 s: killed',
    });
    const caller = new AbortController();
    const adding = addNetwork(hanging, attachment, { ...options, signal: caller.signal });
    const seen = setInterval(() => {
      if (plugins.calls().length > 0) caller.abort();
    }, 20);
    await assert.rejects(adding, {
      code: Code.Canceled,
      message: /ADD of plugin "first" was ended: context canceled$/,
    });
    clearInterval(seen);
    // Nobody with this container in the environment is left, and nobody had to be killed for that.
    await orphansGone(attachment.containerId, 60_000);
  });

  test('what is to be removed and not there is removed', async () => {
    const gone = answers({ DEL: { exit: 1, print: { code: 7, msg: 'open /run/ns/c1: no such file or directory' } } });
    await addNetwork(gone, attachment, options);
    await assert.rejects(releaseNetwork(gone, attachment, options), /failed \(delete\): open/);
    await releaseNetwork(gone, { ...attachment, netns: '' }, options);
    assert.deepEqual(results(), []);
    await releaseNetwork(answers({ DEL: { exit: 1, print: { msg: 'link not found' } } }), attachment, options);
  });

  test('STATUS and GC are for networks of 1.1.0', async () => {
    const busy = { exit: 1, print: { code: 50, msg: 'not yet', details: 'soon' } };
    await networkStatus(answers({ STATUS: busy }, '1.0.0'), options);
    assert.deepEqual(plugins.commands(), []);
    await networkStatus(answers({}), options);
    assert.deepEqual(plugins.commands(), ['STATUS first']);
    await assert.rejects(networkStatus(answers({ STATUS: busy }), options), {
      code: Code.Unavailable,
      message: 'not yet; soon',
    });
    plugins.calls();
    const valid = [{ containerID: 'c1', ifname: 'eth0' }];
    await collectNetwork(answers({}, '1.0.0'), valid, options);
    await collectNetwork({ ...answers({}), disableGC: true }, valid, options);
    assert.deepEqual(plugins.commands(), []);
    await collectNetwork(answers({}), valid, options);
    const [call] = plugins.calls();
    assert.deepEqual([call?.command, call?.id, call?.input['cni.dev/valid-attachments']], ['GC', '', valid]);
    assert.deepEqual(call?.input['cni.dev/attachments'], valid);
    const two = network('1.1.0', [{ type: 'first', fake: { GC: busy } }, { type: 'second' }]);
    await assert.rejects(collectNetwork(two, valid, options), /failed to GC plugin first: not yet; soon/);
    assert.deepEqual(plugins.commands(), ['GC first', 'GC second']);
  });

  describe('VERSION', () => {
    before(() => {
      const script = (text: string) => `#!/bin/sh\ncat >/dev/null\n${text}\n`;
      const old = `echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1`;
      writeFileSync(path.join(plugins.directory, 'oldest'), script(old), { mode: 0o755 });
      writeFileSync(path.join(plugins.directory, 'mute'), script(`echo '{"cniVersion":"1.0.0"}'`), { mode: 0o755 });
    });

    test('of plugins old, mute and new', async () => {
      assert.deepEqual(await pluginVersions('oldest', options), ['0.1.0']);
      await assert.rejects(pluginVersions('mute', options), /"mute" does not say which versions it supports/);
    });

    const debian = '/usr/lib/cni';
    const skip = existsSync(`${debian}/bridge`) ? false : 'Debian’s containernetworking-plugins is not installed';
    test('of the bridge plugin', { skip }, async () => {
      const versions = await pluginVersions('bridge', { directories: [debian] });
      for (const version of ['0.1.0', '0.4.0', '1.0.0']) assert.ok(versions.includes(version), version);
    });
  });
});
