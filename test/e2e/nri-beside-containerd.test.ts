// One plugin, on the reference's stub, under Gantry and under containerd 2.3.4: what it is told and what comes of its answers is the same.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { type NriSide, NriSides, type ToldEvent } from '../lib/nri-sides.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const [first, second] = ['10-first', '20-second'] as const;
const value = (of: unknown) => ({ value: of });
const linux = (of: object) => ({ linux: of });
const limits = (of: object) => ({ linux: { resources: of } });

/** What one plugin sets and another may not, by the field's name in the message. */
const settings: Record<string, object> = {
  'Annotations a': { annotations: { a: '1' } },
  'Mounts /x': { mounts: [{ destination: '/x', type: 'tmpfs', source: 'tmpfs', options: ['ro'] }] },
  'Env A': { env: [{ key: 'A', value: 'x=y' }] },
  'Args ': { args: ['sleep', '999'] },
  'Rlimits RLIMIT_CORE': { rlimits: [{ type: 'RLIMIT_CORE', hard: `${2n ** 64n - 1n}`, soft: '7' }] },
  'CdiDevices example.com/test=one': { CDIDevices: [{ name: 'example.com/test=one' }] },
  'Devices /dev/x': linux({
    devices: [
      { path: '/dev/x', type: 'c', major: '1', minor: '3', fileMode: value(0o640), uid: value(7), gid: value(8) },
    ],
  }),
  'MemLimit ': limits({ memory: { limit: value('67108864') } }),
  'CPUShares ': limits({ cpu: { shares: value('333') } }),
  'CPUQuota ': limits({ cpu: { quota: value('44000') } }),
  'CPUPeriod ': limits({ cpu: { period: value('88000') } }),
  'CPURealtimeRuntime ': limits({ cpu: { realtimeRuntime: value('1000') } }),
  'CPURealtimePeriod ': limits({ cpu: { realtimePeriod: value('1000000') } }),
  'CPUSetCPUs ': limits({ cpu: { cpus: '0' } }),
  'CPUSetMems ': limits({ cpu: { mems: '0' } }),
  'PidsLimit ': limits({ pids: { limit: '55' } }),
  'HugepageLimits 2MB': limits({ hugepageLimits: [{ pageSize: '2MB', limit: '4194304' }] }),
  'BlockioClass ': limits({ blockioClass: value('slow') }),
  'CgroupsUnified memory.high': limits({ unified: { 'memory.high': '1000000000' } }),
  'CgroupsPath ': linux({ cgroupsPath: '/nri-sides/of-plugin' }),
  'OomScoreAdj ': linux({ oomScoreAdj: value('900') }),
  'IoPriority ': linux({ ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 6 } }),
  'LinuxSched ': linux({
    scheduler: {
      policy: 'SCHED_DEADLINE',
      nice: 1,
      priority: 2,
      runtime: '10000000',
      deadline: '20000000',
      period: '30000000',
      flags: ['SCHED_FLAG_RESET_ON_FORK', 'SCHED_FLAG_DL_OVERRUN'],
    },
  }),
  'SeccompPolicy ': linux({
    seccompPolicy: {
      defaultAction: 'SCMP_ACT_ALLOW',
      architectures: ['SCMP_ARCH_X86_64'],
      flags: ['SECCOMP_FILTER_FLAG_LOG'],
      listenerPath: '/run/x.sock',
      listenerMetadata: 'meta',
      syscalls: [
        {
          names: ['mkdir'],
          action: 'SCMP_ACT_ERRNO',
          errnoRet: value(95),
          args: [{ index: 1, value: '5', valueTwo: '6', op: 'SCMP_CMP_EQ' }],
        },
      ],
    },
  }),
  'Namespace cgroup': linux({ namespaces: [{ type: 'cgroup' }] }),
  'Sysctl net.ipv4.ip_default_ttl': linux({ sysctl: { 'net.ipv4.ip_default_ttl': '55' } }),
  'LinuxNetDevices eth7': linux({ netDevices: { eth7: { name: 'eth9' } } }),
  'MemoryPolicy ': linux({ memoryPolicy: { mode: 'MPOL_PREFERRED', nodes: '0', flags: ['MPOL_F_STATIC_NODES'] } }),
  'RdtClosID ': linux({ rdt: { closId: value('gold') } }),
  'RdtSchemata ': linux({ rdt: { schemata: value(['L3:0=f']) } }),
  'RdtEnableMonitoring ': linux({ rdt: { enableMonitoring: value(true) } }),
};

