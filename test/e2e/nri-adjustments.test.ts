// What NRI plugins can ask for, seen in containers.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import {
  type Adjustment,
  IOPrioClass,
  LinuxSchedulerPolicy,
  MpolMode,
  type RunningPlugin,
  runPlugin,
  update,
} from '@gantry/nri';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const patience = 60_000;
const runc = path.resolve('.cache/go-bin/new/runc');
const missing = existsSync(runc) ? false : 'runc 1.4 is not in .cache/go-bin (npm test installs it)';
const v1 = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes')
  ? false
  : 'control groups are not of version 1 here';

describe('what NRI plugins ask for', { skip: CriLab.missing() || missing }, () => {
  const temp = makeTempDir('nria');
  // Of 2025: schedulers, priorities, interfaces and memory policies are younger than Debian's.
  const lab = new CriLab(
    temp.path,
    { bridge: 'gantrynri2', subnet: '10.216.0.0/24' },
    `  cdi_spec_dirs = ['${temp.path}/cdi']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = '${runc}'
[plugins.'io.containerd.service.v1.tasks-service']
  blockio_config_file = '${temp.path}/blockio.yaml'
`,
  );
  const hooks = path.join(temp.path, 'hooks.log');
  let plugin: RunningPlugin | undefined;
  let change: (adjust: Adjustment) => void = () => undefined;
  let pod = '';
  let podFile = '';

  before(async () => {
    mkdirSync(path.join(temp.path, 'cdi'));
    writeFileSync(path.join(temp.path, 'blockio.yaml'), 'Classes:\n  slow:\n    - Weight: 80\n');
    writeFileSync(
      path.join(temp.path, 'cdi/test.json'),
      JSON.stringify({
        cdiVersion: '0.6.0',
        kind: 'example.com/test',
        devices: [{ name: 'one', containerEdits: { env: ['BY_CDI=one'] } }],
      }),
    );
    writeFileSync(path.join(temp.path, 'hook'), `#!/bin/sh\n/bin/cat > /dev/null\necho "$1 $HOOKED" >> ${hooks}\n`, {
      mode: 0o755,
    });
    await lab.start();
    await lab.ok('pull', 'busybox:1');
    podFile = lab.pod('adjusted');
    pod = await lab.ok('runp', podFile);
    await connect();
  });
  afterEach(() => {
    change = () => undefined;
  });
  after(async () => {
    plugin?.close();
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  async function connect(): Promise<void> {
    const begin = lab.daemon.log().length;
    plugin = await runPlugin(
      { createContainer: (_pod, _container, adjust) => change(adjust) },
      { index: '10', name: 'changer', socketPath: lab.daemon.nriSocket },
    );
    await eventually('it takes part', () =>
      /connected and synchronized.*10-changer/.test(lab.daemon.log().slice(begin)) ? true : undefined,
    );
  }

  let containers = 0;
  const create = (command: string, more: object = {}) =>
    lab.crictl(['create', pod, lab.container(`c${++containers}`, ['sh', '-c', command], more), podFile], {
      mayFail: true,
    });

  /** What a shell prints in a container that was made with the change. */
  async function seen(asked: (adjust: Adjustment) => void, command: string, more: object = {}): Promise<string[]> {
    change = asked;
    const { code, stdout, stderr } = await create(command, more);
    assert.equal(code, 0, stderr);
    const id = stdout.trim();
    await lab.ok('start', id);
    await eventually(
      'it ends',
      async () => ((await lab.ok('inspect', id)).includes('CONTAINER_EXITED') ? true : undefined),
      patience,
    );
    const lines = (await lab.ok('logs', id)).split('\n');
    await lab.ok('rm', id);
    return lines;
  }

  const refused = async (asked: (adjust: Adjustment) => void): Promise<string> => {
    change = asked;
    const { code, stdout, stderr } = await create('true');
    if (code !== 0) return stderr.replaceAll('\\', '');
    const started = await lab.crictl(['start', stdout.trim()], { mayFail: true });
    await lab.ok('rm', '-f', stdout.trim());
    assert.notEqual(started.code, 0);
    return started.stderr;
  };

  test('scheduling: policy and nice value, priority of I/O, of the out-of-memory killer', async () => {
    const lines = await seen(
      (adjust) =>
        adjust
          .scheduler({ policy: LinuxSchedulerPolicy.SCHED_BATCH, nice: 5 })
          .ioPriority(IOPrioClass.IOPRIO_CLASS_BE, 6)
          .oomScoreAdj(777),
      `cut -d' ' -f41,19 /proc/self/stat; ionice -p $$; cat /proc/self/oom_score_adj`,
    );
    assert.deepEqual(lines, ['5 3', 'best-effort: prio 6', '777']);
  });

  test('a seccomp policy instead of the pod’s; limits of processes', async () => {
    const lines = await seen(
      (adjust) =>
        adjust
          .seccomp({
            defaultAction: 'SCMP_ACT_ALLOW',
            syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: { value: 95 } }],
          })
          .rlimit('RLIMIT_CORE', 4096, 2048)
          .rlimit('RLIMIT_NOFILE', 512),
      'mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; ulimit -n; ulimit -Hc',
    );
    assert.match(lines[0]!, /not supported/i);
    assert.match(lines[1]!, /2$/);
    assert.deepEqual(lines.slice(2), ['512', '8']);
  });

  test('namespaces: one of its own, and one taken away', async () => {
    const kinds = ['cgroup', 'uts', 'ipc'];
    const show = kinds.map((kind) => `readlink /proc/self/ns/${kind}`).join(';');
    const host = kinds.map((kind) => readlinkSync(`/proc/self/ns/${kind}`));
    const [cgroup, uts, ipc] = await seen((adjust) => adjust.namespace('cgroup').removeNamespace('uts'), show);
    assert.notEqual(cgroup, host[0]);
    assert.equal(uts, host[1]);
    assert.notEqual(ipc, host[2]);
    const [, , joined] = await seen((adjust) => adjust.namespace('ipc', '/proc/self/ns/ipc'), show);
    assert.equal(joined, host[2]);
  });

  test('sysctls, environment, command, annotations, devices by their CDI names', async () => {
    const lines = await seen(
      (adjust) =>
        adjust
          .sysctl('net.ipv4.ip_default_ttl', '55')
          .env('A', 'by plugin')
          .removeEnv('B')
          .cdiDevice('example.com/test=one')
          .replaceArgs('sh', '-c', 'cat /proc/sys/net/ipv4/ip_default_ttl; echo "$A,$B,$C,$BY_CDI"'),
      'true',
      { envs: ['A', 'B', 'C'].map((key) => ({ key, value: 'asked' })) },
    );
    assert.deepEqual(lines, ['55', 'by plugin,,asked,one']);
  });

  test('mounts and devices, there and gone', async () => {
    const lines = await seen(
      (adjust) =>
        adjust
          .mount({ destination: '/given', type: 'bind', source: temp.path, options: ['rbind', 'ro'] })
          .removeMount('/gone')
          .device({
            path: '/dev/given',
            type: 'c',
            major: 1n,
            minor: 3n,
            fileMode: { value: 0o640 },
            uid: { value: 7 },
            gid: { value: 8 },
          }),
      'ls /given | grep config; touch /given/x 2>&1; ls /gone 2>&1; ls -ln /dev/given; cat /dev/given',
      { mounts: [{ container_path: '/gone', host_path: temp.path }] },
    );
    assert.equal(lines[0], 'config.toml');
    assert.match(lines[1]!, /Read-only/);
    assert.match(lines[2]!, /No such file/);
    assert.match(lines[3]!, /^crw-r----- +1 +7 +8 +1, +3/);
  });

  test('limits, when a container is made', { skip: v1 }, async () => {
    const group = '/sys/fs/cgroup';
    const files = [
      'memory/memory.limit_in_bytes',
      'memory/memory.soft_limit_in_bytes',
      'memory/memory.swappiness',
      'cpu/cpu.shares',
      'cpu/cpu.cfs_quota_us',
      'cpu/cpu.cfs_period_us',
      'cpuset/cpuset.cpus',
      'cpuset/cpuset.mems',
      'pids/pids.max',
    ];
    const lines = await seen(
      (adjust) =>
        adjust
          .resources({ memory: { limit: 64 << 20, reservation: 32 << 20, swappiness: 20, disableOomKiller: true } })
          .resources({ cpu: { shares: 333, quota: 44_000, period: 88_000, cpus: '1', mems: '0' }, pids: 55 })
          .resources({ devices: [{ allow: true, type: 'c', major: 99, minor: 7, access: 'r' }] }),
      `${files.map((file) => `cat ${group}/${file}`).join(';')}; head -1 ${group}/memory/memory.oom_control; grep 99: ${group}/devices/devices.list`,
    );
    assert.deepEqual(lines, [
      `${64 << 20}`,
      `${32 << 20}`,
      '20',
      '333',
      '44000',
      '88000',
      '1',
      '0',
      '55',
      'oom_kill_disable 1',
      'c 99:7 r',
    ]);
  });

  test('limits of a container that runs, out of turn', { skip: v1 }, async () => {
    const { stdout } = await create('sleep 1000');
    const id = stdout.trim();
    await lab.ok('start', id);
    const failed = await plugin!.updateContainers([
      update(id, {
        memory: { limit: 96 << 20 },
        cpu: { shares: 222, quota: 33_000, period: 66_000, cpus: '0' },
        pids: 66,
      }),
    ]);
    assert.deepEqual(failed, []);
    const files = 'memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus pids/pids.max';
    const show = files.split(' ').map((file) => `cat /sys/fs/cgroup/${file}`);
    assert.deepEqual((await lab.ok('exec', id, 'sh', '-c', show.join(';'))).split('\n'), [
      `${96 << 20}`,
      '222',
      '33000',
      '0',
      '66',
    ]);
    await lab.ok('rm', '-f', id);
  });

  test('a place in the tree of control groups', async () => {
    const [line] = await seen(
      (adjust) => adjust.cgroupsPath(`/gantry-nria-${process.pid}/of-plugin`),
      'cat /proc/self/cgroup',
    );
    assert.match(line!, /gantry-nria-\d+\/of-plugin$/);
    await run(
      'sh',
      ['-c', `find /sys/fs/cgroup -depth -type d -path '*gantry-nria-${process.pid}*' -exec rmdir {} +`],
      {
        mayFail: true,
      },
    );
  });

  test('a class of block I/O, given and taken', async () => {
    const blockIo = async (name: string, asked: string) => {
      change = (adjust) => adjust.resources({ blockioClass: name });
      const { code, stdout, stderr } = await create('true', {
        annotations: { 'io.kubernetes.cri.blockio-class': asked },
      });
      assert.equal(code, 0, stderr);
      const id = stdout.trim();
      type Shown = { info: { runtimeSpec: { linux: { resources: { blockIO?: object } } } } };
      const { info } = await lab.json<Shown>('inspect', id);
      await lab.ok('rm', id);
      return info.runtimeSpec.linux.resources.blockIO;
    };
    assert.deepEqual(await blockIo('slow', ''), { weight: 80 });
    assert.equal(await blockIo('', 'slow'), undefined);
  });

  test('hooks of every kind', async () => {
    const hook = (kind: string) => ({
      [kind]: [{ path: `${temp.path}/hook`, args: ['hook', kind], env: ['HOOKED=yes'] }],
    });
    const [line] = await seen((adjust) => {
      for (const kind of ['prestart', 'createRuntime', 'createContainer', 'poststart', 'poststop'])
        adjust.hooks(hook(kind));
      // In the container itself.
      adjust.hooks({ startContainer: [{ path: '/bin/touch', args: ['touch', '/by-hook'] }] });
    }, 'ls /by-hook');
    assert.equal(line, '/by-hook');
    const ran = await eventually(
      'the last has run',
      () => {
        const lines = readFileSync(hooks, 'utf8').trim().split('\n');
        return lines.length === 5 ? lines : undefined;
      },
      patience,
    );
    const expected = ['prestart', 'createRuntime', 'createContainer', 'poststart', 'poststop'];
    assert.deepEqual(ran.toSorted(), expected.map((kind) => `${kind} yes`).toSorted());
    assert.match(ran.at(-1)!, /^poststop/);
  });

  test('a network interface of the host', async () => {
    const [host, other] = ['nriveth0', 'nriveth1'];
    await run('ip', ['link', 'del', host], { mayFail: true });
    await run('ip', ['link', 'add', host, 'type', 'veth', 'peer', 'name', other]);
    try {
      const lines = await seen((adjust) => adjust.netDevice(other, 'plugged0'), 'ls /sys/class/net | sort');
      assert.deepEqual(lines, ['eth0', 'lo', 'plugged0']);
    } finally {
      await run('ip', ['link', 'del', host], { mayFail: true });
    }
  });

  const noNuma = existsSync('/proc/self/numa_maps') ? false : 'this kernel knows no memory policies';
  test('where memory comes from', { skip: noNuma }, async () => {
    const [line] = await seen((adjust) => adjust.memoryPolicy(MpolMode.MPOL_BIND, '0'), 'head -1 /proc/self/numa_maps');
    assert.match(line!, /bind:0/);
  });

  test('what this machine cannot give is an error that says so', async () => {
    const cases: [RegExp, (adjust: Adjustment) => void][] = [
      [/unresolvable CDI devices example.com\/test=other/, (adjust) => adjust.cdiDevice('example.com/test=other')],
      [/no-such-class/, (adjust) => adjust.resources({ blockioClass: 'no-such-class' })],
      [/nria-nothing/, (adjust) => adjust.netDevice('nria-nothing', 'eth9')],
    ];
    if (!existsSync('/sys/fs/resctrl/schemata')) {
      cases.push([/[Rr][Dd][Tt]|resctrl/, (adjust) => adjust.rdt({ closId: 'of-plugin' })]);
      cases.push([/RDT .*gold/, (adjust) => adjust.resources({ rdtClass: 'gold' })]);
    }
    for (const [error, asked] of cases) assert.match(await refused(asked), error);
  });

  test('the built-in validator refuses what the configuration says, naming who asked for it', async () => {
    await lab.daemon.stop();
    lab.daemon.nri = `[plugins.'io.containerd.nri.v1.nri'.default_validator]
  enable = true
  reject_oci_hook_adjustment = true
  reject_unconfined_seccomp_adjustment = true
  reject_namespace_adjustment = true
  reject_sysctl_adjustment = true
  required_plugins = ['changer']
  tolerate_missing_plugins_annotation = 'tolerate.example.com'
`;
    await lab.daemon.start();
    assert.match(
      await refused(() => undefined),
      /validator "00-default-validator" rejected container adjustment, reason: validation error: required plugin "changer" not present/,
    );
    await connect();
    const cases: [RegExp, (adjust: Adjustment) => void][] = [
      [/plugin "10-changer" attempted restricted OCI hook/, (adjust) => adjust.hooks({ poststop: [{ path: '/x' }] })],
      [
        /10-changer attempted restricted unconfined seccomp/,
        (adjust) => adjust.seccomp({ defaultAction: 'SCMP_ACT_ALLOW' }),
      ],
      [/"10-changer" \(namespace "uts"\)/, (adjust) => adjust.removeNamespace('uts')],
      [
        /restricted sysctl adjustment by plugin\(s\) "10-changer"/,
        (adjust) => adjust.sysctl('net.ipv4.ip_default_ttl', '9'),
      ],
    ];
    for (const [reason, asked] of cases) assert.match(await refused(asked), reason);
    assert.deepEqual(await seen((adjust) => adjust.env('A', 'allowed'), 'echo $A'), ['allowed']);
    // A pod may ask for further plugins, and may do without.
    for (const [annotations, made] of [
      [{ 'required-plugins.noderesource.dev/container.c': '[changer, other]' }, false],
      [{ 'required-plugins.noderesource.dev': '[other]', 'tolerate.example.com/pod': 'true' }, true],
    ] as const) {
      const file = lab.pod(`asking-${made}`, { annotations });
      const id = await lab.ok('runp', file);
      const { code, stderr } = await lab.crictl(['create', id, lab.container('c', ['true']), file], { mayFail: true });
      assert.equal(code === 0, made, stderr);
      if (!made) assert.match(stderr.replaceAll('\\', ''), /required plugin "other" not present/);
      await lab.ok('rmp', '-f', id);
    }
  });
});
