import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { openRdt } from '../resource-classes/rdt-classes.ts';

// What is expected here is what goresctrl 0.12.0 writes for the same configuration on the same tree.

const root = mkdtempSync(path.join(tmpdir(), 'gantry-rdt-'));
after(() => rmSync(root, { recursive: true }));

interface Machine {
  /** Of L3, twenty portions; with CDP in two. */
  l3?: 'unified' | 'cdp';
  /** Of L2, eight portions of which one must have two. */
  l2?: boolean;
  mb?: 'percent' | 'MBps';
  /** Groups that are there: their tasks. */
  groups?: Record<string, string>;
}

let trees = 0;

/** A directory tree as resctrl shows it. */
function tree({ l3, l2, mb, groups = {} }: Machine): { directory: string; mounts: string } {
  const directory = path.join(root, String(++trees));
  const put = (name: string, text: string): void => {
    const file = path.join(directory, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, `${text}\n`);
  };
  const schemata: string[] = [];
  const cache = (kind: string, mask: string, minBits: number, ids: number[]): void => {
    put(`info/${kind}/cbm_mask`, mask);
    put(`info/${kind}/min_cbm_bits`, String(minBits));
    put(`info/${kind}/shareable_bits`, '0');
    put(`info/${kind}/num_closids`, '16');
    schemata.push(`    ${kind}:${ids.map((id) => `${id}=${mask}`).join(';')}`);
  };
  put('info/last_cmd_status', 'ok');
  if (l2) cache('L2', 'ff', 2, [0, 1, 2, 3]);
  if (l3) for (const kind of l3 === 'cdp' ? ['L3CODE', 'L3DATA'] : ['L3']) cache(kind, 'fffff', 1, [0, 1]);
  if (mb) {
    put('info/MB/min_bandwidth', '10');
    put('info/MB/bandwidth_gran', '10');
    put('info/MB/num_closids', '8');
    schemata.push(mb === 'percent' ? '    MB:0=100;1=100' : '    MB:0=4294967295;1=4294967295');
  }
  put('schemata', schemata.join('\n'));
  put('tasks', '1');
  for (const [name, tasks] of Object.entries(groups)) {
    put(`${name}/tasks`, tasks);
    put(`${name}/schemata`, 'as it was');
  }
  const mounts = `${directory}.mounts`;
  writeFileSync(
    mounts,
    `proc /proc proc rw 0 0\nresctrl ${directory} resctrl rw${mb === 'MBps' ? ',mba_MBps' : ''} 0 0\n`,
  );
  return { directory, mounts };
}

/** What the kernel does of itself when directories come and go there. */
const kernel = {
  make(group: string): void {
    mkdirSync(group);
    for (const file of ['tasks', 'schemata']) writeFileSync(path.join(group, file), '');
  },
  remove: (group: string): void => rmSync(group, { recursive: true }),
};

async function configured(machine: Machine, configuration: string) {
  const { directory, mounts } = tree(machine);
  const file = `${directory}.yaml`;
  writeFileSync(file, configuration);
  const classes = await openRdt(file, mounts, kernel);
  const schemata = (name = ''): string => readFileSync(path.join(directory, name, 'schemata'), 'utf8');
  return { classes, directory, schemata };
}

const shared = `
options:
  l2: { optional: true }
partitions:
  exclusive:
    l2Allocation: "80%"
    l3Allocation: "60%"
    mbAllocation: ["100%", "9000MBps"]
    classes:
      guaranteed:
        l2Allocation: "100%"
        l3Allocation: "100%"
        kubernetes: { denyPodAnnotation: true }
  shared:
    l2Allocation: "20%"
    l3Allocation: { all: "40%" }
    mbAllocation: { all: ["50%", "2000MBps"], 1: ["40%", "1000MBps"] }
    classes:
      burstable:
      besteffort:
        l3Allocation: "50%"
        mbAllocation: ["50%", "1500MBps"]
      system/default:
        l3Allocation: { all: "30%", "1": "0x3" }
`;

