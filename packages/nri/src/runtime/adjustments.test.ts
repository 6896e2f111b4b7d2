import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import {
  ContainerSchema,
  Field,
  IOPrioClass,
  LinuxSchedulerFlag,
  LinuxSchedulerPolicy,
  MpolFlag,
  MpolMode,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import type { RuntimeSpec } from '@gantry/oci';
import { Adjustment } from '../adjustment.ts';
import { type AdjustmentTools, applyAdjustment } from './apply-adjustment.ts';
import { AdjustmentCollector } from './collect-adjustment.ts';
import { containerFromSpec } from './from-spec.ts';
import { Owners } from './owners.ts';

const tools: AdjustmentTools = {
  injectCdi: async (spec, devices) => {
    spec.annotations = { ...spec.annotations, cdi: devices.join() };
    spec.process = { ...spec.process! };
  },
  mergeResources: (base, over) => ({ ...base, ...over }),
  applyBlockIoClass: (spec, name) => {
    spec.annotations = { ...spec.annotations, blockio: name };
  },
  applyRdtClass: (spec, name) => {
    spec.annotations = { ...spec.annotations, rdt: name };
  },
};

const base = (): RuntimeSpec => ({
  ociVersion: '1.2.0',
  process: {
    user: { uid: 1, gid: 2, additionalGids: [3] },
    args: ['sh'],
    env: ['PATH=/bin', 'OLD=1', 'GONE=1'],
    cwd: '/',
    rlimits: [{ type: 'RLIMIT_NOFILE', hard: 10, soft: 10 }],
  },
  mounts: [
    { destination: '/proc', type: 'proc', source: 'proc' },
    { destination: '/data/inner', type: 'bind', source: '/a' },
    { destination: '/old', type: 'bind', source: '/b' },
  ],
  annotations: { keep: '1', gone: '1' },
  linux: {
    namespaces: [{ type: 'pid' }, { type: 'network', path: '/run/netns/x' }],
    devices: [{ path: '/dev/old', type: 'c', major: 1, minor: 1 }],
    sysctl: { 'net.gone': '1' },
    resources: { devices: [{ allow: false, access: 'rwm' }] },
  },
});

/** What a specification is after plugins, in their order. */
async function adjusted(...plugins: ((adjust: Adjustment) => void)[]): Promise<RuntimeSpec> {
  const spec = base();
  const collector = new AdjustmentCollector(containerFromSpec(spec, { id: 'c' }), new Owners());
  for (const [at, plugin] of plugins.entries()) {
    const adjust = new Adjustment();
    plugin(adjust);
    collector.add(adjust.message, `${at}0-plugin`);
  }
  await applyAdjustment(spec, collector.adjustment, tools);
  return spec;
}

/** One change of each kind, by the name under which its owner is kept. */
const changes: Record<string, (adjust: Adjustment) => void> = {
  Annotations: (adjust) => adjust.annotate('a', 'b'),
  Mounts: (adjust) => adjust.mount({ destination: '/data', type: 'tmpfs', source: 'tmpfs', options: ['ro'] }),
  Devices: (adjust) => adjust.device({ path: '/dev/x', type: 'b', major: 8n, minor: 1n, fileMode: { value: 0o600 } }),
  CdiDevices: (adjust) => adjust.cdiDevice('vendor.com/class=one'),
  Env: (adjust) => adjust.env('NEW', '2'),
  Args: (adjust) => adjust.args('cat', '/x'),
  MemLimit: (adjust) => adjust.resources({ memory: { limit: 100 } }),
  MemReservation: (adjust) => adjust.resources({ memory: { reservation: 50 } }),
  MemSwapLimit: (adjust) => adjust.resources({ memory: { swap: 200 } }),
  MemSwappiness: (adjust) => adjust.resources({ memory: { swappiness: 7 } }),
  MemKernelLimit: (adjust) => adjust.resources({ memory: { kernel: 300 } }),
  MemTCPLimit: (adjust) => adjust.resources({ memory: { kernelTcp: 400 } }),
  MemUseHierarchy: (adjust) => adjust.resources({ memory: { useHierarchy: true } }),
  MemDisableOomKiller: (adjust) => adjust.resources({ memory: { disableOomKiller: true } }),
  CPUShares: (adjust) => adjust.resources({ cpu: { shares: 5 } }),
  CPUQuota: (adjust) => adjust.resources({ cpu: { quota: 6 } }),
  CPUPeriod: (adjust) => adjust.resources({ cpu: { period: 8 } }),
  CPURealtimeRuntime: (adjust) => adjust.resources({ cpu: { realtimeRuntime: 9 } }),
  CPURealtimePeriod: (adjust) => adjust.resources({ cpu: { realtimePeriod: 10 } }),
  CPUSetCPUs: (adjust) => adjust.resources({ cpu: { cpus: '0-1' } }),
  CPUSetMems: (adjust) => adjust.resources({ cpu: { mems: '0' } }),
  PidsLimit: (adjust) => adjust.resources({ pids: 11 }),
  HugepageLimits: (adjust) => adjust.resources({ hugepages: { '2MB': 1 << 21 } }),
  BlockioClass: (adjust) => adjust.resources({ blockioClass: 'slow' }),
  RdtClass: (adjust) => adjust.resources({ rdtClass: 'gold' }),
  CgroupsUnified: (adjust) => adjust.resources({ unified: { 'memory.high': '1' } }),
  CgroupsPath: (adjust) => adjust.cgroupsPath('/pods/x'),
  OomScoreAdj: (adjust) => adjust.oomScoreAdj(-7),
  Rlimits: (adjust) => adjust.rlimit('RLIMIT_NOFILE', 2n ** 64n - 1n, 20),
  IoPriority: (adjust) => adjust.ioPriority(IOPrioClass.IOPRIO_CLASS_BE, 4),
  SeccompPolicy: (adjust) =>
    adjust.seccomp({
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrno: { value: 1 },
      architectures: ['SCMP_ARCH_X86_64'],
      syscalls: [{ names: ['read'], action: 'SCMP_ACT_ALLOW', args: [{ index: 1, value: 2n, op: 'SCMP_CMP_EQ' }] }],
    }),
  Namespace: (adjust) => adjust.namespace('network', '/run/netns/other'),
  Sysctl: (adjust) => adjust.sysctl('net.x', '3'),
  LinuxNetDevices: (adjust) => adjust.netDevice('eth7', 'eth0'),
  LinuxSched: (adjust) =>
    adjust.scheduler({
      policy: LinuxSchedulerPolicy.SCHED_FIFO,
      priority: 9,
      flags: [LinuxSchedulerFlag.SCHED_FLAG_RESET_ON_FORK],
    }),
  RdtClosID: (adjust) => adjust.rdt({ closId: 'clos' }),
  RdtSchemata: (adjust) => adjust.rdt({ schemata: ['L3:0=f'] }),
  RdtEnableMonitoring: (adjust) => adjust.rdt({ enableMonitoring: true }),
  MemoryPolicy: (adjust) => adjust.memoryPolicy(MpolMode.MPOL_BIND, '0', [MpolFlag.MPOL_F_STATIC_NODES]),
};

test('every kind of change reaches the specification', async () => {
  const spec = await adjusted(...Object.values(changes));
  assert.deepEqual(spec.annotations, {
    keep: '1',
    gone: '1',
    a: 'b',
    cdi: 'vendor.com/class=one',
    blockio: 'slow',
    rdt: 'gold',
  });
  assert.deepEqual(
    spec.mounts?.map(({ destination }) => destination),
    ['/data', '/old', '/proc', '/data/inner'],
  );
  assert.deepEqual(spec.process, {
    user: { uid: 1, gid: 2, additionalGids: [3] },
    args: ['cat', '/x'],
    env: ['PATH=/bin', 'OLD=1', 'GONE=1', 'NEW=2'],
    cwd: '/',
    oomScoreAdj: -7,
    ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 4 },
    scheduler: { policy: 'SCHED_FIFO', priority: 9, flags: ['SCHED_FLAG_RESET_ON_FORK'] },
    // What a number cannot hold stays exact.
    rlimits: [{ type: 'RLIMIT_NOFILE', hard: 18446744073709551615n, soft: 20 }],
  });
  assert.deepEqual(spec.linux, {
    namespaces: [{ type: 'pid' }, { type: 'network', path: '/run/netns/other' }],
    devices: [
      { path: '/dev/old', type: 'c', major: 1, minor: 1 },
      { path: '/dev/x', type: 'b', major: 8, minor: 1, fileMode: 0o600 },
    ],
    sysctl: { 'net.gone': '1', 'net.x': '3' },
    resources: {
      devices: [
        { allow: false, access: 'rwm' },
        { allow: true, type: 'b', major: 8, minor: 1, access: 'rwm' },
      ],
      memory: {
        limit: 100,
        reservation: 50,
        swap: 200,
        kernel: 300,
        kernelTCP: 400,
        swappiness: 7,
        disableOOMKiller: true,
        useHierarchy: true,
      },
      cpu: { shares: 5, quota: 6, period: 8, realtimeRuntime: 9, realtimePeriod: 10, cpus: '0-1', mems: '0' },
      pids: { limit: 11 },
      hugepageLimits: [{ pageSize: '2MB', limit: 1 << 21 }],
      unified: { 'memory.high': '1' },
    },
    cgroupsPath: '/pods/x',
    seccomp: {
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrnoRet: 1,
      architectures: ['SCMP_ARCH_X86_64'],
      syscalls: [
        {
          names: ['read'],
          action: 'SCMP_ACT_ALLOW',
          args: [{ index: 1, value: 2, valueTwo: 0, op: 'SCMP_CMP_EQ' }],
        },
      ],
    },
    netDevices: { eth7: { name: 'eth0' } },
    intelRdt: { closID: 'clos', schemata: ['L3:0=f'], enableMonitoring: true },
    memoryPolicy: { mode: 'MPOL_BIND', nodes: '0', flags: ['MPOL_F_STATIC_NODES'] },
  });
});

