import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, describe, test } from 'node:test';
import { type PluginHandlers, type RunningPlugin, runPlugin, update } from '@gantry/nri';
import { CriLab } from '../lib/cri-lab.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const patience = 60_000;
const samples = path.resolve('packages/nri/samples');
const goPlugin = path.resolve('.cache/go-bin/nri-stub-plugin');
const nydus = path.resolve('.cache/go-bin/prefetchfiles-nri-plugin');
const optimizer = path.resolve('.cache/go-bin/optimizer-nri-plugin');
const adjuster = path.resolve('.cache/go-bin/ulimit-adjuster');
const noAdjuster = existsSync(adjuster) ? false : 'the reference’s ulimit-adjuster is not in .cache/go-bin';
const noOptimizer = existsSync(optimizer) ? false : 'nydus’s optimizer-nri-plugin is not in .cache/go-bin';
const noNydus = existsSync(nydus) ? false : 'nydus’s prefetchfiles-nri-plugin is not in .cache/go-bin';
const noGo = existsSync(goPlugin)
  ? false
  : 'nri-stub-plugin is not in .cache/go-bin (npm test compiles it when Go is there)';

describe('plugins of the Node Resource Interface', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('nri');
  const lab = new CriLab(temp.path, { bridge: 'gantrynri0', subnet: '10.224.0.0/24' });
  lab.daemon.nri = `  plugin_request_timeout = '1s'\n`;
  const socketPath = path.join(temp.path, 'nri.sock');
  const connected: RunningPlugin[] = [];
  const children: ChildProcess[] = [];
  let pod = '';
  let podFile = '';

  before(async () => {
    const { plugins } = lab.nriDirectories();
    // The environment of installed plugins has no PATH.
    const program = `#!/bin/sh\nexec ${process.execPath} ${samples}/logger.ts > ${temp.path}/installed.log 2>&1\n`;
    writeFileSync(path.join(plugins, '05-logger'), program, { mode: 0o755 });
    if (!noNydus) writeFileSync(path.join(plugins, '08-prefetch'), nydusPlugin, { mode: 0o755 });
    writeFileSync(path.join(plugins, 'no-index'), program, { mode: 0o755 });
    writeFileSync(path.join(plugins, '06-silent'), '#!/bin/sh\nexit 3\n', { mode: 0o755 });
    writeFileSync(path.join(plugins, '07-readme'), 'no program');
    chmodSync(path.join(plugins, '07-readme'), 0o644);
    await lab.start();
    await lab.ok('pull', 'busybox:1');
    podFile = lab.pod('nri', {
      annotations: {
        'devices.nri.io/container.main': '- {path: /dev/injected, type: c, major: 1, minor: 3, file_mode: 0o666}',
        'mounts.noderesource.dev/pod': `[{source: ${temp.path}, destination: /from-plugin, type: bind, options: [bind, ro]}]`,
        'ulimits.nri.containerd.io/container.main': '[{type: nofile, hard: 4096, soft: 1234}]',
      },
    });
    pod = await lab.ok('runp', podFile);
  });
  afterEach(async () => {
    for (const plugin of connected.splice(0)) plugin.close();
    for (const child of children.splice(0)) await endProcess(child);
  });
  after(() => lab.end(temp));

  /** Its configuration has a fixed place, which it sees in a mount namespace of its own. */
  const nydusPlugin = `#!/bin/sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
exec unshare -m sh -c 'mount -t tmpfs none /etc && mkdir /etc/nydus &&
printf "[file_prefetch]\\nsocket_address = \\"%s\\"\\n" ${temp.path}/nydus.sock > /etc/nydus/prefetchConfig.toml &&
exec ${nydus}'
`;

  /** A plugin in this process, that takes part from here on. */
  async function connect(index: string, name: string, handlers: PluginHandlers): Promise<RunningPlugin> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { synchronize } = handlers;
    const plugin = await runPlugin(
      {
        ...handlers,
        synchronize: async (pods, containers) => {
          resolve();
          return await synchronize?.(pods, containers);
        },
      },
      { index, name, socketPath },
    );
    connected.push(plugin);
    await promise;
    await takenIn(`${index}-${name}`);
    return plugin;
  }

  /** Until the daemon says so, once more than before. */
  const seen = new Map<string, number>();
  async function takenIn(name: string): Promise<void> {
    const before = seen.get(name) ?? 0;
    const count = () =>
      lab.daemon
        .log()
        .split('\n')
        .filter((line) => line.includes('NRI plugin is connected') && line.includes(name)).length;
    await eventually(`${name} takes part`, async () => (count() > before ? true : undefined), patience);
    seen.set(name, count());
  }

  async function sample(name: string, index: string): Promise<() => string> {
    const file = path.join(temp.path, `${name}.log`);
    const child = spawn(
      'sh',
      [
        '-c',
        `exec ${process.execPath} ${samples}/${name}.ts --idx ${index} --socket-path ${socketPath} > ${file} 2>&1`,
      ],
      { stdio: 'ignore' },
    );
    children.push(child);
    await takenIn(`${index}-${name}`);
    return () => readFileSync(file, 'utf8');
  }

  const create = (name: string, command: string[], more?: object) =>
    lab.crictl(['create', pod, lab.container(name, command, more), podFile], { mayFail: true });

  async function created(name: string, command: string[], more?: object): Promise<string> {
    const { code, stdout, stderr } = await create(name, command, more);
    assert.equal(code, 0, stderr);
    return stdout.trim();
  }

  /** What a container prints that ends by itself. */
  async function output(id: string): Promise<string> {
    await lab.ok('start', id);
    await eventually(
      'it ends',
      async () => {
        const { status } = await lab.json<{ status: { state: string } }>('inspect', id);
        return status.state === 'CONTAINER_EXITED' ? true : undefined;
      },
      patience,
    );
    return lab.ok('logs', id);
  }

  type Spec = { process: Record<string, unknown>; linux: Record<string, unknown>; annotations: Record<string, string> };
  const specOf = async (id: string) =>
    (await lab.json<{ info: { runtimeSpec: Spec } }>('inspect', id)).info.runtimeSpec;

  test('the samples: devices, mounts, limits; and a log of all that happens', async () => {
    assert.equal(statSync(socketPath).mode & 0o777, 0o600);
    await sample('device-injector', '10');
    await sample('ulimit-adjuster', '20');
    const log = await sample('logger', '30');
    const id = await created('main', ['sh', '-c', 'ls -l /dev/injected; ls /from-plugin; ulimit -n; ulimit -Hn']);
    const lines = (await output(id)).split('\n');
    assert.match(lines[0]!, /^crw-rw-rw-.*1,\s*3.*\/dev\/injected$/);
    assert.ok(lines.includes('gantryd.log'));
    assert.deepEqual(lines.slice(-2), ['1234', '4096']);
    const other = await created('other', ['sh', '-c', 'ls /dev/injected; ulimit -n']);
    assert.doesNotMatch(await output(other), /1234|^\/dev\/injected/);
    await lab.ok('rm', id, other);
    const events = () =>
      log()
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { event: string; pods?: number; container?: string });
    await eventually(
      'the end is told of',
      async () => (events().filter(({ event }) => event === 'removeContainer').length === 2 ? true : undefined),
      patience,
    );
    assert.deepEqual(events()[0], { event: 'synchronize', pods: 1, containers: 0 });
    assert.deepEqual(
      events()
        .filter(({ container }) => container === 'main')
        .map(({ event }) => event),
      [
        'createContainer',
        'validateContainerAdjustment',
        'postCreateContainer',
        'startContainer',
        'postStartContainer',
        'stopContainer',
        'removeContainer',
      ],
    );
  });

  test('installed plugins are started in order; what is none is left out', async () => {
    const text = readFileSync(`${temp.path}/installed.log`, 'utf8');
    assert.match(text, /"event":"synchronize","pods":0/);
    assert.match(text, /"event":"runPodSandbox","pod":"nri"/);
    const log = lab.daemon.log();
    assert.match(log, /no-index/);
    assert.match(log, /could not be started.*06-silent/);
    assert.doesNotMatch(log, /07-readme/);
  });

  test('nydus’s plugin, made for NRI 0.8, is told of pods as it knows it', { skip: noNydus }, async (t) => {
    const asked: string[] = [];
    const server = http.createServer(async (request, response) => {
      asked.push(`${request.method} ${request.url} ${await text(request)}`);
      response.end();
    });
    await new Promise<void>((resolve) => server.listen(path.join(temp.path, 'nydus.sock'), resolve));
    t.after(() => server.close());
    const annotations = { 'containerd.io/nydus-prefetch': '[{"image": "busybox"}]' };
    const id = await lab.ok('runp', lab.pod('prefetching', { annotations }));
    assert.deepEqual(asked, ['PUT /api/v1/prefetch [{"image": "busybox"}]']);
    const { stdout } = await run(path.resolve('bin/ctr'), ['-a', lab.daemon.address, 'deprecations', 'list']);
    assert.match(stdout, /nri-plugin-interface/);
    await lab.ok('rmp', '-f', id);
  });

  test('plugins take turns, and see what those before have done; two that set the same are named', async () => {
    const orders: string[] = [];
    await connect('60', 'second', {
      createContainer: (_pod, container, adjust) => {
        orders.push(`second ${container.annotations['who']} ${container.env.includes('A=1')}`);
        adjust.removeEnv('A').env('A', '2').removeAnnotation('gone');
        if (container.name === 'conflict') adjust.annotate('who', 'second');
      },
    });
    await connect('50', 'first', {
      createContainer: (_pod, _container, adjust) => {
        orders.push('first');
        adjust
          .annotate('who', 'first')
          .env('A', '1')
          .args('sh', '-c', 'echo $A; cat /proc/self/oom_score_adj')
          .oomScoreAdj(900)
          .sysctl('net.ipv4.ip_default_ttl', '77')
          .resources({ memory: { limit: 64 << 20 }, cpu: { shares: 512 }, pids: 99 });
      },
    });
    const id = await created('turns', ['true'], { annotations: { gone: 'x' } });
    assert.deepEqual(orders, ['first', 'second first true']);
    const spec = await specOf(id);
    assert.equal(spec.annotations['who'], 'first');
    assert.equal(spec.annotations['gone'], undefined);
    const { memory, cpu, pids } = spec.linux['resources'] as Record<string, Record<string, number>>;
    assert.deepEqual([memory?.['limit'], cpu?.['shares'], pids?.['limit']], [64 << 20, 512, 99]);
    assert.equal((spec.linux['sysctl'] as Record<string, string>)['net.ipv4.ip_default_ttl'], '77');
    const { code, stderr } = await create('conflict', ['true']);
    assert.notEqual(code, 0);
    assert.match(stderr, /plugins \\?"60-second\\?" and \\?"50-first\\?" both tried to set Annotations who/);
    assert.equal(await lab.ok('ps', '-aq', '--name', 'conflict'), '');
    await lab.ok('rm', id);
  });

  test('limits of other containers, out of turn too; evictions; validators', async () => {
    const victim = await created('victim', ['sleep', '1000']);
    await lab.ok('start', victim);
    const told: string[] = [];
    const plugin = await connect('50', 'manager', {
      synchronize: (_pods, containers) => {
        told.push(...containers.map(({ name }) => name));
      },
      createContainer: (_pod, container) =>
        container.name === 'newcomer' ? [update(victim, { cpu: { shares: 333 } })] : undefined,
      updateContainer: (_pod, container, resources) => {
        told.push(`${container.name} wants ${resources.cpu?.shares?.value}`);
        return [update(container.id, { cpu: { shares: 444 } })];
      },
      validateContainerAdjustment: ({ container }) => {
        if (container?.name === 'unwanted') throw new Error('nobody wants it');
      },
    });
    const shares = async (id: string) =>
      ((await specOf(id)).linux['resources'] as { cpu?: { shares?: number } }).cpu?.shares;
    const newcomer = await created('newcomer', ['true']);
    assert.equal(await shares(victim), 333);
    await lab.ok('update', '--cpu-share', '222', victim);
    assert.equal(await shares(victim), 444);
    assert.deepEqual(told, ['victim', 'victim wants 222']);
    const failed = await plugin.updateContainers([
      update(victim, { cpu: { shares: 555 } }),
      update('no-such', { cpu: { shares: 1 } }),
    ]);
    assert.deepEqual(
      failed.map(({ containerId }) => containerId),
      ['no-such'],
    );
    assert.equal(await shares(victim), 555);
    const { stderr } = await create('unwanted', ['true']);
    assert.match(stderr, /validator \\?"50-manager\\?" rejected container adjustment, reason: nobody wants it/);
    await plugin.updateContainers([], [{ containerId: victim, reason: 'in the way' }]);
    await eventually(
      'it is evicted',
      async () => {
        const { status } = await lab.json<{ status: { state: string } }>('inspect', victim);
        return status.state === 'CONTAINER_EXITED' ? true : undefined;
      },
      patience,
    );
    await lab.ok('rm', '-f', newcomer, victim);
  });

  test('a validator alone: what nobody changes is validated too, and who does not answer has refused', async () => {
    await connect('50', 'judge', {
      validateContainerAdjustment: ({ container }) => {
        if (container?.name === 'judged') throw new Error('not this one');
        return container?.name === 'pondered' ? new Promise<void>(() => undefined) : undefined;
      },
    });
    const id = await created('innocent', ['true']);
    assert.match((await create('judged', ['true'])).stderr, /50-judge.* rejected .*not this one/);
    assert.match((await create('pondered', ['true'])).stderr, /validator plugin 50-judge failed/);
    await lab.ok('rm', id);
  });

  test('a plugin that hangs is cut off, one that breaks is gone, and containers go on', async () => {
    const hanging = await connect('50', 'hanging', { createContainer: () => new Promise(() => undefined) });
    const child = await sample('logger', '51');
    assert.match(child(), /synchronize/);
    children.at(-1)!.kill('SIGKILL');
    await connect('52', 'liar', {
      createContainer: (_pod, container, adjust) => {
        if (container.name === 'lies') adjust.device({ path: '/dev/x', type: 'nothing', major: 1n, minor: 1n });
        return [update('no-such-container', { cpu: { shares: 1 } })];
      },
    });
    // No plugin at all, but somebody who talks.
    const stranger = net.connect(socketPath, () => stranger.write(randomBytes(1000)));
    stranger.on('error', () => undefined);
    const strangerGone = once(stranger.resume(), 'close');
    const id = await created('anyway', ['true']);
    await hanging.closed;
    assert.match(lab.daemon.log(), /cut off.*50-hanging/);
    await strangerGone;
    const { stderr } = await create('lies', ['true']);
    assert.match(stderr, /invalid type/);
    await lab.ok('rm', id);
  });

  test('a plugin on the reference’s stub, in Go: every event, and what it asks for', { skip: noGo }, async () => {
    const file = path.join(temp.path, 'go.log');
    children.push(
      spawn('sh', ['-c', `exec ${goPlugin} --socket-path ${socketPath} > ${file} 2> ${file}.err`], { stdio: 'ignore' }),
    );
    await takenIn('40-go');
    const id = await created(
      'adjusted',
      [
        'sh',
        '-c',
        'echo $FROM_GO; ls -l /dev/go; grep " /go " /proc/mounts; ulimit -n; cat /proc/sys/net/ipv4/ip_default_ttl',
      ],
      { annotations: { 'adjust.test': 'yes', 'removed.test': 'x' } },
    );
    const spec = await specOf(id);
    assert.equal(spec.annotations['added.test'], 'by-go');
    assert.equal(spec.annotations['removed.test'], undefined);
    const { memory, cpu, pids } = spec.linux['resources'] as Record<string, Record<string, number>>;
    assert.deepEqual([memory?.['limit'], cpu?.['shares'], pids?.['limit']], [96 << 20, 321, 77]);
    assert.equal(spec.process['oomScoreAdj'], 950);
    await lab.ok('update', '--cpu-share', '200', id);
    assert.equal(((await specOf(id)).linux['resources'] as { cpu: { shares: number } }).cpu.shares, 400);
    const lines = (await output(id)).split('\n');
    assert.equal(lines[0], '1');
    assert.match(lines[1]!, /^crw.*1,\s*5.*\/dev\/go$/);
    assert.match(lines[2]!, /^tmpfs \/go tmpfs .*size=64k/);
    assert.deepEqual(lines.slice(3), ['1024', '78']);
    await lab.ok('rm', id);
    await connect('70', 'forbidden', {
      createContainer: (_pod, _container, adjust) => {
        adjust.env('FORBIDDEN', '1');
      },
    });
    assert.match(
      (await create('forbidden', ['true'])).stderr,
      /rejected container adjustment.*70-forbidden may not set/,
    );
    const happened = readFileSync(file, 'utf8').trim().split('\n');
    assert.match(happened[0]!, /^Configure "" containerd v2\./);
    assert.deepEqual(
      happened.filter((line) => line.endsWith(' adjusted')).map((line) => line.split(' ')[0]),
      [
        'CreateContainer',
        'ValidateContainerAdjustment',
        'PostCreateContainer',
        'UpdateContainer',
        'PostUpdateContainer',
        'StartContainer',
        'PostStartContainer',
        'StopContainer',
        'RemoveContainer',
      ],
    );
    // One that is not made after all is stopped and removed for plugins.
    assert.deepEqual(
      happened.filter((line) => line.endsWith(' forbidden')).map((line) => line.split(' ')[0]),
      ['CreateContainer', 'ValidateContainerAdjustment', 'StopContainer', 'RemoveContainer'],
    );
  });

  test('plugins come again after a restart of the daemon, and are shown what is there', async () => {
    const id = await created('stays', ['sleep', '1000']);
    await lab.ok('start', id);
    const before = await connect('50', 'returning', {});
    await lab.daemon.kill();
    await before.closed;
    await lab.daemon.start();
    let pids: number[] = [];
    await connect('50', 'returning', {
      synchronize: (_pods, containers) => {
        pids = containers.filter((container) => container.id === id).map(({ pid }) => pid);
      },
    });
    const { info } = await lab.json<{ info: { pid: number } }>('inspect', id);
    assert.deepEqual(pids, [info.pid]);
    assert.match(readFileSync(`${temp.path}/installed.log`, 'utf8'), /"pods":1,"containers":1/);
    await lab.ok('rm', '-f', id);
  });

  test('nydus’s optimizer, installed with its configuration, watches what a container opens', {
    skip: noOptimizer,
  }, async () => {
    const results = path.join(temp.path, 'optimized');
    // In the place of its server, which only prints what it sees: that it is told the right process is what counts here.
    const server = path.join(temp.path, 'optimizer-server');
    writeFileSync(
      server,
      `#!/bin/sh
export PATH=/usr/bin:/bin
printf '{"path":"%s","size":1,"elapsed":2}\\n' "$(readlink /proc/$_MNTNS_PID/ns/mnt) $_MNTNS_PID"
exec sleep 1000
`,
      { mode: 0o755 },
    );
    writeFileSync(
      path.join(temp.path, 'nri/conf.d/optimizer.conf'),
      `events = ["StartContainer", "StopContainer"]\nserver_path = "${server}"\npersist_dir = "${results}"\noverwrite = true\n`,
    );
    copyFileSync(optimizer, path.join(temp.path, 'nri/plugins/09-optimizer'));
    await lab.daemon.stop();
    await lab.daemon.start();
    const id = await created('watched', ['sleep', '1000']);
    await lab.ok('start', id);
    const { info } = await lab.json<{ info: { pid: number } }>('inspect', id);
    const seen = await eventually(
      'it is watched',
      () =>
        (existsSync(`${results}/library/busybox:1`) ? readFileSync(`${results}/library/busybox:1`, 'utf8') : '') ||
        undefined,
      patience,
    );
    assert.equal(seen, `${readlinkSync(`/proc/${info.pid}/ns/mnt`)} ${info.pid}\n`);
    // A process may be any thread's child.
    const childrenOf = (pid: number | string): string[] =>
      readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
        readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').trim().split(' '),
      );
    const plugin = childrenOf(lab.daemon.pid).find(
      (pid) => pid !== '' && readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('09-optimizer'),
    );
    const servers = () => childrenOf(plugin!).join('');
    assert.notEqual(servers(), '');
    await lab.ok('stop', id);
    await eventually('its server is ended', () => (servers() === '' ? true : undefined), patience);
    await lab.ok('rm', id);
  });

  test('the reference’s own ulimit-adjuster, of NRI 0.4, installed', { skip: noAdjuster }, async () => {
    const file = path.join(temp.path, 'nri/plugins/21-ulimit-adjuster');
    copyFileSync(adjuster, file);
    await lab.daemon.stop();
    // It has its connection from the daemon; nobody else gets one.
    lab.daemon.nri += '  disable_connections = true\n';
    await lab.daemon.start();
    assert.equal(existsSync(socketPath), false);
    const config = lab.pod('limited', {
      annotations: {
        'ulimits.nri.containerd.io/container.limited':
          '[{type: nofile, hard: 4096, soft: 1111}, {type: RLIMIT_CORE, hard: 0}]',
      },
    });
    const limited = await lab.ok('runp', config);
    const container = lab.container('limited', ['sh', '-c', 'ulimit -n; ulimit -Hn; ulimit -c']);
    assert.equal(await output(await lab.ok('create', limited, container, config)), '1111\n4096\n0');
    rmSync(file);
  });
});