test('partitions share caches without overlap, and classes what their partition has', async () => {
  const { schemata } = await configured({ l2: true, l3: 'unified', mb: 'percent' }, shared);
  const l2 = 'L2:0=3f;1=3f;2=3f;3=3f\n';
  assert.equal(schemata('guaranteed'), `${l2}L3:0=fff;1=fff\nMB:0=100;1=100\n`);
  const few = 'L2:0=c0;1=c0;2=c0;3=c0\n';
  assert.equal(schemata('burstable'), `${few}L3:0=ff000;1=ff000\nMB:0=50;1=40\n`);
  assert.equal(schemata('besteffort'), `${few}L3:0=f000;1=f000\nMB:0=25;1=20\n`);
  assert.equal(schemata(), `${few}L3:0=7000;1=3000\nMB:0=50;1=40\n`);
});

test('memory bandwidth is in MB/s where resctrl is mounted so', async () => {
  const { schemata } = await configured({ l3: 'unified', mb: 'MBps' }, shared);
  assert.equal(schemata('guaranteed'), 'L3:0=fff;1=fff\nMB:0=9000;1=9000\n');
  assert.equal(schemata('besteffort'), 'L3:0=f000;1=f000\nMB:0=1500;1=1000\n');
});

test('code and data have shares of their own where the kernel allocates them apart', async () => {
  const configuration = `
partitions:
  one:
    l3Allocation: "10-19"
    classes:
      split: { l3Allocation: { all: { unified: "100%", code: "20%", data: "30-100%" }, 1: "0xf" } }
  two:
    l3Allocation: "0x3ff"
    classes: { all: }
`;
  const { schemata } = await configured({ l3: 'cdp' }, configuration);
  assert.equal(schemata('split'), 'L3CODE:0=c00;1=3c00\nL3DATA:0=ff000;1=3c00\n');
  assert.equal(schemata('all'), 'L3CODE:0=3ff;1=3ff\nL3DATA:0=3ff;1=3ff\n');
});

test('groups that no class names are removed, those that are there stay, and idle monitors go', async () => {
  const groups = {
    stale: '17',
    guaranteed: '18',
    'guaranteed/mon_groups/idle': '',
    'guaranteed/mon_groups/busy': '18',
  };
  const { classes, directory, schemata } = await configured({ l3: 'unified', mb: 'percent', groups }, shared);
  const there = (name: string): boolean => existsSync(path.join(directory, name));
  assert.equal(there('stale'), false);
  assert.equal(readFileSync(path.join(directory, 'guaranteed/tasks'), 'utf8'), '18\n');
  assert.match(schemata('guaranteed'), /^L3:0=fff/);
  assert.deepEqual([there('guaranteed/mon_groups/idle'), there('guaranteed/mon_groups/busy')], [false, true]);
  for (const name of ['burstable', 'system/default', '']) classes.check(name, 'pod');
  classes.check('guaranteed', 'container');
  assert.throws(() => classes.check('guaranteed', 'pod'), /RDT class "guaranteed" not allowed from Pod annotations/);
  assert.throws(
    () => classes.check('stale', 'pod'),
    /RDT class not found: .*resctrl group not found for class "stale"/,
  );
  for (const name of ['../burstable', '..', '.']) {
    assert.throws(() => classes.check(name, 'pod'), /unqualified RDT class name/);
  }
});

const partitions = (allocation: string, more = ''): string =>
  `partitions: { a: { ${allocation}, classes: { x: { ${more} } } } }\n`;