for (const [field, change] of Object.entries(changes)) {
  test(`two plugins that set ${field} are named`, () => {
    assert.ok(field in Field, 'it is a field of the protocol');
    const collector = new AdjustmentCollector(create(ContainerSchema, { id: 'c' }), new Owners());
    const ask = (plugin: string): void => {
      const adjust = new Adjustment();
      change(adjust);
      collector.add(adjust.message, plugin);
    };
    ask('10-one');
    assert.throws(
      () => ask('20-two'),
      (error: Error) =>
        hasCode(error, Code.InvalidArgument) &&
        new RegExp(`plugins "20-two" and "10-one" both tried to set ${field}\\b`).test(error.message),
    );
  });
}

test('hooks are everybody’s, and validators see whose', () => {
  const owners = new Owners();
  const collector = new AdjustmentCollector(create(ContainerSchema, { id: 'c' }), owners);
  for (const name of ['10-one', '20-two']) {
    collector.add(new Adjustment().hooks({ prestart: [{ path: `/bin/${name}` }] }).message, name);
  }
  assert.deepEqual(
    collector.adjustment.hooks?.prestart.map(({ path }) => path),
    ['/bin/10-one', '/bin/20-two'],
  );
  assert.equal(owners.message.owners['c']?.simple[Field.OciHooks], '10-one,20-two');
});

