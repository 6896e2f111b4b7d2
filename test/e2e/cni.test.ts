import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setLoopbackUp } from '@gantry/cni/loopback.ts';
import { FakePlugins } from '@gantry/cni/testing/fake-plugin.ts';
import { CLONE, unshare } from '@gantry/sys';
import { CriLab } from '../lib/cri-lab.ts';
import { cachedResults, networkLeftovers, noLeftovers, resultCache } from '../lib/network-leftovers.ts';
import { eventually as eventuallyWithin, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const eventually = <T>(what: string, ask: () => T | undefined | Promise<T | undefined>) =>
  eventuallyWithin(what, ask, 60_000);
const bridge = 'gantrycni0';

interface PodInspect {
  status: { network: { ip: string; additionalIps: { ip: string }[] } };
  info: { cniResult: { Interfaces: Record<string, { Sandbox: string; IPConfigs: { IP: string }[] | null }> } };
}

interface Info {
  status: { conditions: { type: string; status: boolean; reason: string; message: string }[] };
  lastCNILoadStatus: string;
  cniconfig: { Networks: { IFName: string; Config: { Name: string } }[] };
}

/** Why a kind of plugin cannot be used here. */
function lacks(program: string, args: string[]): string | false {
  const { status } = spawnSync(program, args, { stdio: 'ignore' });
  return status === 0 ? false : `${program} ${args.join(' ')} does not work here`;
}

describe('networks of pods by CNI plugins', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('cni');
  const fakes = new FakePlugins(temp.path, ['fake'], ['0.4.0', '1.0.0', '1.1.0']);
  const template = path.join(temp.path, 'net.template');
  const netns = path.join(temp.path, 'state/io.containerd.grpc.v1.cri/netns');
  const network = {
    bridge,
    subnet: '10.202.0.0/24',
    settings: `conf_template = '${template}'`,
    plugins: fakes.directory,
  };
  const lab = new CriLab(temp.path, network, 'netns_mounts_under_state_dir = true');
  const file = (name: string) => path.join(temp.path, 'cni', name);
  let started = 0;

  const ipam = {
    type: 'host-local',
    dataDir: `${temp.path}/ipam`,
    ranges: [[{ subnet: '10.202.0.0/24' }], [{ subnet: 'fd00:202::/64' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  };
  const bridging = { type: 'bridge', bridge, isGateway: true, ipMasq: true, ipam };

  before(async () => {
    // From here on all that this process starts, and itself, are in a network of their own: bridges and rules go with it.
    unshare(CLONE.NEWNET);
    setLoopbackUp();
    await lab.start();
    for (const image of ['busybox:1', 'registry.k8s.io/pause:3.10.2']) await lab.ok('pull', image);
  });
  beforeEach(async () => {
    await configure([bridging]);
    fakes.calls();
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    for (const name of cachedResults(lab)) rmSync(path.join(resultCache, name), { force: true });
    await temp.remove();
  });

  /** Makes these plugins the network, and waits until the daemon has seen it. */
  async function configure(plugins: object[], cniVersion = '1.0.0'): Promise<void> {
    started += 1;
    const name = `${bridge}-${started}`;
    for (const old of readdirSync(path.join(temp.path, 'cni'))) if (old !== '10-lab.conflist') rmSync(file(old));
    writeFileSync(file('draft'), JSON.stringify({ cniVersion, name, plugins }));
    renameSync(file('draft'), file('10-lab.conflist'));
    await eventually(`the daemon knows ${name}`, async () =>
      (await lab.json<Info>('info')).cniconfig.Networks.some(({ Config }) => Config.Name === name) ? true : undefined,
    );
  }

  const inspectPod = (id: string) => lab.json<PodInspect>('inspectp', id);
  const ready = async () => {
    const info = await lab.json<Info>('info');
    const { status, reason, message } = info.status.conditions.find(({ type }) => type === 'NetworkReady')!;
    return { status, reason, message, last: info.lastCNILoadStatus };
  };
  const becomesReady = (wanted: boolean) =>
    eventually(`network is ${wanted ? '' : 'not '}ready`, async () => {
      const found = await ready();
      return found.status === wanted ? found : undefined;
    });

  const left = () => networkLeftovers(lab);

  test('two families of addresses, cached where everyone looks, and nothing left', async () => {
    const id = await lab.ok('runp', lab.pod('dual'));
    const { status, info } = await inspectPod(id);
    assert.match(status.network.ip, /^10\.202\.0\.\d+$/);
    assert.deepEqual(
      status.network.additionalIps.map(({ ip }) => ip.replace(/:[\da-f]+$/, ':')),
      ['fd00:202::'],
    );
    const { Interfaces: interfaces } = info.cniResult;
    assert.deepEqual(
      interfaces['lo']?.IPConfigs?.map(({ IP }) => IP),
      ['127.0.0.1', '::1'],
    );
    assert.equal(path.dirname(interfaces['eth0']?.Sandbox ?? ''), netns);
    assert.deepEqual(cachedResults(lab), [`${bridge}-${started}-${id}-eth0`]);
    assert.ok(existsSync(`${resultCache}/cni-loopback-${id}-lo`));
    assert.equal((await left()).noted.length, 1);
    // Its network has another configuration by now, and then none.
    await configure([{ ...bridging, bridge: `${bridge}x` }]);
    rmSync(file('10-lab.conflist'));
    await becomesReady(false);
    await lab.ok('rmp', '-f', id);
    assert.deepEqual(await left(), noLeftovers);
    assert.ok(!existsSync(`${resultCache}/cni-loopback-${id}-lo`));
  });

  test('ports of the host, limits of bandwidth and the firewall', {
    skip:
      lacks('iptables', ['-t', 'nat', '-L', '-n']) ||
      lacks('unshare', [
        '-n',
        'sh',
        '-c',
        'ip link add ifb9 type ifb && tc qdisc add dev ifb9 root tbf rate 1mbit burst 9kb latency 9ms',
      ]),
  }, async () => {
    await configure([
      bridging,
      { type: 'firewall' },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
      { type: 'bandwidth', capabilities: { bandwidth: true } },
    ]);
    const pod = lab.pod('ports', {
      port_mappings: [{ container_port: 80, host_port: 8099, protocol: 0 }],
      annotations: { 'kubernetes.io/ingress-bandwidth': '8M', 'kubernetes.io/egress-bandwidth': '4M' },
    });
    const podId = await lab.ok('runp', pod);
    const { ip } = (await inspectPod(podId)).status.network;
    const server = ['sh', '-c', 'mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www'];
    await lab.ok('start', await lab.ok('create', podId, lab.container('server', server), pod));
    for (const [host, port] of [
      [ip, 80],
      ['127.0.0.1', 8099],
    ] as const) {
      const answer = await eventually(`${host}:${port} answers`, () => get(host, port));
      assert.match(answer, /served/);
    }
    const limits = (await run('tc', ['qdisc'])).stdout;
    assert.match(limits, /tbf .*dev veth\w+ .*rate 8Mbit/);
    assert.match(limits, /tbf .*dev bwp\w+ .*rate 4Mbit/);
    const rules = async () =>
      (await run('iptables-save', [])).stdout.split('\n').filter((line) => line.includes(ip) || line.includes(podId));
    assert.ok((await rules()).some((line) => line.includes('8099')));
    assert.ok((await rules()).some((line) => line.includes('CNI-FORWARD')));
    await lab.ok('rmp', '-f', podId);
    assert.deepEqual(await rules(), []);
    assert.deepEqual(await left(), noLeftovers);
  });

  test('the directory is watched: without a network pods cannot be run, with one again they can', async () => {
    assert.deepEqual(await ready(), { status: true, reason: '', message: '', last: 'OK' });
    renameSync(file('10-lab.conflist'), path.join(temp.path, 'kept'));
    assert.deepEqual(await becomesReady(false), {
      status: false,
      reason: 'NetworkPluginNotReady',
      message: 'Network plugin returns error: cni plugin not initialized',
      last: `cni config load failed: no network config found in ${temp.path}/cni: cni plugin not initialized: failed to load cni config`,
    });
    const { stderr } = await lab.crictl(['runp', lab.pod('none')], { mayFail: true });
    assert.match(stderr, /failed to setup network for sandbox .*: cni plugin not initialized/);
    assert.deepEqual(await left(), noLeftovers);
    renameSync(path.join(temp.path, 'kept'), file('10-lab.conflist'));
    await becomesReady(true);
    await lab.ok('rmp', '-f', await lab.ok('runp', lab.pod('again')));
    writeFileSync(file('00-bad.conflist'), '{"name": 1');
    assert.match(
      (await becomesReady(false)).last,
      /00-bad\.conflist: error parsing configuration list: .*invalid cni config/,
    );
    rmSync(file('00-bad.conflist'));
    await becomesReady(true);
  });

  test('a network made of the template, for the address range that the kubelet tells', async () => {
    rmSync(file('10-lab.conflist'));
    await becomesReady(false);
    const { ranges: _ranges, routes: _routes, ...rest } = ipam;
    const made = {
      cniVersion: '1.0.0',
      name: `${bridge}-made`,
      plugins: [{ ...bridging, bridge: `${bridge}m`, ipam: { ...rest, ranges: '@ranges', routes: '@routes' } }],
    };
    const list = (items: string, entry: string) =>
      `[{{range $i, $each := .${items}}}{{if $i}}, {{end}}${entry}{{end}}]`;
    const text = JSON.stringify(made)
      .replace('"@ranges"', list('PodCIDRRanges', '[{"subnet": "{{$each}}"}]'))
      .replace('"@routes"', list('Routes', '{"dst": "{{$each}}"}'));
    writeFileSync(template, text);
    const wrong = await lab.crictl(['update-runtime-config', '--pod-cidr', '10.203.0.0'], { mayFail: true });
    assert.match(wrong.stderr, /get routes: invalid CIDR address: 10\.203\.0\.0/);
    await lab.ok('update-runtime-config', '--pod-cidr', '10.203.0.0/24,fd00:203::/64');
    await becomesReady(true);
    const id = await lab.ok('runp', lab.pod('range'));
    const { ip, additionalIps } = (await inspectPod(id)).status.network;
    assert.match(ip, /^10\.203\.0\.\d+$/);
    assert.match(additionalIps[0]?.ip ?? '', /^fd00:203::/);
    await lab.ok('rmp', '-f', id);
  });

  test('a plugin of 1.1.0 that is not ready makes the network not ready', async () => {
    const status = { exit: 1, print: { cniVersion: '1.1.0', code: 50, msg: 'no route yet', details: 'soon' } };
    await configure([{ type: 'fake', fake: { STATUS: status } }], '1.1.0');
    const { message, last } = await becomesReady(false);
    assert.deepEqual([message, last], ['Network plugin returns error: no route yet; soon', 'OK']);
    await configure([{ type: 'fake' }], '1.1.0');
    await becomesReady(true);
  });

  const newer = path.resolve('.cache/go-bin/cni');
  const noNewer = 'the plugins of 1.1.0 are not in .cache/go-bin/cni (npm test installs them when Go is there)';
  test('plugins of 1.1.0 are told at start what is in use, unless others are in the network', {
    skip: existsSync(`${newer}/bridge`) ? false : noNewer,
  }, async () => {
    for (const name of ['bridge', 'host-local']) symlinkSync(`${newer}/${name}`, `${fakes.directory}/${name}-1.1`);
    const bridging11 = { ...bridging, type: 'bridge-1.1', ipam: { ...ipam, type: 'host-local-1.1' } };
    // Those of the reference do nothing when they are told to collect (1.9.1), so another one listens.
    await configure([bridging11, { type: 'fake', fake: { ADD: { echo: true } } }], '1.1.0');
    await becomesReady(true);
    const id = await lab.ok('runp', lab.pod('collected'));
    assert.match((await inspectPod(id)).status.network.ip, /^10\.202\.0\.\d+$/);
    fakes.calls();
    const collections = () => fakes.calls().filter(({ command }) => command === 'GC');
    await lab.daemon.kill();
    await lab.daemon.start();
    const [call] = await eventually('plugins are told', () => {
      const found = collections();
      return found.length > 0 ? found : undefined;
    });
    assert.deepEqual(call?.input['cni.dev/valid-attachments'], [{ containerID: id, ifname: 'eth0' }]);
    const theirs = path.join(resultCache, `${bridge}-${started}-stranger-eth0`);
    const networkName = `${bridge}-${started}`;
    const stranger = { kind: 'cniCacheV1', containerId: 'stranger', ifName: 'eth0', networkName };
    writeFileSync(theirs, JSON.stringify(stranger));
    await lab.daemon.kill();
    await lab.daemon.start();
    await eventually('others are seen', () => /a CNI network has other users/.test(lab.daemon.log()) || undefined);
    assert.deepEqual(collections(), []);
    rmSync(theirs);
    await lab.ok('rmp', '-f', id);
    assert.deepEqual(await left(), noLeftovers);
  });

  test('when a later plugin fails, hangs or talks rubbish, what earlier ones gave is given back', async () => {
    const cases: [object, RegExp][] = [
      [{ exit: 1, print: { code: 999, msg: 'out of luck' } }, /plugin type=\\"fake\\" failed \(add\): out of luck/],
      [{ text: 'rubbish' }, /plugin type=\\"fake\\" failed \(add\): failed to unmarshal raw result/],
      [{ dies: true, text: '' }, /netplugin failed with no error message: signal: killed/],
      [{ hangs: true, text: '' }, /DeadlineExceeded/],
    ];
    for (const [answer, reason] of cases) {
      await configure([bridging, { type: 'fake', fake: { ADD: answer } }]);
      const { stderr } = await lab.crictl(['-t', '4s', 'runp', lab.pod('failed')], { mayFail: true });
      assert.match(stderr, reason);
      // Its client has gone: what was made is undone without it.
      await eventually('nothing is left', async () => {
        const found = await left();
        return JSON.stringify(found) === JSON.stringify(noLeftovers) ? found : undefined;
      });
      assert.equal(await lab.ok('pods', '-q'), '');
    }
  });

  test('a pod whose record was removed behind its back: the next daemon frees what it has, and spares the others', async () => {
    const [gone, alive] = [await lab.ok('runp', lab.pod('gone')), await lab.ok('runp', lab.pod('alive'))];
    // An attachment of somebody else, in the same network.
    const theirs = path.join(resultCache, `${bridge}-${started}-stranger-eth0`);
    writeFileSync(
      theirs,
      JSON.stringify({ kind: 'cniCacheV1', containerId: 'stranger', ifName: 'eth0', networkName: bridge }),
    );
    await run(path.resolve('bin/ctr'), ['-a', lab.daemon.address, '-n', 'k8s.io', 'sandboxes', 'rm', '-f', gone], {
      mayFail: true,
    });
    await lab.daemon.kill();
    await lab.daemon.start();
    const { ip } = (await inspectPod(alive)).status.network;
    await eventually('only the address of the other is taken', async () => {
      const { addresses } = await left();
      return addresses.filter((each) => each.includes('.')).join() === ip ? true : undefined;
    });
    await eventually(
      'the daemon says so',
      () => /network of a pod that is gone is freed/.test(lab.daemon.log()) || undefined,
    );
    assert.ok(existsSync(theirs));
    rmSync(theirs);
    await lab.ok('rmp', '-f', alive);
    await lab.ok('rmp', '-a', '-f');
    assert.deepEqual(await left(), noLeftovers);
  });
});

/** What an HTTP server says; undefined if none answers. */
function get(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = net.connect({ host, port }, () => socket.write('GET / HTTP/1.0\r\n\r\n'));
    socket.setTimeout(2000, () => socket.destroy());
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(chunks.length > 0 ? Buffer.concat(chunks).toString() : undefined));
  });
}