for (const [what, configuration, message] of [
  [
    'more than there is',
    'partitions: { a: { l3Allocation: "70%" }, b: { l3Allocation: "40%" } }',
    /accumulated L3 "unified" partition allocation requests for cache id 0 exceeds 100% \(110%\)/,
  ],
  [
    'the same bits twice',
    'partitions: { a: { l3Allocation: "0-3" }, b: { l3Allocation: "3-5" } }',
    /overlapping L3 partition allocation requests for cache id 0/,
  ],
  [
    'percent beside bits',
    'partitions: { a: { l3Allocation: "0-3" }, b: { l3Allocation: "20%" } }',
    /mixing relative and absolute allocations between partitions not supported/,
  ],
  [
    'a partition that does not say what it wants',
    'partitions: { a: { l3Allocation: "20%" }, b: { } }',
    /some partitions \(b\) missing L3 "unified" allocation request for cache id 0/,
  ],
  [
    'a range of a partition',
    partitions('l3Allocation: "10-20%"'),
    /percentage ranges in partition allocation not supp/,
  ],
  [
    'two blocks of bits',
    partitions('l3Allocation: "0,2"'),
    /invalid cache bitmask "0,2": more than one continuous block/,
  ],
  [
    'no number',
    partitions('l3Allocation: "most"'),
    /parse L3 allocation request for partition "a": invalid integer "most"/,
  ],
  ['too many percent', partitions('l3Allocation: "101%"'), /invalid percentage value "101%"/],
  ['nothing at all', partitions('l3Allocation: "0%"'), /unable to resolve L3 allocation for cache id 0, not enough/],
  [
    'bits outside the partition',
    partitions('l3Allocation: "0-3"', 'l3Allocation: "0x1f"'),
    /bitmask 0x1f \(0x1f << 0\) does not fit basemask 0xf/,
  ],
  [
    'code without data',
    partitions('l3Allocation: "50%"', 'l3Allocation: { all: { unified: "9%", code: "9%" } }'),
    /'code' specified but missing 'data' from cache schema/,
  ],
  [
    'a class with what its partition does not have',
    partitions('l3Allocation: "50%"', 'mbAllocation: ["50%"]'),
    /MB allocation missing from partition "a" but class "x" specifies MB schema/,
  ],
  [
    'a cache that this machine cannot allocate',
    partitions('l2Allocation: "50%"', 'l2Allocation: "50%"'),
    /L2 cache allocation for "x" specified in configuration but not supported by system/,
  ],
  ['no unit', partitions('mbAllocation: ["50"]', ''), /missing '%' value from mbSchema/],
  [
    'one class twice',
    'partitions: { a: { l3Allocation: "9%", classes: { x: } }, b: { l3Allocation: "9%", classes: { x: } } }',
    /class names must be unique, "x" defined multiple times/,
  ],
  ['a class outside resctrl', 'partitions: { a: { classes: { ../x: } } }', /unqualified class name "\.\.\/x"/],
  ['a field that nobody knows', partitions('l4Allocation: "50%"'), /unknown field "partitions\.a\.l4Allocation"/],
  [
    'a number for a share',
    partitions('l3Allocation: { all: 50 }'),
    /partitions\.a\.l3Allocation\.all: a mapping is wanted/,
  ],
  ['no mapping', '[1, 2]', /the document: a mapping is wanted/],
] as const) {
  test(`a configuration with ${what} is refused, and changes nothing`, async () => {
    const { directory, mounts } = tree({ l3: 'unified', mb: 'percent', groups: { old: '1' } });
    const file = `${directory}.yaml`;
    writeFileSync(file, configuration);
    await assert.rejects(openRdt(file, mounts, kernel), message);
    assert.equal(readFileSync(path.join(directory, 'old/schemata'), 'utf8'), 'as it was\n');
    assert.equal(existsSync(path.join(directory, 'x')), false);
  });
}

test('what the kernel refuses is told in its words', async () => {
  const { directory, mounts } = tree({ l3: 'unified' });
  const file = `${directory}.yaml`;
  writeFileSync(file, partitions('l3Allocation: "50%"'));
  const full = {
    ...kernel,
    make: (): void => {
      writeFileSync(path.join(directory, 'info/last_cmd_status'), 'Out of CLOSIDs\n');
      throw new Error('ENOSPC');
    },
  };
  await assert.rejects(
    openRdt(file, mounts, full),
    /resctrl configuration failed: failed to create resctrl group "x": Out of CLOSIDs$/,
  );
});

test('a machine without resctrl, or with one that is not whole, says so', async () => {
  const { directory, mounts } = tree({ l3: 'unified' });
  writeFileSync(`${directory}.yaml`, 'partitions: {}\n');
  rmSync(path.join(directory, 'info/L3/min_cbm_bits'));
  await assert.rejects(
    openRdt(`${directory}.yaml`, mounts),
    /RDT not enabled: failed to get L3 info from ".*info\/L3"/,
  );
  rmSync(path.join(directory, 'info'), { recursive: true });
  await assert.rejects(openRdt(`${directory}.yaml`, mounts), /RDT not enabled: failed to read RDT info/);
  writeFileSync(mounts, 'proc /proc proc rw 0 0\n');
  await assert.rejects(openRdt(`${directory}.yaml`, mounts), /failed to detect resctrl mount point/);
});