test('what is removed is gone, whoever set it, and may be set anew', async () => {
  const spec = await adjusted(
    (adjust) => adjust.annotate('a', 'first').env('NEW', 'first').args('first').device(deviceX(1n)),
    (adjust) =>
      adjust
        .removeAnnotation('a')
        .annotate('a', 'second')
        .removeAnnotation('gone')
        .removeEnv('NEW')
        .env('NEW', 'second')
        .removeEnv('GONE')
        .replaceArgs('second')
        .removeMount('/old')
        .removeDevice('/dev/x')
        .device(deviceX(2n))
        .removeDevice('/dev/old')
        .removeSysctl('net.gone')
        .removeNamespace('pid'),
  );
  assert.deepEqual(spec.annotations, { keep: '1', a: 'second' });
  assert.deepEqual(spec.process?.env, ['PATH=/bin', 'OLD=1', 'NEW=second']);
  assert.deepEqual(spec.process?.args, ['second']);
  assert.deepEqual(
    spec.mounts?.map(({ destination }) => destination),
    ['/proc', '/data/inner'],
  );
  assert.deepEqual(spec.linux?.devices, [{ path: '/dev/x', type: 'c', major: 2, minor: 0 }]);
  assert.deepEqual(spec.linux?.sysctl, {});
  assert.deepEqual(spec.linux?.namespaces, [{ type: 'network', path: '/run/netns/x' }]);
});

const deviceX = (major: bigint) => ({ path: '/dev/x', type: 'c', major });

test('what one has removed another may set; limits of processes survive devices by name', async () => {
  const spec = await adjusted(
    (adjust) => adjust.removeEnv('OLD').cdiDevice('vendor.com/class=one').rlimit('RLIMIT_CORE', 4),
    (adjust) => adjust.env('OLD', '2'),
  );
  assert.ok(spec.process?.env?.includes('OLD=2'));
  assert.deepEqual(spec.process?.rlimits?.at(-1), { type: 'RLIMIT_CORE', hard: 4, soft: 4 });
});

test('mistakes are refused', async () => {
  await assert.rejects(
    adjusted((adjust) => adjust.device({ path: '/dev/x', type: 'z', major: 1n, minor: 1n })),
    /invalid type "z"/,
  );
  await assert.rejects(
    adjusted((adjust) => adjust.namespace('nothing')),
    /unrecognized namespace "nothing"/,
  );
});

test('a memory limit brings the swap with it; a negative number of processes is none', async () => {
  const spec = await adjusted((adjust) => adjust.resources({ memory: { limit: 64 }, pids: -1 }));
  assert.deepEqual(spec.linux?.resources?.memory, { limit: 64, swap: 64 });
  assert.deepEqual(spec.linux?.resources?.pids, {});
});
