import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Code } from '@gantry/api';
import { PodSandboxConfigSchema, PodSandboxMetadataSchema, Protocol } from '@gantry/api/gen/cri/v1/api_pb.js';
import { CniNetwork } from './cni-network.ts';
import type { CniSettings } from './cni-settings.ts';
import type { NetworkedPod } from './pod-network.ts';
import { FakePlugins } from './testing/fake-plugin.ts';

describe('networks of pods', () => {
  let dir: string;
  let plugins: FakePlugins;
  let open: CniNetwork[];
  let said: string[];

  beforeEach(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'gantry-cni-pods-'));
    plugins = new FakePlugins(dir, ['fake', 'other', 'loopback']);
    open = [];
    said = [];
    configure();
  });
  afterEach(async () => {
    for (const network of open) await network.close();
    rmSync(dir, { recursive: true });
  });

  const result = { ips: [{ address: '10.1.2.3/24' }, { address: 'fd00::5/64' }] };
  const file = (name: string) => path.join(dir, 'net.d', name);
  function configure(more: object = {}, plugin: object = {}, name = '10-net.conflist'): void {
    mkdirSync(path.join(dir, 'net.d'), { recursive: true });
    const list = { cniVersion: '1.1.0', name: 'net', plugins: [{ type: 'fake', result, ...plugin }], ...more };
    writeFileSync(file(name), JSON.stringify(list));
  }

  /** A daemon's networks; each is a later daemon. */
  function daemon(settings: Partial<CniSettings> = {}, ledger = 'ledger'): CniNetwork {
    const log = (message: string) => said.push(message);
    const network = new CniNetwork({
      settings: {
        bin_dir: '',
        bin_dirs: [plugins.directory],
        conf_dir: path.join(dir, 'net.d'),
        max_conf_num: 1,
        setup_serially: false,
        conf_template: '',
        ip_pref: '',
        use_internal_loopback: true,
        ...settings,
      },
      runtimes: {
        own: { cni_conf_dir: path.join(dir, 'own.d'), cni_max_conf_num: 0 },
        none: { cni_conf_dir: '', cni_max_conf_num: 0 },
      },
      ledger: path.join(dir, ledger),
      cache: path.join(dir, 'cache'),
      log: { debug: log, info: log, warn: log },
    });
    open.push(network);
    return network;
  }

  function pod(config: MessageInitShape<typeof PodSandboxConfigSchema> = {}, runtimeHandler = ''): NetworkedPod {
    const metadata = { name: 'p', namespace: 'ns', uid: 'u', attempt: 0 };
    return {
      id: randomBytes(8).toString('hex'),
      netnsPath: path.join(dir, 'nowhere'),
      config: Object.assign(create(PodSandboxConfigSchema, config), {
        metadata: create(PodSandboxMetadataSchema, metadata),
      }),
      runtimeHandler,
    };
  }

  const left = (): string[] =>
    ['ledger', 'cache/results'].flatMap((name) =>
      existsSync(path.join(dir, name)) ? readdirSync(path.join(dir, name)) : [],
    );

  test('a pod gets its addresses, and plugins are told about it', async () => {
    configure(
      {},
      {
        capabilities: {
          portMappings: true,
          bandwidth: true,
          dns: true,
          cgroupPath: true,
          'io.kubernetes.cri.pod-annotations': true,
          ipRanges: true,
        },
      },
    );
    const annotations = { 'kubernetes.io/ingress-bandwidth': '10M', 'kubernetes.io/egress-bandwidth': '1500k' };
    const one = pod({
      annotations,
      portMappings: [
        { hostPort: 8080, containerPort: 80, protocol: Protocol.TCP },
        { hostPort: 8081, containerPort: 81, protocol: Protocol.UDP, hostIp: '127.0.0.1' },
        { containerPort: 82 },
      ],
      dnsConfig: { servers: ['192.0.2.1'], searches: ['lab'], options: [] },
      linux: { cgroupParent: '/kubepods/x' },
    });
    const network = daemon();
    const { ip, additionalIps, result: made } = await network.setUp(one);
    assert.deepEqual([ip, additionalIps], ['10.1.2.3', ['fd00::5']]);
    assert.deepEqual(Object.keys(made.Interfaces), ['eth0']);
    const [call] = plugins.calls();
    assert.equal(
      call?.args,
      `IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=${one.id};K8S_POD_UID=u`,
    );
    const burst = 4294967295;
    assert.deepEqual(call?.input.runtimeConfig, {
      portMappings: [
        { hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIP: '' },
        { hostPort: 8081, containerPort: 81, protocol: 'udp', hostIP: '127.0.0.1' },
      ],
      bandwidth: { ingressRate: 10_000_000, ingressBurst: burst, egressRate: 1_500_000, egressBurst: burst },
      dns: { servers: ['192.0.2.1'], searches: ['lab'], options: [] },
      cgroupPath: '/kubepods/x',
      'io.kubernetes.cri.pod-annotations': annotations,
    });
    // DEL is told the same.
    await network.tearDown(one);
    const [down] = plugins.calls();
    assert.deepEqual([down?.command, down?.args], ['DEL', call?.args]);
    assert.deepEqual(down?.input.runtimeConfig, call?.input.runtimeConfig);
    assert.deepEqual(down?.input.prevResult.ips, result.ips);
    assert.deepEqual(left(), []);
    await network.tearDown(one);
    assert.deepEqual(plugins.calls(), []);
  });

  test('bandwidth that makes no sense is refused before any plugin is called', async () => {
    const cases: [string, RegExp][] = [
      ['10X', /get cni namespace options: reading pod bandwidth annotations: quantities must match/],
      ['10', /resource is unreasonably small \(< 1kbit\)/],
      ['2P', /resource is unreasonably large \(> 1Pbit\)/],
    ];
    for (const [rate, message] of cases) {
      const annotations = { 'kubernetes.io/egress-bandwidth': rate };
      await assert.rejects(daemon().setUp(pod({ annotations })), { code: Code.InvalidArgument, message });
    }
    assert.deepEqual([plugins.calls(), left()], [[], []]);
  });

  test('loopback by its plugin, several networks, at once or one after another, and a handler’s own', async () => {
    configure(
      { name: 'second' },
      {
        type: 'other',
        result: { ips: [{ address: '10.9.9.9/24', interface: 0 }], interfaces: [{ name: 'eth1', sandbox: '/x' }] },
      },
      '20-second.conflist',
    );
    const network = daemon({ use_internal_loopback: false, max_conf_num: 0, setup_serially: true });
    const one = pod();
    const { ip, result: made } = await network.setUp(one);
    assert.equal(ip, '10.1.2.3');
    assert.deepEqual(made.Interfaces['eth1']?.IPConfigs, [{ IP: '10.9.9.9', Gateway: '' }]);
    const calls = plugins.calls().map(({ command, plugin, interfaceName }) => `${command} ${plugin} ${interfaceName}`);
    assert.deepEqual(calls, ['ADD loopback lo', 'ADD fake eth0', 'ADD other eth1']);
    await network.tearDown(one);
    assert.deepEqual(plugins.commands(), ['DEL other', 'DEL fake', 'DEL loopback']);
    const parallel = daemon({ use_internal_loopback: false, max_conf_num: 0 });
    await parallel.setUp(one);
    assert.deepEqual(plugins.commands().sort(), ['ADD fake', 'ADD loopback', 'ADD other']);
    await parallel.tearDown(one);
    plugins.calls();
    mkdirSync(path.join(dir, 'own.d'), { recursive: true });
    const own = { cniVersion: '1.0.0', name: 'own', type: 'other', result };
    writeFileSync(path.join(dir, 'own.d/x.conf'), JSON.stringify(own));
    const handlers = daemon();
    for (const handler of ['own', 'none', '']) await handlers.setUp(pod({}, handler));
    assert.deepEqual(plugins.commands(), ['ADD other', 'ADD fake', 'ADD fake']);
  });

  test('a failed ADD is followed by DEL, and nothing is left', async () => {
    const failing = { code: 999, msg: 'no addresses left' };
    configure({
      plugins: [
        { type: 'fake', result },
        { type: 'other', fake: { ADD: { exit: 1, print: failing } } },
      ],
    });
    const network = daemon();
    const one = pod();
    await assert.rejects(network.setUp(one), {
      message: `failed to setup network for sandbox "${one.id}": plugin type="other" failed (add): no addresses left`,
    });
    await network.tearDown(one);
    assert.deepEqual(plugins.commands(), ['ADD fake', 'ADD other', 'DEL other', 'DEL fake']);
    assert.deepEqual(left(), []);
    configure({}, { result: {} });
    const second = daemon();
    await assert.rejects(second.setUp(one), /failed to find network info for sandbox/);
    await second.tearDown(one);
    assert.deepEqual(left(), []);
  });

  test('a DEL that fails is an error, and can be made again', async () => {
    const failing = (exit: number) => configure({}, { fake: { DEL: { exit, print: { msg: 'busy' } } } });
    failing(1);
    const one = pod();
    await daemon().setUp(one);
    await assert.rejects(daemon().tearDown(one), {
      message: `failed to destroy network for sandbox "${one.id}": plugin type="fake" failed (delete): busy`,
    });
    assert.equal(left().length, 2);
  });

  test('DEL and CHECK go to the network as it was, whatever is configured now, also after a restart', async () => {
    const one = pod();
    await daemon().setUp(one);
    rmSync(file('10-net.conflist'));
    plugins.calls();
    const later = daemon();
    await assert.rejects(later.setUp(pod()), { code: Code.Unavailable, message: /: cni plugin not initialized$/ });
    await later.check(one);
    await later.tearDown(one);
    const calls = plugins.calls();
    assert.deepEqual(
      calls.map(({ command, input }) => [command, input.prevResult.ips[0].address]),
      [
        ['CHECK', '10.1.2.3/24'],
        ['DEL', '10.1.2.3/24'],
      ],
    );
    assert.deepEqual(left(), []);
  });

  test('what another daemon has set up is known by the cache, else by what is configured', async () => {
    const one = pod();
    await daemon().setUp(one);
    rmSync(path.join(dir, 'ledger'), { recursive: true });
    rmSync(file('10-net.conflist'));
    plugins.calls();
    await daemon().tearDown(one);
    assert.deepEqual(plugins.commands(), ['DEL fake']);
    assert.deepEqual(left(), []);
    configure();
    await daemon().tearDown({ ...one, result: { Interfaces: {}, DNS: null, Routes: null } });
    assert.deepEqual(plugins.commands(), ['DEL fake']);
    await daemon().tearDown(one);
    assert.deepEqual(plugins.commands(), []);
  });

  test('ready, as plugins of 1.1.0 say; verbose status as containerd has it', async () => {
    const network = daemon({ use_internal_loopback: false });
    assert.deepEqual(await network.status(''), { ready: true, reason: '', message: '' });
    assert.deepEqual(plugins.commands(), ['STATUS fake']);
    const { cniconfig, ...statuses } = network.info();
    assert.deepEqual(statuses, {
      lastCNILoadStatus: 'OK',
      'lastCNILoadStatus.default': 'OK',
      'lastCNILoadStatus.own': `cni config load failed: no network config found in ${dir}/own.d: cni plugin not initialized: failed to load cni config`,
    });
    const { Networks: shown, ...rest } = JSON.parse(cniconfig ?? '');
    assert.deepEqual(rest, {
      PluginDirs: [plugins.directory],
      PluginConfDir: path.join(dir, 'net.d'),
      PluginMaxConfNum: 1,
      Prefix: 'eth',
    });
    assert.deepEqual(shown[0].Config.Plugins, [
      { Network: { ipam: {}, type: 'loopback' }, Source: '{"type":"loopback"}' },
    ]);
    assert.deepEqual([shown[0].IFName, shown[1].IFName, shown[1].Config.Name], ['lo', 'eth0', 'net']);
    assert.equal(shown[1].Config.Source, readFileSync(file('10-net.conflist'), 'utf8'));
    configure({}, { fake: { STATUS: { exit: 1, print: { code: 50, msg: 'not yet', details: 'soon' } } } });
    assert.deepEqual(await daemon().status(''), {
      ready: false,
      reason: 'NetworkPluginNotReady',
      message: 'Network plugin returns error: not yet; soon',
    });
    rmSync(file('10-net.conflist'));
    const { message } = await daemon().status('');
    assert.equal(message, 'Network plugin returns error: cni plugin not initialized');
  });

  test('the pod CIDR fills the template, once, if nothing is configured', async () => {
    const template = path.join(dir, 'net.template');
    const plugin = `{"type": "fake", "result": {"ips": [{"address": "10.0.0.1/8"}]}, "ranges": [{{range $i, $r := .PodCIDRRanges}}{{if $i}},{{end}}"{{$r}}"{{end}}]}`;
    writeFileSync(template, `{"cniVersion": "1.0.0", "name": "made", "plugins": [${plugin}]}`);
    const made = file('10-containerd-net.conflist');
    await daemon({ conf_template: template }).updatePodCidr('10.9.0.0/16');
    assert.ok(!existsSync(made), 'a network is there already');
    rmSync(file('10-net.conflist'));
    await daemon().updatePodCidr('10.9.0.0/16');
    assert.ok(!existsSync(made), 'there is no template');
    const network = daemon({ conf_template: template });
    await assert.rejects(network.updatePodCidr('10.9.0.0'), { message: 'get routes: invalid CIDR address: 10.9.0.0' });
    await network.updatePodCidr('10.9.0.0/16, fd00:9::/64');
    assert.deepEqual(JSON.parse(readFileSync(made, 'utf8')).plugins[0].ranges, ['10.9.0.0/16', 'fd00:9::/64']);
    assert.equal((await network.status('')).ready, true);
    await network.updatePodCidr('10.8.0.0/16');
    assert.ok(readFileSync(made, 'utf8').includes('10.9.0.0/16'));
    rmSync(made);
    writeFileSync(template, '{{.Nope}}');
    await assert.rejects(daemon({ conf_template: template }).updatePodCidr('10.9.0.0/16'), {
      code: Code.InvalidArgument,
      message: `failed to generate cni config file "${made}": template: net.template:1: can't evaluate field Nope`,
    });
    await assert.rejects(daemon({ conf_template: `${template}.not` }).updatePodCidr('10.9.0.0/16'), {
      message: /failed to parse cni config template/,
    });
    assert.deepEqual(readdirSync(path.join(dir, 'net.d')), []);
  });

  describe('a later daemon', () => {
    test('frees what pods that are gone have, and nothing else', async () => {
      const before = daemon();
      const [gone, alive] = [pod(), pod()];
      for (const each of [gone, alive]) await before.setUp(each);
      // Of another daemon in the same network.
      const theirs = pod();
      await daemon({}, 'their-ledger').setUp(theirs);
      writeFileSync(path.join(dir, 'ledger/half.json.draft'), '{');
      plugins.calls();
      await daemon().sweep(new Set([alive.id]));
      const calls = plugins.calls();
      assert.deepEqual(
        calls.map(({ command, id, netns }) => [command, id, netns]),
        [
          ['DEL', gone.id, ''],
          ['VERSION', '', 'dummy'],
        ],
      );
      assert.deepEqual(readdirSync(path.join(dir, 'ledger')), [`${alive.id}.json`]);
      assert.deepEqual(
        readdirSync(path.join(dir, 'cache/results')).sort(),
        [alive.id, theirs.id].map((id) => `net-${id}-eth0`).sort(),
      );
      await daemon().sweep(new Set([alive.id]));
      assert.deepEqual(plugins.commands(), ['VERSION fake']);
    });

    test('frees a pod whose note a power cut has left empty, in the network as it is now', async () => {
      const [gone, stopped] = [pod(), pod()];
      for (const one of [gone, stopped]) {
        await daemon().setUp(one);
        writeFileSync(path.join(dir, `ledger/${one.id}.json`), '');
      }
      rmSync(path.join(dir, 'cache'), { recursive: true });
      plugins.calls();
      await daemon().tearDown(stopped);
      assert.deepEqual(
        plugins.calls().map(({ command, id }) => [command, id]),
        [['DEL', stopped.id]],
      );
      await daemon().sweep(new Set());
      const [call] = plugins.calls();
      assert.deepEqual([call?.command, call?.id, call?.netns], ['DEL', gone.id, '']);
      assert.deepEqual(left(), []);
    });

    test('frees what was asked for, but not answered, when it was killed', async () => {
      configure({}, { fake: { ADD: { hangs: true, text: '' } } });
      const before = daemon();
      const one = pod();
      const caller = new AbortController();
      const adding = before.setUp(one, caller.signal);
      while (plugins.calls().length === 0) await sleep(20);
      // The daemon is as good as dead: its ledger is all that is known, and the plugin still runs.
      const later = daemon();
      const sweeping = later.sweep(new Set());
      caller.abort();
      await assert.rejects(adding, { code: Code.Canceled });
      await sweeping;
      assert.deepEqual(
        plugins
          .calls()
          .map(({ command, id }) => [command, id])
          .slice(0, -1),
        [['DEL', one.id]],
      );
      assert.deepEqual(left(), []);
    });

    test('has plugins of 1.1.0 that know it collect, telling them what is in use', async () => {
      plugins = new FakePlugins(dir, ['fake'], ['1.0.0', '1.1.0']);
      const before = daemon();
      const [gone, alive] = [pod(), pod()];
      for (const each of [gone, alive]) await before.setUp(each);
      plugins.calls();
      await daemon().sweep(new Set([alive.id]));
      const calls = plugins.calls();
      assert.deepEqual(
        calls.map(({ command }) => command),
        ['DEL', 'VERSION', 'GC'],
      );
      assert.deepEqual(calls[2]?.input['cni.dev/valid-attachments'], [{ containerID: alive.id, ifname: 'eth0' }]);
      await daemon({}, 'their-ledger').setUp(pod());
      plugins.calls();
      await daemon().sweep(new Set([alive.id]));
      assert.deepEqual(plugins.commands(), ['VERSION fake'], 'others would lose what they have');
      assert.ok(said.some((line) => /has other users/.test(line)));
    });
  });
});