/** Further things that a plugin may ask for of a container that asks for something too. */
const others: Record<string, [first: object, second?: object]> = {
  'an annotation in place of that asked for': [{ annotations: { asked: '2' } }],
  'an annotation taken away': [{ annotations: { '-asked': '' } }],
  'a variable and a mount taken away by one, and set by the other': [
    { env: [{ key: '-A' }], mounts: [{ destination: '-/dev/mqueue' }] },
    { env: [{ key: 'A', value: '3' }], mounts: [{ destination: '/dev/mqueue', type: 'tmpfs', source: 'tmpfs' }] },
  ],
  'what another has set, taken away': [
    { env: [{ key: 'N', value: '1' }], mounts: [{ destination: '/x', type: 'tmpfs' }] },
    { env: [{ key: '-N' }], mounts: [{ destination: '-/x' }] },
  ],
  'what another has set, taken away and set anew': [
    { env: [{ key: 'N', value: '1' }], mounts: [{ destination: '/x', type: 'tmpfs' }], args: ['sleep', '9'] },
    {
      env: [{ key: '-N' }, { key: 'N', value: '2' }],
      mounts: [{ destination: '-/x' }, { destination: '/x', type: 'tmpfs', source: 'two' }],
      args: ['', 'sleep', '8'],
    },
  ],
  'a variable in place of that asked for, one without a name': [
    {
      env: [
        { key: 'A', value: '1' },
        { key: '', value: 'x' },
      ],
    },
  ],
  'mounts above, beside and in place of others; one taken away; one that is relative': [
    {
      mounts: [
        { destination: '/a/b/c', type: 'tmpfs', source: 'tmpfs' },
        { destination: '/a', type: 'tmpfs', source: 'tmpfs' },
        { destination: '/proc', type: 'tmpfs', source: 'tmpfs' },
        { destination: '-/dev/mqueue' },
        { destination: 'relative', type: 'tmpfs', source: 'tmpfs' },
      ],
    },
  ],
  'a device in place of that asked for; a fifo; a block device': [
    linux({
      devices: [
        { path: '/dev/asked', type: 'c', major: '1', minor: '5' },
        { path: '/dev/fifo', type: 'p' },
        { path: '/dev/block', type: 'b', major: '7', minor: '0' },
      ],
    }),
  ],
  'rules for devices': [
    limits({
      devices: [
        { allow: true, type: 'c', major: value('99'), minor: value('7'), access: 'r' },
        { allow: true, type: 'b', access: 'rwm' },
      ],
    }),
  ],
  'hooks of every kind, of two plugins': [
    {
      hooks: Object.fromEntries(
        ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'].map((kind) => [
          kind,
          [{ path: '/bin/true', args: ['true', kind], env: ['A=b'], timeout: value('7') }],
        ]),
      ),
    },
    { hooks: { poststop: [{ path: '/bin/false' }] } },
  ],
  'limits that say nothing, or no limit': [
    limits({ memory: { limit: value('0') }, cpu: { shares: value('0'), quota: value('-1') }, pids: { limit: '-1' } }),
  ],
  'namespaces joined and left': [linux({ namespaces: [{ type: '-uts' }, { type: 'ipc', path: '/proc/self/ns/ipc' }] })],
  'a namespace that is none': [linux({ namespaces: [{ type: 'nothing' }] })],
  'no priority, no scheduler': [linux({ ioPriority: {}, scheduler: {} })],
  'a policy for system calls without any': [linux({ seccompPolicy: { defaultAction: 'SCMP_ACT_ALLOW' } })],
  'an interface that is removed': [linux({ netDevices: { '-eth7': {} } })],
  'allocations removed': [linux({ rdt: { closId: value('gold') } }), linux({ rdt: { remove: true } })],
  nothing: [{}],
};

describe('NRI beside containerd 2.3.4', {
  skip: process.getuid?.() === 0 ? NriSides.missing() : 'containers need root',
}, () => {
  const temp = makeTempDir('nris');
  const sides = new NriSides(temp.path, 213);

  before(async () => {
    await sides.start();
    writeFileSync(
      path.join(temp.path, 'cdi/test.json'),
      JSON.stringify({
        cdiVersion: '0.6.0',
        kind: 'example.com/test',
        devices: [
          {
            name: 'one',
            containerEdits: { env: ['BY_CDI=one'], deviceNodes: [{ path: '/dev/cdi1', hostPath: '/dev/null' }] },
          },
        ],
      }),
    );
    await Promise.all(
      sides.both.map(async (side) => {
        await side.plugin('10', 'first');
        await side.runPod('sides', {
          labels: { l: '1' },
          annotations: { a: '1' },
          linux: {
            overhead: { memory_limit_in_bytes: 1048576, cpu_shares: 10 },
            resources: { memory_limit_in_bytes: 104857600 },
          },
        });
        await side.plugin('20', 'second');
      }),
    );
  });
  afterEach(() => {
    for (const side of sides.both) for (const plugin of [first, second]) side.answer(plugin);
  });
  after(async () => {
    await sides.close();
    await run('sh', ['-c', `find /sys/fs/cgroup -depth -type d -path '*/nri-sides*' -exec rmdir {} +`], {
      mayFail: true,
    });
    await temp.remove();
  });

  /** Without what is each side's own. */
  const common = (text: string, side: NriSide): string =>
    text
      .replaceAll(side.directory, 'HERE')
      .replaceAll(path.join(temp.path, side === sides.gantry ? 'g' : 'c'), 'HERE')
      .replaceAll(/[0-9a-f]{64}/g, 'ID')
      .replaceAll(/cni-[0-9a-f-]{36}/g, 'NETWORK')
      .replaceAll(/\/proc\/\d+/g, '/proc/PID')
      .replaceAll(/10\.213\.\d\.\d+/g, 'ADDRESS');

  const container = {
    annotations: { asked: '1' },
    envs: ['A', 'B'].map((key) => ({ key, value: '0' })),
    devices: [{ container_path: '/dev/asked', host_path: '/dev/null', permissions: 'rwm' }],
    linux: { resources: { memory_limit_in_bytes: 33554432, cpu_quota: 50000, cpu_period: 100000 } },
  };

  type Leaves = Map<string, string>;

  /** All that a document says, by place; entries of lists by their keys, and the lists' order. */
  function leaves(of: unknown, place = '', found: Leaves = new Map()): Leaves {
    const keyOf = (entry: unknown, at: number): string => {
      if (typeof entry === 'string') return place.endsWith('/env') ? entry : `${at}`;
      const { destination, path: ofDevice, type } = (entry ?? {}) as Record<string, string>;
      if (place.endsWith('resources/devices')) return `${at}`;
      return destination ?? ofDevice ?? type ?? `${at}`;
    };
    if (Array.isArray(of)) {
      if (!place.endsWith('resources/devices')) found.set(`${place} order`, of.map(keyOf).join(' '));
      for (const [at, entry] of of.entries()) leaves(entry, `${place}[${keyOf(entry, at)}]`, found);
    } else if (of && typeof of === 'object') {
      for (const [name, entry] of Object.entries(of)) leaves(entry, `${place}/${name}`, found);
    } else found.set(place, JSON.stringify(of));
    return found;
  }

  /** Creates a container; answers what differs about it from one that nobody changes, or the error. */
  async function made(side: NriSide, base: Leaves | undefined, more: object = container): Promise<string[] | Leaves> {
    const { code, stdout, stderr } = await side.create(more);
    if (code !== 0) {
      const error = stderr
        .trim()
        .split('\n')
        .at(-1)!
        .replace(/.*msg=/, '');
      return [common(error.replace(/rpc error: code = \w+ desc = /g, ''), side)];
    }
    const id = stdout.trim();
    const spec = leaves(JSON.parse(common(JSON.stringify(await side.spec(id)), side)));
    await side.ok('rm', '-f', id);
    for (const key of spec.keys()) if (/container-name|\/syscalls order/.test(key)) spec.delete(key);
    if (!base) return spec;
    const added = [...spec].filter(([key, text]) => base.get(key) !== text).map(([key, text]) => `${key} = ${text}`);
    const gone = [...base.keys()].filter((key) => !spec.has(key) && !/syscalls/.test(key)).map((key) => `no ${key}`);
    return [...added, ...gone].sort();
  }

  /** The same of both sides. */
  async function same<T>(what: string, of: (side: NriSide) => Promise<T>): Promise<T> {
    const [ours, theirs] = (await Promise.all(sides.both.map(of))) as [T, T];
    assert.deepEqual(ours, theirs, what);
    return ours;
  }

  const bases = new Map<NriSide, Leaves>();
  async function adjusted(what: string, one: object, other?: object): Promise<string[]> {
    return await same(what, async (side) => {
      if (!bases.has(side)) bases.set(side, (await made(side, undefined)) as Leaves);
      side.answer(first, { CreateContainer: { adjust: one } });
      if (other) side.answer(second, { CreateContainer: { adjust: other } });
      const result = (await made(side, bases.get(side))) as string[];
      for (const plugin of [first, second]) side.answer(plugin);
      return result;
    });
  }

  test('every adjustment there is changes the specification in the same way', async () => {
    const merged = (one: object, other: object): object => {
      const result: Record<string, unknown> = { ...one };
      for (const [key, of] of Object.entries(other)) {
        const before = result[key];
        const both = [before, of].every((each) => each && typeof each === 'object' && !Array.isArray(each));
        result[key] = both ? merged(before as object, of) : of;
      }
      return result;
    };
    const all = Object.values(settings).reduce(merged, {});
    const changes = await adjusted('all', all);
    for (const part of [
      ...['annotations', 'mounts', 'process/env', 'process/args', 'process/rlimits', 'process/oomScoreAdj'],
      ...['process/ioPriority', 'process/scheduler', 'linux/devices', 'linux/cgroupsPath', 'linux/seccomp'],
      ...['linux/namespaces', 'linux/sysctl', 'linux/netDevices', 'linux/memoryPolicy', 'linux/intelRdt'],
      ...['memory', 'cpu', 'pids', 'blockIO', 'unified', 'devices'].map((name) => `linux/resources/${name}`),
    ]) {
      assert.ok(
        changes.some((change) => change.startsWith(`/${part}`)),
        `${part} in ${changes.join('\n')}`,
      );
    }
  });

  test('what two plugins set is an error that names both', async () => {
    for (const [what, setting] of Object.entries(settings)) {
      const [error] = await adjusted(what, setting, setting);
      const expected = `failed to create containerd container: failed to get NRI adjustment for container: plugins \\"${second}\\" and \\"${first}\\" both tried to set ${what}`;
      assert.ok(error?.includes(expected), `${error}`);
    }
  });

  test('replacing, removing, and mistakes', async () => {
    for (const [what, [one, other]] of Object.entries(others)) await adjusted(what, one, other);
  });

  /** Left out: moments and numbers, and what is empty or 0 for one and absent for the other. */
  const told = (side: NriSide, event: ToldEvent): string[] =>
    [...leaves(JSON.parse(common(JSON.stringify(event), side)))]
      // Lists of system calls are sorted differently.
      .map(([key, text]) => [key.replace(/(?<=names)\[\d+\]/, ''), text] as const)
      .filter(
        ([key, text]) =>
          !/At$|\/pid$|\/statusReason$|\/version$|order$|\/environment|\/state$/.test(key) && text !== '"0"',
      )
      .map(([key, text]) => `${key} = ${text}`)
      .sort();

  test('a plugin is told the same of a pod and its container, all their lives', async () => {
    const begin = new Map(sides.both.map((side) => [side, side.told(first).length]));
    await same('it goes through', async (side) => {
      const { stdout } = await side.create({
        labels: { cl: '1' },
        annotations: { ca: '1' },
        CDI_devices: [{ name: 'example.com/test=one' }],
        linux: {
          resources: { memory_limit_in_bytes: 50000000, cpu_shares: 20, cpuset_cpus: '0', oom_score_adj: 500 },
          security_context: {
            run_as_user: { value: 5 },
            run_as_group: { value: 6 },
            supplemental_groups: [7],
            seccomp: { profile_type: 0 },
          },
        },
      });
      const id = stdout.trim();
      await side.ok('start', id);
      await side.ok('update', '--cpu-share', '30', '--memory', '60000000', id);
      await side.ok('stop', '-t', '0', id);
      await side.ok('rm', id);
    });
    const [ours, theirs] = sides.both.map((side) => side.told(first).slice(begin.get(side))) as [
      ToldEvent[],
      ToldEvent[],
    ];
    const names = (events: ToldEvent[]) => events.map(({ event }) => event);
    assert.deepEqual(names(ours), [
      'CreateContainer',
      'ValidateContainerAdjustment',
      'PostCreateContainer',
      'StartContainer',
      'PostStartContainer',
      'UpdateContainer',
      'PostUpdateContainer',
      'StopContainer',
      'RemoveContainer',
    ]);
    assert.deepEqual(names(theirs), names(ours));
    for (const [at, event] of ours.entries()) {
      assert.deepEqual(told(sides.gantry, event), told(sides.reference, theirs[at]!), event.event);
    }
    assert.match(JSON.stringify(ours[0]!.container), /"seccompPolicy":\{/);
    for (const event of ['Configure', 'RunPodSandbox']) {
      const of = (side: NriSide) => told(side, side.told(first).find((each) => each.event === event)!);
      assert.deepEqual(of(sides.gantry), of(sides.reference));
    }
  });

  test('limits that plugins set of containers that run', async () => {
    const shown = async (side: NriSide, id: string) => {
      type Spec = { linux: { resources: { cpu?: object; memory?: object } } };
      const { cpu, memory } = ((await side.spec(id)) as Spec).linux.resources;
      return { ...cpu, ...memory };
    };
    const results = await same('limits', async (side) => {
      const ids = await Promise.all(
        [{ memory_limit_in_bytes: 33554432 }, {}].map(async (resources) => {
          const { stdout } = await side.create({ linux: { resources } });
          await side.ok('start', stdout.trim());
          return stdout.trim();
        }),
      );
      const [one, other] = ids as [string, string];
      const update = (container_id: string, resources: object, more: object = {}) => ({
        container_id,
        linux: { resources },
        ...more,
      });
      const cases: [string, object, object?][] = [
        ['another', update(other, { cpu: { shares: value('101') } })],
        ['more memory, with which the swap grows', update(one, { memory: { limit: value('150000000') } })],
        ['0 says nothing', update(one, { memory: { limit: value('0') }, cpu: { shares: value('0') } })],
        ['one that is not there', update('nobody', { cpu: { shares: value('5') } })],
        ['what cannot be', update(other, { cpu: { cpus: '77' } })],
        ['two', update(other, { cpu: { shares: value('7') } }), update(other, { cpu: { shares: value('8') } })],
        [
          'two, one of which does not mind',
          update(other, { cpu: { shares: value('9') } }),
          update(other, { cpu: { shares: value('8') } }, { ignore_failure: true }),
        ],
      ];
      const seen: unknown[] = [];
      for (const event of ['UpdateContainer', 'CreateContainer', 'StopContainer']) {
        for (const [what, by, also] of event === 'UpdateContainer' ? cases : cases.slice(0, 1)) {
          side.answer(first, { [event]: { update: [by] } });
          if (also) side.answer(second, { [event]: { update: [also] } });
          const { code } =
            event === 'CreateContainer'
              ? await side.create()
              : await side.crictl(
                  event === 'UpdateContainer' ? ['update', '--cpu-share', '38', one] : ['stop', '-t', '0', one],
                );
          side.answer(first);
          side.answer(second);
          seen.push([event, what, code, await shown(side, one), await shown(side, other)]);
        }
      }
      return seen;
    });
    assert.equal(results.length, 9);
  });

  test('what a plugin’s objection stops, and what it does not', async () => {
    const results = await same('objections', async (side) => {
      const seen: unknown[] = [];
      const objectTo = (...events: string[]) =>
        side.answer(first, Object.fromEntries(events.map((event) => [event, { error: `no ${event}` }])));
      for (const events of [
        ['CreateContainer'],
        ['ValidateContainerAdjustment'],
        ['StartContainer'],
        ['UpdateContainer'],
        ['PostCreateContainer', 'PostStartContainer', 'PostUpdateContainer', 'StopContainer', 'RemoveContainer'],
      ]) {
        objectTo(...events);
        const created = await side.create();
        const codes = [created.code];
        const id = created.stdout.trim();
        for (const args of id ? [['start'], ['update', '--cpu-share', '41'], ['stop', '-t', '0'], ['rm']] : []) {
          codes.push((await side.crictl([...args, id])).code);
        }
        side.answer(first);
        seen.push([...events, ...codes.map((code) => code === 0)]);
      }
      const { pod, podFile } = side;
      for (const events of [['RunPodSandbox'], ['StopPodSandbox', 'RemovePodSandbox']]) {
        objectTo(...events);
        const made = await side.runPod(`unwanted-${events.length}`).catch((error: Error) => {
          assert.match(error.message, /NRI RunPodSandbox failed: .*no RunPodSandbox/);
        });
        const codes = made ? [await side.crictl(['stopp', made]), await side.crictl(['rmp', made])] : [];
        side.answer(first);
        seen.push([...events, made !== undefined, ...codes.map(({ code }) => code === 0)]);
        // containerd leaves one now and then.
        if (side === sides.gantry) assert.equal(await side.ok('pods', '-q', '--name', 'unwanted'), '');
        Object.assign(side, { pod, podFile });
      }
      return seen;
    });
    assert.equal(results.length, 7);
  });

  test('a plugin that validates and ends before it does has refused', async () => {
    for (const side of sides.both) {
      side.answer(first, { CreateContainer: { exit: true } });
      const { stderr } = await side.create();
      assert.match(stderr, new RegExp(`validator plugin ${first} failed`), side.name);
    }
  });
});
